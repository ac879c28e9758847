"""A large cloud seen from a distance: its points gathered in the cells of a grid."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Cells(NamedTuple):
    """The occupied cells of a grid, and the cell of each point."""

    centres: Tensor  # (1, k, d), means of their points
    masses: Tensor  # (1, k), numbers of points, over the mean number
    cell_of: Tensor  # (n,)

    def gather(self, values: Tensor) -> Tensor:
        """Sum the values of points (1, n) by cell: (1, k)."""
        return torch.zeros_like(self.masses).index_add_(1, self.cell_of, values)

    def average(self, values: Tensor) -> Tensor:
        """Average the values of points (1, n) by cell: (1, k)."""
        points_per_cell = len(self.cell_of) / self.masses.numel()
        return self.gather(values) / (points_per_cell * self.masses)

    def spread(self, values: Tensor) -> Tensor:
        """Give each point the value of its cell: (1, k) to (1, n)."""
        return values.index_select(1, self.cell_of)


def in_cells(points: Tensor, width: float) -> Cells:
    """Gather points (1, n, d) in the cells of a grid."""
    points = points[0]
    coordinates = ((points - points.amin(0)) / width).floor().long()
    # Products that overflow are as good: a hash, by which different cells hardly ever meet.
    generator = torch.Generator(device="cpu").manual_seed(0)
    shape = coordinates.shape[-1:]
    odd = 2 * torch.randint(2**62, shape, device="cpu", generator=generator) + 1
    key = (coordinates * odd.to(coordinates.device)).sum(-1)
    _, cell_of, counts = key.unique(return_inverse=True, return_counts=True)
    sums = points.new_zeros(len(counts), points.shape[1]).index_add_(0, cell_of, points)
    counts = counts.to(points).unsqueeze(0)
    return Cells((sums / counts.mT).unsqueeze(0), counts / counts.mean(), cell_of)
