"""A source of the user's own, as the flow sees it."""

from __future__ import annotations

import copy
import math
from inspect import signature
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from sknsgf.samplers._units import Units


class UserSource:
    """Rows from an object's ``sample`` method, as of scikit-learn's density estimators.

    The object is seeded through a ``random_state`` argument of ``sample`` or, on a copy, its
    ``random_state`` attribute; without either it draws as it pleases.

    Parameters
    ----------
    distribution : object with ``sample(n)``
        Returns rows in data units, or a tuple whose first item they are.
    units : Units
        Units of the target.
    """

    def __init__(self, distribution: Any, units: Units):
        self.distribution = distribution
        self.units = units

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows.

        Raises
        ------
        ValueError
            If ``sample`` returns another shape or values that are not finite.
        """
        seed = int(torch.randint(2**31 - 1, (), device=generator.device, generator=generator))
        rows = self._sample(n, np.random.RandomState(seed))
        rows = np.asarray(rows[0] if isinstance(rows, tuple) else rows, dtype=np.float64)
        expected = (n, len(self.units.mean))
        if rows.shape != expected or not np.isfinite(rows).all():
            raise ValueError(
                f"source.sample({n}) must return finite rows of shape {expected}, got shape "
                f"{rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinity'}."
            )
        return self.units.inward(rows, left=1)

    def log_density(self, x: Tensor) -> Tensor:
        """Evaluate the logarithm of the density at n points, in standardised units."""
        rows = self.units.outward(x, np.dtype(np.float64), left=1)
        density = np.asarray(self.distribution.score_samples(rows), dtype=np.float64)
        return torch.from_numpy(density).to(x) + x.shape[1] * math.log(self.units.scale)

    def _sample(self, n: int, random_state: np.random.RandomState) -> Any:
        distribution = self.distribution
        if isinstance(distribution, FrozenEstimator):
            distribution = distribution.estimator
        if "random_state" in signature(distribution.sample).parameters:
            return distribution.sample(n, random_state=random_state)
        seeded = copy.copy(distribution)
        if hasattr(seeded, "random_state"):
            seeded.random_state = random_state
        return seeded.sample(n)
