"""A kernel too large to store: blocks of rows, each with the columns that matter to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn._kernel import (
    LOG2E,
    STORED,
    ScaledKernel,
    exponentiate,
    fill_logits,
    half_squared_norm,
)

_BLOCK_CPU = 2**19  # entries of a block: about what a core's own cache holds
_BLOCK_ACCELERATOR = 2**25
_KEPT = 2**26  # entries stored, of all rows or of as many as that allows
_SAMPLE = 2**24  # entries of the sample of rows that at first stands for all in the Hessian
_GROUP, _GROUPS = 64, 512  # rows of a group at least, and number of groups at most
_TINY = 1e-30  # mass of a column that matters to no row
_SPARSE = 0.8  # share of the columns from which on it is not worth picking some


def make_kernel(x: Tensor, y: Tensor, **known: Any) -> ScaledKernel:
    """Make a kernel of (B, n, d) and (B, m, d): stored if it is small enough, or in blocks."""
    small = len(x) * x.shape[1] * y.shape[1] <= STORED
    return (ScaledKernel if small else BlockedKernel)(x, y, **known)


class _Block(NamedTuple):
    """Rows, the columns that matter to them, and their entries."""

    rows: Tensor
    columns: Tensor | None
    plan: Tensor


class BlockedKernel(ScaledKernel):
    r"""The kernel of one large problem, formed again block by block at each product.

    In few dimensions rows are grouped by place, and a group keeps only those columns of which
    a row's share can exceed rounding. The logarithm of a column's share,
    :math:`(x \cdot y_j + b_j - \varphi(x)) / \epsilon` with a log-sum-exp :math:`\varphi`, is
    concave in x, so its tangent at the centre of the group bounds it. What is left is stored
    if it is little enough; if not, a sample of the rows is, to stand for all in the Hessian,
    unless a smaller problem does.

    Parameters
    ----------
    x : Tensor of shape (1, n, d)
        Rows.
    y : Tensor of shape (1, m, d)
        Columns.
    same : bool, default=False
        As in :class:`~sknsgf.sinkhorn._kernel.ScaledKernel`.
    """

    def _make_room(self, inner: Tensor | None) -> None:
        self.scores = None
        self.reach = 3.0 if self.few else 12.0
        self.block = _BLOCK_CPU if self.x.device.type == "cpu" else _BLOCK_ACCELERATOR
        n_rows, n_columns = self.x.shape[1], self.y.shape[1]
        size = max(_GROUP, self.block // n_columns, n_rows // _GROUPS)
        self.numbers = torch.arange(max(n_rows, n_columns), device=self.x.device)
        order = _by_place(self.x[0], size) if self.few else self.numbers[:n_rows]
        self.groups = order.tensor_split(math.ceil(n_rows / size))
        self.sample_size: float = _SAMPLE
        self.memory = self.x.new_empty(0)

    def absorb(self, g: Tensor, epsilon: float) -> None:
        self.g, self.epsilon, self.per_bit = g, epsilon, LOG2E / epsilon
        self.bias = ((g - self.y_norm) * self.per_bit + self.log_share).squeeze(0)
        self.places = [place for rows in self.groups for place in self._places(rows)]
        sizes = [len(rows) * self._width(columns) for rows, columns in self.places]
        self.scratch = self.x.new_empty(max(sizes))
        self.shift = self._row_maxima()
        self._keep(sum(sizes))

    def _row_maxima(self) -> Tensor:
        if self.same:
            return self.y_norm * self.per_bit
        maxima = torch.empty_like(self.x[..., 0])
        for rows, columns in self.places:
            maxima[0, rows] = self._logits(rows, columns, self.scratch).amax(-1)
        return maxima

    def _keep(self, n_entries: int) -> None:
        """Store all rows, or evenly spaced ones if the Hessian has a use for them."""
        stride = math.ceil(n_entries / _KEPT)
        self.complete, self.kept = stride == 1, []
        if not self.complete and (self.same or self.coarse_step):
            return
        places = [(rows[::stride], columns) for rows, columns in self.places]
        sizes = [len(rows) * self._width(columns) for rows, columns in places]
        if len(self.memory) < sum(sizes):  # fresh memory is dearer than a pass over it
            del self.memory  # before there is a larger one
            self.memory = self.x.new_empty(sum(sizes))
        rooms = self.memory[: sum(sizes)].split(sizes)
        self.kept = [self._form(*place, room) for place, room in zip(places, rooms, strict=True)]

    def distrust_hessian(self, *, failed: bool) -> None:
        if self.coarse_step is None:
            self.sample_size = math.inf if failed else max(self.sample_size, _KEPT)
        elif failed:
            self.coarse_step = None

    def _sample(self) -> Iterable[_Block]:
        """Take the rows that stand for all of them in the Hessian."""
        if not self.kept or (self.sample_size > _KEPT and not self.complete):
            return self._blocks()
        n_entries = sum(block.plan.numel() for block in self.kept)
        stride = max(1, math.ceil(n_entries / self.sample_size))
        return [_Block(b.rows[::stride], b.columns, b.plan[::stride]) for b in self.kept]

    def forward(self, v: Tensor) -> Tensor:
        out = torch.empty_like(self.shift)
        for rows, columns, plan in self._blocks():
            out[0, rows] = torch.mv(plan, _pick(v[0], columns))
        return out

    def balance(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._balance(self._blocks(), v)

    def curvature(self, v: Tensor, u: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        u, mass = self._balance(self._sample(), v)
        share = u.shape[-1] / mass.sum()  # of all rows in those of the sample
        return share * mass, share * u.square() / self.supply

    def smooth(self, v: Tensor, weights: Tensor) -> Tensor:
        image = torch.zeros_like(v)
        for rows, columns, plan in self._sample():
            row_image = torch.mv(plan, _pick(v[0, 0], columns)).mul_(weights[0, 0, rows])
            _add(image[0, 0], columns, row_image @ plan)
        return image

    def project(self, u: Tensor, v: Tensor) -> Tensor:
        image = torch.empty_like(self.x)
        points = self.columns[0] * v
        for rows, columns, plan in self._blocks():
            image[0, rows] = (_pick_all(points, columns) @ plan.mT).mT
        return image.mul_(u.unsqueeze(-1)).add_(self.offset)

    def _balance(self, blocks: Iterable[_Block], v: Tensor) -> tuple[Tensor, Tensor]:
        u, mass = torch.zeros_like(self.shift), torch.full_like(v, _TINY)
        supply = (torch.ones_like(u) * self.supply).squeeze(0)
        for rows, columns, plan in blocks:
            scaling = supply[rows] / torch.mv(plan, _pick(v[0], columns))
            u[0, rows] = scaling
            _add(mass[0], columns, scaling @ plan)
        return u, mass.mul_(v)

    def _blocks(self) -> Iterable[_Block]:
        """Go through the whole kernel, as it is stored or formed in passing."""
        if self.complete:
            return self.kept
        return (self._form(*place, self.scratch) for place in self.places)

    def _form(self, rows: Tensor, columns: Tensor | None, room: Tensor) -> _Block:
        plan = self._logits(rows, columns, room)
        exponentiate(plan, self.shift[0, rows])
        if self.same:
            own = rows if columns is None else torch.searchsorted(columns, rows.contiguous())
            plan.scatter_(1, own.unsqueeze(-1), 1)
        return _Block(rows, columns, plan)

    def _logits(self, rows: Tensor, columns: Tensor | None, room: Tensor) -> Tensor:
        points, bias = _pick_all(self.columns[0], columns), _pick(self.bias, columns)
        logits = room[: len(rows) * len(bias)].view(len(rows), len(bias))
        return fill_logits(logits, self.x[0, rows] * self.per_bit, points, bias)

    def _places(self, rows: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Cut a group with its columns into pieces of the size of a block."""
        columns = self._near(rows) if self.few else None
        n_parts = math.ceil(len(rows) * self._width(columns) / self.block) if self.few else 1
        return [(part, columns) for part in rows.tensor_split(n_parts)]

    def _width(self, columns: Tensor | None) -> int:
        return self.y.shape[1] if columns is None else len(columns)

    def _near(self, rows: Tensor) -> Tensor | None:
        """Find the columns that matter to a group of rows, by the tangent at its centre."""
        points = self.x[0, rows]
        centre = points.mean(0)
        radius = half_squared_norm(points - centre).max().mul(2).sqrt()
        share, towards = self._shares(centre)
        lever = (self.columns[0] - towards.unsqueeze(-1)).square_().sum(0).sqrt_()
        near = torch.addcmul(share, lever, radius * self.per_bit) > -self._bits()
        columns = self.numbers[: len(near)].masked_select(near)
        if not len(columns):
            raise ValueError("x or y holds NaN, infinity, or values too large to multiply.")
        return columns if len(columns) < _SPARSE * len(near) else None

    def _shares(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm, in bits, of the columns' shares in a row at a point; their mean."""
        logits = self.bias + (point * self.per_bit) @ self.columns[0]
        if self.same:  # where a row's scaling is at most one over its diagonal entry
            return logits - half_squared_norm(point) * self.per_bit, point
        logits = logits - logits.max()
        weights = logits.exp2()
        total = weights.sum()
        return logits - total.log2(), self.columns[0] @ (weights / total)

    def _bits(self) -> float:
        """Bits below one at which all columns together are a rounding error."""
        n_columns, eps = self.y.shape[1], torch.finfo(self.y.dtype).eps
        margin = 0.0 if self.same else 2 * self.reach * LOG2E
        return math.log2(n_columns / eps) + margin


def _pick(row: Tensor, columns: Tensor | None) -> Tensor:
    return row if columns is None else row.index_select(0, columns)


def _pick_all(table: Tensor, columns: Tensor | None) -> Tensor:
    # Row by row, which index_select on the table itself takes ten times as long for.
    return table if columns is None else torch.stack([_pick(row, columns) for row in table])


def _add(total: Tensor, columns: Tensor | None, values: Tensor) -> None:
    if columns is None:
        total += values
    else:
        total.index_add_(0, columns, values)


def _by_place(points: Tensor, size: int) -> Tensor:
    """Order points (n, d) so that stretches of at most `size` lie close together (k-d tree)."""
    n, dim = points.shape
    low, high = points.aminmax(dim=0)
    unit = ((points - low) / (high - low).clamp(min=_TINY)).double() * 0.999
    order = position = torch.arange(n, device=points.device)
    for level in range(math.ceil(math.log2(n / size))):
        cell = (position << level) // n
        order = order[(cell + unit[order, level % dim]).argsort()]
    return order
