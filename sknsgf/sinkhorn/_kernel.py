"""Kernels between point clouds: costs, and the row-stochastic kernel the solver scales."""

from __future__ import annotations

import torch
from torch import Tensor

# Below this many nats under its row's maximum an entry is held at a floor: it no longer
# matters to the plan, but a column made of such entries still knows which way to move,
# and denormal numbers (eight times slower) never appear.
_FLOOR = -60.0


def squared_cost(x: Tensor, y: Tensor) -> Tensor:
    r"""Cost :math:`\tfrac12\|x_i - y_j\|^2` between all pairs of rows.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        First cloud.
    y : Tensor of shape (..., m, d)
        Second cloud.

    Returns
    -------
    Tensor of shape (..., n, m)
        Costs, in squared units of the clouds, never negative.

    Notes
    -----
    The Gram expansion cancels badly when a cloud lies far from the origin or two points
    nearly coincide: the clouds are centred first, and in up to three dimensions the
    differences are formed explicitly.

    Examples
    --------
    >>> import torch
    >>> squared_cost(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[12.5000]])
    """
    if x.shape[-1] <= 3:
        differences = x.unsqueeze(-2) - y.unsqueeze(-3)
        return differences.square().sum(-1) / 2
    centre = y.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    norms = half_squared_norm(x).unsqueeze(-1) + half_squared_norm(y).unsqueeze(-2)
    return (norms - x @ y.mT).clamp_(min=0)


def half_squared_norm(x: Tensor) -> Tensor:
    """Half the squared Euclidean norm of each row: (..., n, d) to (..., n)."""
    return x.square().sum(-1) / 2


class ScaledKernel:
    r"""The kernel :math:`P_{ij} \propto \exp((x_i \cdot y_j + \tilde g_j) / \epsilon)`.

    Its rows sum to one. Because :math:`\tfrac12\|x_i\|^2` cancels in a row, only inner
    products are needed, with :math:`\tilde g_j = g_j - \tfrac12\|y_j\|^2`.

    Parameters
    ----------
    x : Tensor of shape (B, n, d)
        Rows, centred by the mean of `y`.
    y : Tensor of shape (B, m, d)
        Columns, centred.
    """

    def __init__(self, x: Tensor, y: Tensor):
        self.scores = x @ y.mT

    def absorb(self, g_tilde: Tensor, epsilon: float) -> Tensor:
        """Recompute the kernel for a potential: the only exp pass.

        Returns the log of the row sums (B, n) it divided by.
        """
        logits = (self.scores + g_tilde.unsqueeze(-2)).div_(epsilon)
        top = logits.amax(-1, keepdim=True)
        self.plan = logits.sub_(top).clamp_(min=_FLOOR).exp_()
        mass = self.plan.sum(-1, keepdim=True)
        self.plan.div_(mass)
        return (top + mass.log()).squeeze(-1)

    def select(self, problems: Tensor) -> ScaledKernel:
        """Return the kernel of a subset of the problems."""
        chosen = object.__new__(ScaledKernel)
        chosen.scores = self.scores[problems]
        chosen.plan = self.plan[problems]
        return chosen

    def forward(self, v: Tensor) -> Tensor:
        """Multiply by a vector on the column side: (B, m) to (B, n)."""
        # A row vector times a matrix is an order of magnitude faster in bmm than a
        # matrix times a column.
        return torch.bmm(v.unsqueeze(-2), self.plan.mT).squeeze(-2)

    def adjoint(self, u: Tensor) -> Tensor:
        """Multiply by a vector on the row side: (B, n) to (B, m)."""
        return torch.bmm(u.unsqueeze(-2), self.plan).squeeze(-2)
