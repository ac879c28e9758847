"""What happened during training, iteration by iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, overload

import torch
from torch import Tensor


class TrainingStatus(StrEnum):
    """Why training ended; each has its sentence.

    Examples
    --------
    >>> TrainingStatus("stopped early").sentence
    'Training was stopped before its last step.'
    """

    COMPLETED = "completed"
    STOPPED_EARLY = "stopped early"
    DIVERGED = "diverged"

    def __repr__(self) -> str:
        """Look like the text that it is."""
        return repr(self.value)

    @property
    def sentence(self) -> str:
        """What it means."""
        return _SENTENCES[self]


_SENTENCES = {
    TrainingStatus.COMPLETED: "Training took all of its steps.",
    TrainingStatus.STOPPED_EARLY: "Training was stopped before its last step.",
    TrainingStatus.DIVERGED: "Training diverged: the loss exploded, or ended far above the first.",
}


class TrainingRecord(NamedTuple):
    """One iteration.

    Attributes
    ----------
    iter : int
        Its number, from 1.
    loss : float
        Training loss of its batch.
    validation_loss : float
        Held-out loss after it; NaN where none was taken.
    """

    iter: int
    loss: float
    validation_loss: float


@dataclass(frozen=True, eq=False, repr=False)
class TrainingHistory:
    """What happened during training.

    A sequence of iterations: ``history[-1]`` is the last one, ``history[1000:]`` the history
    of all but the first thousand, and ``first + second`` that of training that went on.

    Attributes
    ----------
    iter : Tensor of shape (n_iter,)
        Numbers of the iterations, from 1.
    loss : Tensor of shape (n_iter,)
        Training loss of each iteration's batch.
    validation_iter : Tensor of shape (n_validations,)
        Iterations after which the held-out loss was taken.
    validation_loss : Tensor of shape (n_validations,)
        Held-out loss of the averaged network.
    status : TrainingStatus
        Why training ended: "completed", "stopped early" or "diverged".

    Examples
    --------
    >>> import torch
    >>> from sknsgf.training import TrainingHistory, TrainingStatus
    >>> history = TrainingHistory(
    ...     iter=torch.arange(1, 5),
    ...     loss=torch.tensor([4.0, 3.0, 2.0, 1.0]),
    ...     validation_iter=torch.tensor([2, 4]),
    ...     validation_loss=torch.tensor([3.5, 1.5]),
    ...     status=TrainingStatus.COMPLETED,
    ... )
    >>> history[-1]
    TrainingRecord(iter=4, loss=1.0, validation_loss=1.5)
    >>> history[2:]
    TrainingHistory(2 iterations, last loss 1, completed)
    """

    iter: Tensor
    loss: Tensor
    validation_iter: Tensor
    validation_loss: Tensor
    status: TrainingStatus

    def __len__(self) -> int:
        """Count the iterations."""
        return len(self.loss)

    def __iter__(self) -> Iterator[TrainingRecord]:
        """Go through the iterations."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> TrainingRecord: ...

    @overload
    def __getitem__(self, index: slice) -> TrainingHistory: ...

    def __getitem__(self, index: int | slice) -> TrainingRecord | TrainingHistory:
        """Return one iteration, or the history of some."""
        if not isinstance(index, slice):
            number = int(self.iter[index])
            held_out = self.validation_loss[self.validation_iter == number].tolist()
            return TrainingRecord(number, float(self.loss[index]), *(held_out or [torch.nan]))
        taken = torch.isin(self.validation_iter, self.iter[index])
        return replace(
            self,
            iter=self.iter[index],
            loss=self.loss[index],
            validation_iter=self.validation_iter[taken],
            validation_loss=self.validation_loss[taken],
        )

    def __add__(self, later: TrainingHistory) -> TrainingHistory:
        """Put training that went on behind this one; its iterations are counted on."""
        before = int(self.iter[-1]) if len(self) else 0
        return TrainingHistory(
            iter=torch.cat([self.iter, before + later.iter]),
            loss=torch.cat([self.loss, later.loss]),
            validation_iter=torch.cat([self.validation_iter, before + later.validation_iter]),
            validation_loss=torch.cat([self.validation_loss, later.validation_loss]),
            status=later.status,
        )

    def __repr__(self) -> str:
        """Say how long it is and how it ended."""
        last = f", last loss {self.loss[-1]:.3g}" if len(self) else ""
        return f"TrainingHistory({len(self)} iterations{last}, {self.status})"
