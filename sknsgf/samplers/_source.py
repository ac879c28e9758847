"""A source of the user's own, as the flow sees it."""

from __future__ import annotations

import copy
import math
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from sknsgf._arrays import check_floats, is_frame
from sknsgf._random import seeded_generator
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

    def try_out(self) -> NDArray:
        """Draw two rows from a copy, so that what cannot be a source is refused before any work.

        Returns
        -------
        ndarray of shape (2, d)
            The rows, in data units.

        Raises
        ------
        ValueError
            If the object cannot be what is needed of it.
        """
        if is_frame(self.distribution):
            raise ValueError(
                "source is a dataframe: pass it as first array, fit(X_source, "
                "X_target), and leave source=None."
            )
        try:
            spare = copy.deepcopy(self.distribution)  # what draws as it pleases keeps its state
        except Exception:  # of what cannot be copied
            spare = self.distribution
        rows = UserSource(spare, self.units).draw(2, seeded_generator(0, 0))
        return self.units.outward(rows, np.dtype(np.float64), left=1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows.

        Raises
        ------
        ValueError
            If ``sample`` fails, or returns another shape or values that are not finite.
        """
        seed = int(torch.randint(2**31 - 1, (), device=generator.device, generator=generator))
        try:
            rows = self._sample(n, np.random.RandomState(seed))
        except Exception as error:  # whatever the user's own object raises
            remedy = "."
            if isinstance(self.distribution, torch.distributions.Distribution):
                remedy = (
                    "; a distribution of torch wants a shape: wrap it in a class with "
                    "def sample(self, n): return distribution.sample((n,))."
                )
            elif hasattr(self.distribution, "fit"):
                remedy = "; fit it first, and wrap it in a sklearn.frozen.FrozenEstimator."
            raise ValueError(
                f"source.sample({n}) failed with {type(error).__name__}: {error}. source must be "
                f'None, "gaussian" or an object whose sample(n) returns n rows{remedy}'
            ) from error
        rows = rows[0] if isinstance(rows, tuple) else rows
        shape = (n, len(self.units.mean))
        return self.units.inward(check_floats(rows, f"source.sample({n})", shape), left=1)

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
