"""What moves: clouds of points, and how minibatches of them are drawn by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sknsgf._arguments import check_size
from sknsgf._random import deal_indices, seeded_generator


class Cloud(NamedTuple):
    """Points, with what they carry.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        The points.
    weight : Tensor of shape (n,) or None
        Their weights; None where all weigh the same.
    condition : Tensor of shape (n, k) or None
        What each was observed under; None where nothing was.
    """

    x: Tensor
    weight: Tensor | None = None
    condition: Tensor | None = None

    def take(self, index: Tensor) -> Cloud:
        """Return the points of these indices, with what they carry."""
        weight, condition = (None if part is None else part[index] for part in self[1:])
        return Cloud(self.x[index], weight, condition)


Draw = Callable[[int, int], Cloud]
"""Draws n points, draw `number`: a function of its seed and these two alone."""


class Source(Protocol):
    """Where a flow starts."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw points of shape (n, d), float32."""


class Rows:
    """Rows drawn without replacement while they last, then with replacement.

    Parameters
    ----------
    x : Tensor of shape (n_rows, d)
        The rows.

    Examples
    --------
    >>> import torch
    >>> rows = Rows(torch.arange(3.0)[:, None])
    >>> rows.draw(3, torch.Generator().manual_seed(0)).sum()
    tensor(3.)
    """

    def __init__(self, x: Tensor):
        self.x = x.detach() if isinstance(x, Tensor) else x  # what else is refused by name later

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw rows.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator
            What they are drawn by.

        Returns
        -------
        Tensor of shape (n, d)
            The rows.
        """
        n_rows = len(self.x)
        device, n_again = generator.device, max(0, n - n_rows)
        index = torch.randperm(n_rows, device=device, generator=generator)[:n]
        again = torch.randint(n_rows, (n_again,), device=device, generator=generator)
        return self.x[torch.cat([index, again])]


class GaussianNoise:
    """Standard normal noise.

    Parameters
    ----------
    n_features : int
        Width of the rows.

    Raises
    ------
    ValueError
        If it is not a positive integer.

    Examples
    --------
    >>> import torch
    >>> GaussianNoise(2).draw(5, torch.Generator().manual_seed(0)).shape
    torch.Size([5, 2])
    """

    def __init__(self, n_features: int):
        self.n_features = check_size(n_features, "n_features")

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw rows.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator
            What they are drawn by.

        Returns
        -------
        Tensor of shape (n, d)
            The rows.
        """
        shape = n, self.n_features
        device = generator.device
        return torch.randn(shape, dtype=torch.float32, device=device, generator=generator)

    def log_density(self, x: Tensor) -> Tensor:
        """Evaluate the logarithm of the density.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points.

        Returns
        -------
        Tensor of shape (n,)
            Logarithms of the density there.
        """
        return -(x.square().sum(-1) + x.shape[1] * math.log(2 * math.pi)) / 2


@dataclass(frozen=True, eq=False)
class Drawn:
    """Points of what draws with a generator, each draw by itself."""

    draw: Callable[[int, torch.Generator], Tensor]
    seed: int

    def __call__(self, n: int, number: int) -> Cloud:
        """Draw n points, draw `number`."""
        return Cloud(self.draw(n, seeded_generator(self.seed, number)))


@dataclass(frozen=True, eq=False)
class Dealt:
    """Rows dealt in shuffled order, and shuffled again when none are left.

    Each row comes as often as any other, so that many draws together are as close to the rows as
    can be: independent draws would be a sample of a sample. Draws of one size follow each other.
    """

    cloud: Cloud
    seed: int

    def __call__(self, n: int, number: int) -> Cloud:
        """Deal n rows, draw `number`."""
        return self.cloud.take(deal_indices(self.seed, n * number, n, len(self.cloud.x)))


def by_number(source: Source, seed: int) -> Draw:
    """Return what draws from a source by number: rows evenly dealt, others as they draw."""
    if isinstance(source, Rows):
        return Dealt(Cloud(source.x), seed)
    return Drawn(source.draw, seed)
