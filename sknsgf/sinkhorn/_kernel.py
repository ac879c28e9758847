"""Kernels between point clouds: costs, and the kernel the solver scales."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sknsgf.sinkhorn._checks import check_finite, check_points
from sknsgf.sinkhorn._precision import in_full_precision

LOG2E = math.log2(math.e)

# Below this many bits under its row's maximum an entry is held at a floor: it no longer
# matters to the plan, but a column made of such entries still knows which way to move,
# and denormal numbers (several times slower) never appear.
FLOOR = -86.0

# Entries of a kernel up to which it is kept in memory (with the inner products behind it
# 256 MB in single precision). Problems of a batch are solved together up to as many entries
# in all; on a CPU up to what its last cache holds.
STORED = 2**25
_TOGETHER_CPU = 2**22

# Up to this dimension differences of coordinates are both faster and more precise.
_FEW = 3

# Roundings by which inner products that were carried along may miss new ones.
_ROUNDINGS = 100

Masses = tuple[Tensor, Tensor]  # of rows and columns, each with a mean of one


@in_full_precision
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

    Raises
    ------
    TypeError, ValueError
        If `x` or `y` is not a tensor, dtypes or widths do not fit, or costs are not finite.

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
    check_points(x, y)
    cost = (_cost_by_coordinates if x.shape[-1] <= _FEW else _cost_by_products)(x, y)
    check_finite(cost.amax())
    return cost


def _cost_by_products(x: Tensor, y: Tensor) -> Tensor:
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
    limit = _TOGETHER_CPU if x.device.type == "cpu" else STORED
    return max(1, limit // (x.shape[1] * y.shape[1]))


class ScaledKernel:
    r"""The kernel :math:`P_{ij} = b_j \exp((g_j - \tfrac12\|x_i - y_j\|^2) / \epsilon - s_i)`.

    The shift :math:`s_i` makes the largest entry of each row one; :math:`b_j` is the share of a
    column in the mass, times their number.

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
    masses : pair of Tensors of shapes (B, n) and (B, m), optional
        Masses of rows and columns, with means of one; uniform if left out.

    Attributes
    ----------
    coarse_step : callable or None
        Newton step, from the mass that columns miss and the trust in it, of a smaller problem.
    """

    coarse_step: Callable[[Tensor, Tensor], Tensor] | None = None

    reach = 12.0  # nats that log v may move before it is absorbed

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        same: bool = False,
        inner: Tensor | None = None,
        masses: Masses | None = None,
    ):
        self.same, self.few, self.masses = same, x.shape[-1] <= _FEW, masses
        self.supply, self.demand, self.log_share = _marginals(x, y, masses)
        self.offset, self.x, self.y = _centred(x, y) if inner is None else (0.0, x, y)
        self.y_norm = half_squared_norm(self.y)
        # In few dimensions inner products are as quickly formed as read.
        self.columns = self.y.mT.contiguous() if self.few else self.y.mT
        self._make_room(inner)

    def _make_room(self, inner: Tensor | None) -> None:
        self.scores = self.x @ self.columns if inner is None and not self.few else inner
        self.plan = self.x.new_empty(*self.x.shape[:2], self.y.shape[1])

    def absorb(self, g: Tensor, epsilon: float) -> None:
        """Form the kernel of a potential (B, m) at a temperature: the only exp pass."""
        self.g, self.epsilon, per_bit = g, epsilon, LOG2E / epsilon  # exp2 beats exp
        bias = ((g - self.y_norm) * per_bit + self.log_share).unsqueeze(-2)
        if self.scores is None:
            fill_logits(self.plan, self.x * per_bit, self.columns, bias)
        else:
            torch.add(bias, self.scores, alpha=per_bit, out=self.plan)
        self.shift = self.plan.amax(-1)
        exponentiate(self.plan, self.shift)
        if self.same:
            self.plan.diagonal(0, -2, -1).fill_(1)

    def forward(self, v: Tensor) -> Tensor:
        """Multiply by a vector on the column side: (B, m) to (B, n)."""
        return row_sums(self.plan, v)

    def balance(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Find the row scaling u with u ∘ P v = supply, and the column masses v ∘ Pᵀ u."""
        u = self.supply / row_sums(self.plan, v)
        return u, torch.bmm(u.unsqueeze(-2), self.plan).squeeze(-2).mul_(v)

    def smooth(self, v: Tensor, weights: Tensor) -> Tensor:
        """Pᵀ (weights ∘ P v) of rows (B, 1, m), the product of which the Hessian is made."""
        return torch.bmm(torch.bmm(v, self.plan.mT).mul_(weights), self.plan)

    def curvature(self, v: Tensor, u: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Diagonal term of the Hessian, and the weight each row has in the other."""
        return mass, u.square() / self.supply

    def distrust_hessian(self, *, failed: bool) -> None:
        """Trust less in what stands for the Hessian, where something does."""

    def project(self, u: Tensor, v: Tensor) -> Tensor:
        """Mean of the columns' points for each row of the scaled plan: (B, n, d).

        In more than a few dimensions it turns the kernel into the plan.
        """
        if self.few:
            image = torch.bmm(self.columns * v.unsqueeze(-2), self.plan.mT)
            return image.mul_(u.unsqueeze(-2)).mT + self.offset
        self.plan.mul_(v.unsqueeze(-2)).mul_(u.unsqueeze(-1))
        image = weighted_means(self.plan, self.y)
        return image.add_(self.offset) if isinstance(self.offset, Tensor) else image

    def potential(self, u: Tensor) -> Tensor:
        """Soft minimum over the columns, a potential on the rows, from the row scaling."""
        log_mass = self.shift / LOG2E - (u / self.supply).log() - math.log(self.y.shape[1])
        x_norm = self.y_norm if self.same else half_squared_norm(self.x)
        return x_norm - self.epsilon * log_mass

    def select(self, problems: Tensor) -> ScaledKernel:
        """Copy the kernel of a subset of the problems."""
        chosen = object.__new__(type(self))
        chosen.__dict__.update(
            {k: a[problems] if isinstance(a, Tensor) else a for k, a in vars(self).items()}
        )
        return chosen

    def update(self, problems: Tensor, chosen: ScaledKernel) -> None:
        """Put back what the subset has absorbed."""
        self.g, self.shift = self.g.clone(), self.shift.clone()
        self.g[problems], self.shift[problems] = chosen.g, chosen.shift
        self.plan[problems] = chosen.plan


def fill_logits(out: Tensor, x: Tensor, columns: Tensor, bias: Tensor) -> Tensor:
    """Write x_i · y_j + bias_j, from rows (..., n, d) and columns (..., d, m)."""
    if x.shape[-1] > _FEW:
        return torch.matmul(x, columns, out=out).add_(bias)
    for k in range(x.shape[-1]):
        factors = x[..., k : k + 1], columns[..., k : k + 1, :]
        torch.addcmul(bias if k == 0 else out, *factors, out=out)
    return out


def exponentiate(logits: Tensor, shift: Tensor) -> None:
    """Turn exponents (B, n, m) in bits into entries below one, in place."""
    logits.sub_(shift.unsqueeze(-1)).clamp_(min=FLOOR).exp2_()


def _marginals(
    x: Tensor, y: Tensor, masses: Masses | None
) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
    """Mass that rows give, n in all, and columns take; logarithm of a column's share, in bits."""
    to_a_column = x.shape[1] / y.shape[1]
    if masses is None:
        return 1.0, to_a_column, 0.0
    return masses[0], masses[1] * to_a_column, masses[1].log2()


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


@in_full_precision
def has_products(x: Tensor, *known: tuple[Tensor, Tensor]) -> bool:
    """Whether inner products with clouds are right, by one random sum over all their points.

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Points.
    *known : pairs of Tensors of shapes (B, n, m) and (m, d) or (B, m, d)
        Inner products, and the cloud they are said to be with: in the last pair `x` itself.
    """
    inner = known[-1][0]
    found = torch.zeros_like(inner[:, :1])
    way = inner.new_zeros(len(inner), 1, x.shape[-1])
    generator = torch.Generator(device="cpu").manual_seed(0)
    for products, cloud in known:
        n = products.shape[-1]
        factors = torch.randn(n, dtype=torch.float32, device="cpu", generator=generator)
        factors = factors.to(products).expand(len(inner), 1, -1)
        way = way + torch.bmm(factors, cloud.view(len(inner), *cloud.shape[-2:]))
        found = found + torch.bmm(factors, products.mT)
    gap = torch.bmm(way, x.view(len(inner), *x.shape[-2:]).mT) - found
    norms = inner.diagonal(0, -2, -1).sqrt().unsqueeze(-2)
    size = torch.linalg.vector_norm(way, dim=-1, keepdim=True) * (norms + norms.mean(-1, True))
    return bool((gap.abs() < _ROUNDINGS * torch.finfo(x.dtype).eps * size).all())


def row_sums(plan: Tensor, v: Tensor) -> Tensor:
    """Multiply (B, n, m) by a vector (B, m)."""
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
