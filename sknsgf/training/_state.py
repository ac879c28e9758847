"""The state of a run: everything that the next step of training depends on."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sknsgf._arguments import check_positive, check_share, check_size, shown
from sknsgf._surroundings import undisturbed
from sknsgf.training._history import TrainingHistory, TrainingStatus

_CLIP_NORM = 1.0
_DECAY = 0.1  # of matrices, a unit of the learning rate; keeps networks gentle between the rows
_BETAS = (0.9, 0.99)
_N_VALIDATIONS = 50  # in a full run
_EXPLODED, _WORSE = 1e6, 100  # times the first loss: on the way, and at the end
_PATIENCE = 0.2  # share of a full run without a better held-out loss before stopping

Objective = Callable[[nn.Module, int], Tensor]
"""The loss (a scalar) of a network on batch `number`."""

State = dict[str, Any]


class Training:
    """A network in training: its average, optimiser, patience and losses.

    Adam with gradient clipping, decoupled decay of weight matrices and a cosine schedule after
    a short warm-up. What is kept is an exponential moving average of the iterates, whose decay
    grows to `ema_decay`, so that it never remembers the start.

    Parameters
    ----------
    network : Module
        Trained in place.
    max_iter : int
        Number of steps in a full run.
    learning_rate : float
        Peak learning rate.
    ema_decay : float
        Decay of the average, in [0, 1); 0 keeps the last iterate.

    Raises
    ------
    TypeError, ValueError
        If a number is not as described.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(8, 1)
    >>> training = Training(torch.nn.Linear(1, 1), max_iter=500, learning_rate=0.05, ema_decay=0.9)
    >>> def loss(network, number):
    ...     return (network(x) - 3).square().mean()
    >>> while training.running and training.step(loss):
    ...     pass
    >>> training.result()[0](torch.ones(1)).round(decimals=2)
    tensor([3.])
    """

    @undisturbed
    def __init__(
        self, network: nn.Module, *, max_iter: int, learning_rate: float, ema_decay: float
    ):
        if not isinstance(network, nn.Module) or not list(network.parameters()):
            raise TypeError(f"network must be a Module with parameters, got {shown(network)}.")
        check_size(max_iter, "max_iter", least=0)
        check_positive(learning_rate, "learning_rate")
        check_share(ema_decay, "ema_decay", "[0, 1)")
        self.network = network.train()
        self.max_iter, self.learning_rate = max_iter, learning_rate
        self.iteration = 0
        done = TrainingStatus.COMPLETED if max_iter <= 0 else None
        self.status: TrainingStatus | None = done  # None while it goes on
        self._parameters = list(network.parameters())
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in self._parameters)
        self._matrices: list[Tensor] = [
            parameter
            for parameter in self._parameters
            if parameter.ndim > 1 and parameter.requires_grad
        ]
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=learning_rate, betas=_BETAS, fused=fused
        )
        self._average = _Average(network, ema_decay)
        self._patience = _Patience(max_iter)
        self._good = copy.deepcopy(self._average.network)  # the last average that was no worse
        self._losses: list[float] = []

    @property
    def running(self) -> bool:
        """Whether there is a step to be taken."""
        return self.status is None

    @property
    def average(self) -> nn.Module:
        """The averaged network as it is now; not to be changed."""
        return self._average.network

    @property
    def loss(self) -> float:
        """The loss of the last step."""
        return self._losses[-1]

    @undisturbed
    def step(self, objective: Objective) -> bool:
        """Take one step.

        Parameters
        ----------
        objective : callable (network, number) -> Tensor of shape ()
            The loss on the batch of this step's number, from 0. A loss that explodes, to a
            million times the first one or beyond what is finite, or a gradient that is not
            finite, ends training before it touches the weights. After the last step the average
            is judged by one more batch: at a hundred times the first loss it has diverged, too.

        Returns
        -------
        bool
            Whether it was taken.

        Raises
        ------
        ValueError
            If the loss is not a scalar with a gradient.
        """
        if not self.running:
            return False
        for parameter in self._parameters:
            parameter.grad = None
        value = objective(self.network, self.iteration)
        if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
            raise ValueError(
                "loss must return a tensor of shape () that depends on the network, got "
                f"{shown(value)}."
            )
        value.backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        loss, length = torch.stack([value.detach(), norm]).tolist()
        if self._is_worse(_EXPLODED, loss + 0 * length):
            self.status = TrainingStatus.DIVERGED
            return False
        if self._patience.is_due(self.iteration) and not self._is_worse(_WORSE, loss):
            self._good.load_state_dict(self.average.state_dict())
        if length > _CLIP_NORM:
            torch._foreach_mul_(gradients, _CLIP_NORM / length)
        rate = self._rate()
        if matrices := [matrix for matrix in self._matrices if matrix.grad is not None]:
            with torch.no_grad():
                torch._foreach_mul_(matrices, 1 - rate * _DECAY)
        self._optimizer.param_groups[0]["lr"] = rate
        self._optimizer.step()
        self._average.update()
        self._losses.append(loss)
        self.iteration += 1
        if self.iteration >= self.max_iter:
            with torch.no_grad():
                last = float(objective(self.average.eval(), self.iteration))
            diverged = self._is_worse(_WORSE, last)
            self.status = TrainingStatus.DIVERGED if diverged else TrainingStatus.COMPLETED
        return True

    def _rate(self) -> float:
        """Return the learning rate of this step: a short warm-up, then half a cosine."""
        warm_up = min(50, max(1, self.max_iter // 10))
        if self.iteration < warm_up:
            return self.learning_rate * ((self.iteration + 1) / warm_up)
        done = (self.iteration - warm_up) / max(1, self.max_iter - warm_up)
        return self.learning_rate * (0.005 + 0.995 * (1 + math.cos(math.pi * done)) / 2)

    def _is_worse(self, times: float, loss: float) -> bool:
        first = abs(self._losses[0]) if self._losses else 0.0
        return not math.isfinite(loss) or loss > times * first > 0

    @undisturbed
    def validate(self, held_out_loss: Callable[[nn.Module], Tensor]) -> None:
        """Judge the average every so often, and stop where it has not become better for long.

        Parameters
        ----------
        held_out_loss : callable (network) -> Tensor of shape ()
            Loss on what is not trained on.
        """
        if self._patience.is_exhausted(self.iteration, self.average, held_out_loss):
            self.stop()

    def stop(self) -> None:
        """End training here."""
        self.status = TrainingStatus.STOPPED_EARLY

    def state(self) -> State:
        """Return everything that the next step depends on.

        Returns
        -------
        dict
            Of numbers, tensors, lists and dicts of them; the tensors are copies.
        """
        return copy.deepcopy(
            {
                "iteration": self.iteration,
                "status": None if self.status is None else str(self.status),
                "losses": self._losses,
                "network": self.network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "average": self._average.state(),
                "good": self._good.state_dict(),
                "patience": self._patience.state(),
            }
        )

    @undisturbed
    def restore(self, state: State) -> None:
        """Go on from a state of a run that began alike.

        Parameters
        ----------
        state : dict
            From `state`.
        """
        state = copy.deepcopy(state)
        self.iteration, self._losses = state["iteration"], state["losses"]
        status = state["status"]
        self.status = None if status is None else TrainingStatus(status)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._average.restore(state["average"])
        self._good.load_state_dict(state["good"])
        self._patience.restore(state["patience"], self.average)

    def result(self) -> tuple[nn.Module, TrainingHistory]:
        """Return the average, or the best one by held-out loss, and what happened.

        Of a training that has diverged it is the average of a step before, the last one looked at
        whose loss was not a hundred times the first.

        Returns
        -------
        network : Module
            In evaluation mode and without gradients.
        history : TrainingHistory
            Losses and why training ended.
        """
        network = self._patience.best
        if network is None:
            diverged = self.status == TrainingStatus.DIVERGED
            network = self._good if diverged else self.average
        history = TrainingHistory(
            iter=torch.arange(1, len(self._losses) + 1, device="cpu"),
            loss=torch.tensor(self._losses, dtype=torch.float32, device="cpu"),
            validation_iter=torch.tensor(
                self._patience.iterations, dtype=torch.int64, device="cpu"
            ),
            validation_loss=torch.tensor(self._patience.losses, dtype=torch.float32, device="cpu"),
            status=self.status or TrainingStatus.STOPPED_EARLY,
        )
        return network.eval(), history


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
        self._kept, self._current = list(self.network.buffers()), list(trained.buffers())

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self.decay, self.n_updates / (self.n_updates + 9))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._kept:
            torch._foreach_copy_(self._kept, self._current)
        self.n_updates += 1

    def state(self) -> State:
        return {"network": self.network.state_dict(), "n_updates": self.n_updates}

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        self.n_updates = state["n_updates"]


class _Patience:
    """Keeps the best average by held-out loss, and says when to give up waiting."""

    def __init__(self, max_iter: int):
        self.every = max(1, max_iter // _N_VALIDATIONS)
        self.longest = _PATIENCE * max_iter
        self.iterations: list[int] = []
        self.losses: list[float] = []
        self.best: nn.Module | None = None
        self.best_loss, self.best_iteration = math.inf, 0

    def is_due(self, iteration: int) -> bool:
        return iteration % self.every == 0

    def is_exhausted(
        self, iteration: int, network: nn.Module, loss: Callable[[nn.Module], Tensor]
    ) -> bool:
        if not self.is_due(iteration):
            return False
        network.eval()
        with torch.no_grad():
            value = float(loss(network))
        self.iterations.append(iteration)
        self.losses.append(value)
        if value < self.best_loss:
            self.best, self.best_loss = copy.deepcopy(network), value
            self.best_iteration = iteration
        return iteration - self.best_iteration >= self.longest

    def state(self) -> State:
        names = ("iterations", "losses", "best_loss", "best_iteration")
        best = None if self.best is None else self.best.state_dict()
        return {"best": best} | {name: getattr(self, name) for name in names}

    def restore(self, state: State, network: nn.Module) -> None:
        best = state.pop("best")
        vars(self).update(state)
        self.best = None if best is None else copy.deepcopy(network)
        if self.best is not None:
            self.best.load_state_dict(best)
