"""Where the flow starts: rows of an array, Gaussian noise, or the user's own sampler."""

from __future__ import annotations

import copy
import math
from inspect import signature
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from sknsgf.samplers._units import Units


class Source(Protocol):
    """What the flow needs of a source."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points of shape (n, d), float32, in standardised units."""


class Rows:
    """Rows drawn without replacement while they last, then with replacement.

    Parameters
    ----------
    x : Tensor of shape (n_rows, d)
        The rows, in standardised units.
    """

    def __init__(self, x: Tensor):
        self.x = x

    def is_sound(self, d: int) -> bool:
        """Tell whether the rows can be drawn from and have d columns."""
        return is_finite(self.x.numpy(), (len(self.x), d), np.float32) and len(self.x) > 0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows."""
        n_rows = len(self.x)
        index = torch.randperm(n_rows, generator=generator)[:n]
        again = torch.randint(n_rows, (max(0, n - n_rows),), generator=generator)
        return self.x[torch.cat([index, again])]


class Deck:
    """Rows dealt in shuffled order, and shuffled again when none are left.

    Each row comes as often as any other, so that many draws together are as close to the rows
    as can be: independent draws would be a sample of a sample.

    Parameters
    ----------
    x : Tensor of shape (n_rows, d)
        The rows, in standardised units.
    """

    def __init__(self, x: Tensor):
        self.x = x
        self._order = torch.empty(0, dtype=torch.int64)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Deal the next n rows."""
        while len(self._order) < n:
            again = torch.randperm(len(self.x), generator=generator)
            self._order = torch.cat([self._order, again])
        index, self._order = self._order[:n], self._order[n:]
        return self.x[index]


class GaussianNoise:
    """Standard normal noise in standardised units: as wide as the target, around its mean.

    Parameters
    ----------
    n_features : int
        Width of the rows.
    """

    def __init__(self, n_features: int):
        self.n_features = n_features

    def is_sound(self, d: int) -> bool:
        """Tell whether its rows have d columns."""
        return self.n_features == d

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows."""
        return torch.randn(n, self.n_features, dtype=torch.float32, generator=generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Evaluate the logarithm of the density at n points, in standardised units."""
        return -(x.square().sum(-1) + x.shape[1] * math.log(2 * math.pi)) / 2


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

    def is_sound(self, d: int) -> bool:
        """Tell whether its units have d columns."""
        return is_finite(self.units.mean, (d,), np.float64) and self.units.scale > 0

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n rows.

        Raises
        ------
        ValueError
            If ``sample`` returns another shape or values that are not finite.
        """
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        rows = self._sample(n, np.random.RandomState(seed))
        rows = np.asarray(rows[0] if isinstance(rows, tuple) else rows, dtype=np.float64)
        expected = (n, len(self.units.mean))
        if rows.shape != expected or not np.isfinite(rows).all():
            raise ValueError(
                f"source.sample({n}) must return finite rows of shape {expected}, got shape "
                f"{rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinity'}."
            )
        return self.units.inward(rows)

    def log_density(self, x: Tensor) -> Tensor:
        """Evaluate the logarithm of the density at n points, in standardised units."""
        rows = self.units.outward(x, np.dtype(np.float64))
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


def dealt(source: Source) -> Source:
    """Return what draws the rows of an array evenly; other sources draw as they do."""
    return Deck(source.x) if isinstance(source, Rows) else source


def is_finite(array: NDArray, shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Tell whether an array has a shape and type and only finite numbers."""
    return array.shape == shape and array.dtype == dtype and bool(np.isfinite(array).all())
