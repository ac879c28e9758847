"""How a student learns: one loop for every network of the package."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sknsgf.training._history import TrainingHistory

_CLIP_NORM = 1.0
_DECAY = 0.1  # of matrices, a unit of the learning rate; keeps networks gentle between the rows
_N_VALIDATIONS = 50  # in a full run
_PATIENCE = 0.2  # share of a full run without a better held-out loss before stopping


@torch.inference_mode(False)
@torch.enable_grad()
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

    Adam with gradient clipping, decoupled decay of weight matrices and a cosine schedule after
    a short warm-up. The network returned is an exponential moving average of the iterates, whose
    decay grows to `ema_decay`, so that it never remembers the start.

    Parameters
    ----------
    network : Module
        Trained in place.
    loss : callable (network) -> Tensor of shape ()
        Draws a fresh batch and evaluates the network on it.
    max_iter : int
        Number of iterations.
    learning_rate : float
        Peak learning rate.
    ema_decay : float
        Decay of the average, in [0, 1); 0 keeps the last iterate.
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
        Losses and the reason for stopping. A loss or gradient that is not finite stops
        training before it touches the weights ("diverged").

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
    parameters = list(network.parameters())
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    optimizer = torch.optim.AdamW(
        _decaying(parameters), lr=learning_rate, betas=(0.9, 0.99), fused=fused
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_cosine(max_iter))
    average = _Average(network, ema_decay)
    watch = _EarlyStopping(validation_loss, max_iter)
    losses: list[float] = []
    status = "completed"
    network.train()
    for iteration in range(1, max_iter + 1):
        optimizer.zero_grad(set_to_none=True)
        value = loss(network)
        value.backward()
        norm = nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        if not math.isfinite(float(value.detach() + norm)):
            status = "diverged"
            break
        optimizer.step()
        scheduler.step()
        average.update()
        losses.append(float(value.detach()))
        if progress is not None:
            progress(losses[-1])
        stopped = should_stop is not None and should_stop(iteration, average.network)
        if watch.should_stop(iteration, average.network) or stopped:
            status = "stopped early"
            break
    fitted = average.network if watch.best is None else watch.best
    history = TrainingHistory(
        iter=torch.arange(1, len(losses) + 1),
        loss=torch.tensor(losses),
        validation_iter=torch.tensor(watch.iterations, dtype=torch.int64),
        validation_loss=torch.tensor(watch.losses),
        status=status,
    )
    return fitted.eval(), history


def _decaying(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Split parameters in those that decay, the matrices, and those that do not."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": _DECAY},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _warm_cosine(max_iter: int) -> Callable[[int], float]:
    warm_up = min(50, max(1, max_iter // 10))

    def factor(iteration: int) -> float:
        if iteration < warm_up:
            return (iteration + 1) / warm_up
        done = (iteration - warm_up) / max(1, max_iter - warm_up)
        return 0.005 + 0.995 * (1 + math.cos(math.pi * done)) / 2

    return factor


class _Average:
    """Exponential moving average of a network that is being trained.

    The decay grows with the number of updates, so that the first one copies the weights and
    the average never remembers where it started.
    """

    def __init__(self, trained: nn.Module, decay: float):
        self.network = copy.deepcopy(trained).requires_grad_(False)
        self.decay, self.n_updates = decay, 0
        self._averages: list[Tensor] = list(self.network.parameters())
        self._values: list[Tensor] = list(trained.parameters())
        self._buffers = list(zip(self.network.buffers(), trained.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.decay, self.n_updates / (self.n_updates + 9))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        for kept, current in self._buffers:
            kept.copy_(current)
        self.n_updates += 1


class _EarlyStopping:
    """Keeps the best average by held-out loss, and says when to give up waiting."""

    def __init__(self, loss: Callable[[nn.Module], Tensor] | None, max_iter: int):
        self.loss = loss
        self.every = max(1, max_iter // _N_VALIDATIONS)
        self.patience = _PATIENCE * max_iter
        self.iterations: list[int] = []
        self.losses: list[float] = []
        self.best: nn.Module | None = None
        self.best_loss, self.best_iteration = math.inf, 0

    def should_stop(self, iteration: int, network: nn.Module) -> bool:
        if self.loss is None or iteration % self.every:
            return False
        network.eval()
        with torch.no_grad():
            value = float(self.loss(network))
        self.iterations.append(iteration)
        self.losses.append(value)
        if value < self.best_loss:
            self.best, self.best_loss = copy.deepcopy(network), value
            self.best_iteration = iteration
        return iteration - self.best_iteration >= self.patience
