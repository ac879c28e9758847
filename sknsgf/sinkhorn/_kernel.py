"""Kernels between point clouds: costs, and the kernel the solver scales."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_LOG2E = math.log2(math.e)

# Below this many bits under its row's maximum an entry is held at a floor: it no longer
# matters to the plan, but a column made of such entries still knows which way to move,
# and denormal numbers (several times slower) never appear.
_FLOOR = -86.0

# Entries of a kernel up to which it is kept in memory (with the inner products behind it
# 256 MB in single precision). A larger one is formed again, block of rows by block of rows,
# at each product. Problems of a batch are solved together up to as many entries in all; on
# a CPU up to what its last cache holds.
_STORED = 2**25
_TOGETHER_CPU = 2**22
_BLOCK_CPU = 2**19
_BLOCK_ACCELERATOR = 2**25
_SAMPLE = 2**24  # entries of the sample of rows that stands for a kernel not stored

# Up to this dimension differences of coordinates are both faster and more precise.
_FEW = 3


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
    if x.shape[-1] <= _FEW:
        return _cost_by_coordinates(x, y)
    centre = y.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    norms = half_squared_norm(x).unsqueeze(-1) + half_squared_norm(y).unsqueeze(-2)
    return norms.sub_(x @ y.mT).clamp_(min=0)


def _cost_by_coordinates(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.mT.unsqueeze(-1), y.mT.unsqueeze(-2)
    cost = (x[..., 0, :, :] - y[..., 0, :, :]).square_()
    for k in range(1, x.shape[-3]):
        difference = x[..., k, :, :] - y[..., k, :, :]
        cost.addcmul_(difference, difference)
    return cost.div_(2)


def half_squared_norm(x: Tensor) -> Tensor:
    """Half the squared Euclidean norm of each row: (..., n, d) to (..., n)."""
    return torch.linalg.vector_norm(x, dim=-1).square() / 2


def problems_together(x: Tensor, y: Tensor) -> int:
    """How many problems of a batch (B, n, d), (B, m, d) to solve at a time."""
    limit = _TOGETHER_CPU if x.device.type == "cpu" else _STORED
    return max(1, limit // (x.shape[1] * y.shape[1]))


class ScaledKernel:
    r"""The kernel :math:`P_{ij} = \exp((g_j - \tfrac12\|x_i - y_j\|^2) / \epsilon - s_i)`.

    The shift :math:`s_i` makes the largest entry of each row one. A kernel too large to
    store is formed again in blocks of rows at each product.

    Parameters
    ----------
    x : Tensor of shape (B, n, d)
        Rows.
    y : Tensor of shape (B, m, d)
        Columns.
    same : bool, default=False
        Whether rows and columns are the same points, and the potential is zero: then the
        diagonal is one.
    inner : Tensor of shape (B, n, m), optional
        The inner products of rows and columns, if they are known.
    """

    def __init__(self, x: Tensor, y: Tensor, *, same: bool = False, inner: Tensor | None = None):
        self.same = same
        self.offset, self.x, self.y = _centred(x, y) if inner is None else (0.0, x, y)
        self.columns, self.y_norm = self.y.mT, half_squared_norm(self.y)
        self.stored = len(x) * x.shape[1] * y.shape[1] <= _STORED
        self.scores = inner
        if x.shape[-1] <= _FEW:  # then inner products are as quickly formed as read
            self.columns = self.columns.contiguous()
        elif self.stored and inner is None:
            self.scores = self.x @ self.columns
        # The kernel, or room for a block of it: fresh memory for each block would scatter
        # over the heap and make it grow.
        self.plan = x.new_empty(len(x), x.shape[1] if self.stored else self._size(), y.shape[1])
        self.sample: ScaledKernel | None = None

    def absorb(self, g: Tensor, epsilon: float) -> None:
        """Form the kernel of a potential (B, m) at a temperature: the only exp pass."""
        self.g, self.epsilon, self.per_bit = g, epsilon, _LOG2E / epsilon  # exp2 beats exp
        self.bias = ((g - self.y_norm) * self.per_bit).unsqueeze(-2)
        self.shift = torch.empty_like(self.x[..., 0])
        for rows in self._slices():
            logits = self._logits(rows)
            self.shift[:, rows] = logits.amax(-1)
            if self.stored:
                self._exponential(logits, rows)
        if self.sample is not None:
            self.sample.absorb(g, epsilon)

    def keep_sample(self) -> None:
        """Store the kernel of evenly spaced rows, to stand for this one in the Hessian."""
        stride = math.ceil(len(self.x) * self.x.shape[1] * self.y.shape[1] / _SAMPLE)
        self.sample = ScaledKernel(self.x[:, ::stride], self.y)

    def forward(self, v: Tensor) -> Tensor:
        """Multiply by a vector on the column side: (B, m) to (B, n)."""
        return _joined([_row_sums(plan, v) for _, plan in self._blocks()], -1)

    def balance(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Find the row scaling u with u ∘ P v = 1, and the column masses v ∘ Pᵀ u."""
        u, mass = [], torch.zeros_like(v).unsqueeze(-2)
        for _, plan in self._blocks():
            u.append(_row_sums(plan, v).reciprocal_())
            mass.baddbmm_(u[-1].unsqueeze(-2), plan)
        return _joined(u, -1), mass.squeeze(-2).mul_(v)

    def smooth(self, v: Tensor, weights: Tensor) -> Tensor:
        """Pᵀ (weights ∘ P v) of rows (B, 1, m), the product of which the Hessian is made."""
        image = torch.zeros_like(v)
        for rows, plan in self._blocks():
            image.baddbmm_(torch.bmm(v, plan.mT).mul_(weights[..., rows]), plan)
        return image

    def project(self, u: Tensor, v: Tensor) -> Tensor:
        """Mean of the columns' points for each row of the scaled plan: (B, n, d).

        Uses the kernel up.
        """
        if self.x.shape[-1] <= _FEW:
            points = self.columns * v.unsqueeze(-2)
            images = [torch.bmm(points, plan.mT).mT for _, plan in self._blocks()]
            return _joined(images, -2).mul(u.unsqueeze(-1)).add_(self.offset)
        weights = (
            plan.mul_(v.unsqueeze(-2)).mul_(u[:, rows].unsqueeze(-1))
            for rows, plan in self._blocks()
        )
        return _joined([weighted_means(w, self.y) for w in weights], -2).add_(self.offset)

    def potential(self, u: Tensor) -> Tensor:
        """Soft minimum over the columns, a potential on the rows, from the row scaling."""
        log_mass = self.shift / _LOG2E - u.log() - math.log(self.y.shape[1])
        x_norm = self.y_norm if self.same else half_squared_norm(self.x)
        return x_norm - self.epsilon * log_mass

    def select(self, problems: Tensor) -> ScaledKernel:
        """Copy the kernel of a subset of the problems."""
        chosen = object.__new__(ScaledKernel)
        chosen.__dict__.update(
            {k: a[problems] if isinstance(a, Tensor) else a for k, a in vars(self).items()}
        )
        chosen.sample = self.sample and self.sample.select(problems)
        return chosen

    def update(self, problems: Tensor, chosen: ScaledKernel) -> None:
        """Put back what the subset has absorbed."""
        self.g, self.shift = self.g.clone(), self.shift.clone()
        self.g[problems], self.shift[problems] = chosen.g, chosen.shift
        if self.stored:
            self.plan[problems] = chosen.plan

    def _logits(self, rows: slice) -> Tensor:
        """Exponents of a block of rows in bits, short of a constant per row.

        As |x|² is such a constant only inner products are needed.
        """
        x = self.x[:, rows]
        out = self.plan[:, rows] if self.stored else self.plan[:, : x.shape[1]]
        if self.scores is not None:
            return torch.add(self.bias, self.scores[:, rows], alpha=self.per_bit, out=out)
        x = x * self.per_bit
        if x.shape[-1] > _FEW:
            return torch.baddbmm(self.bias, x, self.columns, out=out)
        logits = self.bias
        for k in range(x.shape[-1]):
            products = x[..., k : k + 1], self.columns[:, k : k + 1]
            logits = torch.addcmul(logits, *products, out=out)
        return logits

    def _exponential(self, logits: Tensor, rows: slice) -> Tensor:
        plan = logits.sub_(self.shift[:, rows].unsqueeze(-1)).clamp_(min=_FLOOR).exp2_()
        if self.same:
            plan.diagonal(rows.start, -2, -1).fill_(1)
        return plan

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        if self.stored:
            yield slice(None), self.plan
            return
        for rows in self._slices():
            yield rows, self._exponential(self._logits(rows), rows)

    def _slices(self) -> list[slice]:
        size = self._size()
        return [slice(start, start + size) for start in range(0, self.x.shape[1], size)]

    def _size(self) -> int:
        """Rows of a block."""
        block = _BLOCK_CPU if self.x.device.type == "cpu" else _BLOCK_ACCELERATOR
        # A matrix product over fewer rows than this would wait for the columns' points.
        least = 1 if self.x.shape[-1] <= _FEW else 64
        return max(least, block // (len(self.x) * self.y.shape[1]))


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor | float, Tensor, Tensor]:
    """Bring clouds to the origin unless they are near it, which saves two large copies."""
    few = y[:, :: math.ceil(y.shape[1] / 64)]  # enough to tell, and quick
    centre = few.mean(-2, keepdim=True)
    if x.shape[-1] > _FEW and _is_small(centre, few):
        return 0.0, x, y
    return centre, x - centre, y - centre


def _is_small(centre: Tensor, points: Tensor) -> bool:
    norms = half_squared_norm(points).mean(-1, keepdim=True)
    return bool((half_squared_norm(centre) <= 0.8 * norms).all())


def _joined(blocks: list[Tensor], dim: int) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim)


def _row_sums(plan: Tensor, v: Tensor) -> Tensor:
    # In bmm a row vector times a matrix is never slower than a matrix times a column, and on
    # some machines an order of magnitude faster.
    return torch.bmm(v.unsqueeze(-2), plan.mT).squeeze(-2)


def weighted_means(weights: Tensor, points: Tensor) -> Tensor:
    """Multiply (B, n, m) by (B, m, k), or pick rows where each has all its weight on one."""
    certain = 1 - 8 * torch.finfo(weights.dtype).eps
    if bool((weights.amax(-1) < certain).any()):
        return torch.bmm(weights, points)
    problems = torch.arange(len(points), device=points.device).unsqueeze(-1)
    return points[problems, weights.argmax(-1)]
