"""How a student learns: one loop for every network of the package."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sknsgf._arguments import check_callable
from sknsgf.training._history import TrainingHistory
from sknsgf.training._state import Objective, Training


def learn(
    training: Training,
    objective: Objective,
    *,
    held_out_loss: Callable[[nn.Module], Tensor] | None = None,
    after_step: Callable[[Training], object] | None = None,
) -> None:
    """Go on with a training to its end.

    Parameters
    ----------
    training : Training
        Where it begins, and where its end is found.
    objective : callable (network, number) -> Tensor of shape ()
        The loss on batch `number`.
    held_out_loss : callable (network) -> Tensor of shape (), optional
        If given, training stops once it has not fallen for a fifth of the run, and the best
        average seen is what results.
    after_step : callable (training), optional
        Called after every step, when it has been judged; it may stop the training.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(8, 1)
    >>> training = Training(torch.nn.Linear(1, 1), max_iter=500, learning_rate=0.05, ema_decay=0.9)
    >>> learn(training, lambda network, number: (network(x) - 3).square().mean())
    >>> network, history = training.result()
    >>> network(torch.ones(1)).round(decimals=2), history.status
    (tensor([3.]), 'completed')
    """
    while training.running and training.step(objective):
        if held_out_loss is not None:
            training.validate(held_out_loss)
        if after_step is not None:
            after_step(training)


def train(
    network: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    max_iter: int,
    learning_rate: float,
    ema_decay: float,
    validation_loss: Callable[[nn.Module], Tensor] | None = None,
    progress: Callable[[float], object] | None = None,
    should_stop: Callable[[int, nn.Module], bool] | None = None,
) -> tuple[nn.Module, TrainingHistory]:
    """Minimise a stochastic loss; return the averaged network.

    Parameters
    ----------
    network : Module
        Trained in place.
    loss : callable (network) -> Tensor of shape ()
        Draws a fresh batch and evaluates the network on it.
    max_iter, learning_rate, ema_decay
        As in :class:`Training`.
    validation_loss : callable (network) -> Tensor of shape (), optional
        Held-out loss. If given, training stops once it has not fallen for a fifth of the
        run, and the best average seen is returned.
    progress : callable (loss), optional
        Told the loss of every iteration.
    should_stop : callable (iteration, network) -> bool, optional
        Asked after every iteration, with the averaged network; True ends training.

    Returns
    -------
    network : Module
        The averaged network, in evaluation mode and without gradients.
    history : TrainingHistory
        Losses and the reason for stopping, as in :meth:`Training.step`.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what `loss` returns, is not as described.

    Examples
    --------
    >>> import torch
    >>> line = torch.nn.Linear(1, 1)
    >>> x = torch.ones(8, 1)
    >>> fitted, history = train(line, lambda f: (f(x) - 3).square().mean(),
    ...                         max_iter=500, learning_rate=0.05, ema_decay=0.9)
    >>> fitted(torch.ones(1)).round(decimals=2), history.status
    (tensor([3.]), 'completed')
    """
    check_callable(loss, "loss", "the network")
    training = Training(
        network, max_iter=max_iter, learning_rate=learning_rate, ema_decay=ema_decay
    )

    def after_step(training: Training) -> None:
        if progress is not None:
            progress(training.loss)
        if should_stop is not None and should_stop(training.iteration, training.average):
            training.stop()

    learn(
        training,
        lambda network, _: loss(network),
        held_out_loss=validation_loss,
        after_step=after_step,
    )
    return training.result()
