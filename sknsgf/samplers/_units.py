"""Between the user's arrays and the flow's tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Units(NamedTuple):
    """Standardised units: the target has mean 0 and root mean square 1 in them.

    One scalar for all columns, so that the geometry of the data is kept.

    Attributes
    ----------
    mean : ndarray of shape (d,)
        Mean of the target; where it never varies exactly its value.
    scale : float
        Root mean square deviation of the target's entries from it.
    """

    mean: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, target: NDArray, source: NDArray | None = None) -> Units:
        """Measure the units of a target; if its rows are equal the source tells the scale."""
        constant = (target == target[0]).all(axis=0)
        mean = np.where(constant, target[0], target.mean(axis=0, dtype=np.float64))
        if constant.all():
            return cls(mean, 1.0 if source is None else cls.of(source).scale)
        spread = np.abs(target - mean).max()
        # Dividing by the spread first keeps squares of tiny or huge values representable.
        scale = spread * np.sqrt(np.mean(np.square((target - mean) / spread)))
        return cls(mean, float(scale))

    def inward(self, rows: NDArray, dtype: torch.dtype = torch.float32) -> Tensor:
        """Take rows in data units to a tensor in standardised units."""
        return torch.from_numpy((rows - self.mean) / self.scale).to(dtype)

    def outward(self, x: Tensor, dtype: np.dtype) -> NDArray:
        """Take a tensor in standardised units to rows in data units."""
        rows = x.cpu().numpy().astype(np.float64)  # as scales may be beyond single precision
        return (rows * self.scale + self.mean).astype(dtype, copy=False)
