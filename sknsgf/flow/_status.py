"""How well the transport problems behind a teacher's lessons were solved."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Status(NamedTuple):
    """How many transport problems were solved to tolerance, and how far off the worst is.

    Attributes
    ----------
    n_problems : int
        Problems looked at.
    n_unsolved : int
        Those that stopped short of the tolerance.
    marginal_error : float
        The largest marginal error.
    tol : float
        The marginal error that was to be reached.

    Examples
    --------
    >>> (Status(90, 1, 0.3, 0.01) + Status(10, 4, 0.2, 0.01)).share_unsolved
    0.05
    """

    n_problems: int = 0
    n_unsolved: int = 0
    marginal_error: float = 0.0
    tol: float = 0.0

    @classmethod
    def of(cls, converged: Tensor, marginal_error: Tensor, tol: float) -> Status:
        """Sum up what a solver returned."""
        n_unsolved = converged.numel() - int(converged.sum())
        return cls(converged.numel(), n_unsolved, float(marginal_error.max()), tol)

    @property
    def share_unsolved(self) -> float:
        """Share of the problems that stopped short."""
        return self.n_unsolved / max(1, self.n_problems)

    def __add__(self, other: Status) -> Status:  # type: ignore[override]
        """Sum up both."""
        return Status(
            self.n_problems + other.n_problems,
            self.n_unsolved + other.n_unsolved,
            max(self.marginal_error, other.marginal_error),
            max(self.tol, other.tol),
        )
