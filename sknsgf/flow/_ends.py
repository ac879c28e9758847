"""What flows lead from and to, and the part of it that is kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sknsgf._arguments import check_tensor
from sknsgf._random import seeded_generator
from sknsgf.flow._clouds import Rows, Source

_LEAST_ROWS = 20  # a tenth of which is a cloud
_MANY_ITERATIONS = 500  # in fewer nothing is learned by heart


@dataclass(frozen=True, eq=False)
class Ends:
    """Where flows start and where they end.

    Parameters
    ----------
    source : Rows, GaussianNoise or object with ``draw(n, generator)``
        Where they start.
    target : Tensor of shape (n_target, d)
        Where they end, float32.

    Raises
    ------
    TypeError
        If the source cannot be drawn from, or the target is not a float32 tensor.
    ValueError
        If either has no rows or values that are not finite, or they do not have as many columns.

    Examples
    --------
    >>> import torch
    >>> Ends(Rows(torch.zeros(30, 2)), torch.ones(50, 2)).n_rows
    30
    """

    source: Source
    target: Tensor

    def __post_init__(self) -> None:
        """Raise unless they can be used."""
        if not hasattr(self.source, "draw"):
            raise TypeError(
                f"source must have draw(n, generator), got {type(self.source).__name__}: wrap "
                "rows in Rows(x)."
            )
        _check_rows(self.target, "target")
        if isinstance(self.source, Rows):
            _check_rows(self.source.x, "source")
            if self.source.x.shape[1] != self.target.shape[1]:
                raise ValueError(
                    f"source has {self.source.x.shape[1]} columns but target has "
                    f"{self.target.shape[1]}; both must live in the same space."
                )

    @property
    def n_rows(self) -> int:
        """Count the rows of the smaller array."""
        rows = self.source.x if isinstance(self.source, Rows) else self.target
        return min(len(rows), len(self.target))

    def hold_out(self, early_stopping: bool | str, max_iter: int) -> tuple[Ends, Ends | None]:
        """Split a tenth off the rows for early stopping, if it is asked for or suits the data.

        Parameters
        ----------
        early_stopping : bool or "auto"
            Whether it is asked for.
        max_iter : int
            Steps of a full run.

        Returns
        -------
        kept : Ends
            What is trained on.
        held_out : Ends or None
            What training is judged by, where anything is.

        Raises
        ------
        ValueError
            If it is asked for and there are too few rows.
        """
        if isinstance(early_stopping, str):
            suits = _LEAST_ROWS <= self.n_rows < max_iter >= _MANY_ITERATIONS
            return self._split() if suits else (self, None)
        if early_stopping and self.n_rows < _LEAST_ROWS:
            raise ValueError(
                f"early_stopping=True holds out a tenth of the rows and needs {_LEAST_ROWS} in "
                f"each array, got {self.n_rows}. Set early_stopping=False and a smaller max_iter."
            )
        return self._split() if early_stopping else (self, None)

    def _split(self) -> tuple[Ends, Ends]:
        source, (kept, held_out) = self.source, split(self.target)
        if not isinstance(source, Rows):
            return Ends(source, kept), Ends(source, held_out)
        starts, held_out_starts = (Rows(x) for x in split(source.x))
        return Ends(starts, kept), Ends(held_out_starts, held_out)


def _check_rows(x: Any, name: str) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a float32 tensor, got {came}: pass {name}.float().")
    check_tensor(x, name)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"{name} must have shape (n, d), n and d positive, got {tuple(x.shape)}.")
    if not x.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity: remove such rows.")


def split(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Split a tenth off, the same rows whenever a fit goes on."""
    generator = seeded_generator(0, len(rows))
    order = torch.randperm(len(rows), device="cpu", generator=generator)
    n_held_out = len(rows) // 10
    return rows[order[n_held_out:]], rows[order[:n_held_out]]
