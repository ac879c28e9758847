"""Between the user's arrays and the flow's tensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEAR = 30  # units between the means, which networks and single precision cope with


class Units(NamedTuple):
    """Standardised units: the target has mean 0 and root mean square 1 in them.

    One scalar for all columns, so that the geometry of the data is kept. A source far away has an
    origin of its own, from where it is thirty units away: transport and its flows commute with
    translations, so that clouds far apart keep every digit. What is `left` of the way between the
    origins, 1 at the source and 0 at the target, says where rows are relative to.

    Attributes
    ----------
    mean : ndarray of shape (d,)
        Mean of the target; where it never varies exactly its value.
    scale : float
        Root mean square deviation of the target's entries from it.
    source_origin : ndarray of shape (d,)
        What source rows are relative to; the mean of the target, where they are not far from it.
    """

    mean: NDArray[np.float64]
    scale: float
    source_origin: NDArray[np.float64]

    @classmethod
    def of(cls, target: NDArray, source: NDArray | None = None) -> Units:
        """Measure the units of a target; if its rows are equal the source tells the scale."""
        mean, scale = measure(target)
        if source is None:
            return cls(mean, scale or 1.0, mean)
        source_mean, source_scale = measure(source)
        scale = scale or source_scale or 1.0
        way = (source_mean - mean) / scale
        far = max(1.0, np.abs(way).max() / NEAR)
        return cls(mean, scale, mean + (1 - 1 / far) * scale * way)

    def inward(
        self, rows: NDArray, dtype: torch.dtype = torch.float32, left: float = 0.0
    ) -> Tensor:
        """Take rows in data units to a tensor in standardised units."""
        return torch.from_numpy((rows - self._origin(left)) / self.scale).to(dtype)

    def outward(self, x: Tensor, dtype: np.dtype, left: Any = 0.0) -> NDArray:
        """Take a tensor in standardised units to rows in data units."""
        rows = x.cpu().numpy().astype(np.float64)  # as scales may be beyond single precision
        left = np.reshape(left, np.shape(left) + (1,) * (rows.ndim - np.ndim(left)))
        try:
            with np.errstate(over="raise"):
                return (rows * self.scale + self._origin(left)).astype(dtype, copy=False)
        except FloatingPointError as error:
            raise ValueError(
                f"Some rows end beyond what {dtype} can hold: pass data in smaller units"
                f"{'' if dtype == np.float64 else ', or in float64'}."
            ) from error

    def _origin(self, left: Any) -> NDArray[np.float64]:
        # To the bit the mean, whatever is left, where the source has no other origin.
        return self.mean + left * (self.source_origin - self.mean)


def measure(rows: NDArray) -> tuple[NDArray[np.float64], float]:
    """Return the mean of rows, and how far their entries deviate from it; exactly 0 if never."""
    constant = (rows == rows[0]).all(axis=0)
    mean = np.where(constant, rows[0], rows.mean(axis=0, dtype=np.float64))
    spread = np.abs(rows - mean).max()
    if not spread:
        return mean, 0.0
    # Dividing by the spread first keeps squares of tiny or huge values representable.
    return mean, float(spread * np.sqrt(np.mean(np.square((rows - mean) / spread))))
