r"""Entropic optimal transport between two clouds.

The unknown is the one potential :math:`g` on the columns. The other potential is its soft
minimum, so row marginals always hold, and the *marginal error* of the columns says how far
the problem is from solved. ``docs/method.md`` derives the iteration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn._blocked import BlockedKernel, make_kernel
from sknsgf.sinkhorn._cells import Cells, in_cells
from sknsgf.sinkhorn._checks import check_finite
from sknsgf.sinkhorn._kernel import Masses, ScaledKernel, half_squared_norm

_TRUST = 8.0  # nats, the longest Newton step; the quadratic model means little further out
_MAX_CG = 60
_CG_GOAL = 3e-3  # of the squared residual; the velocity shows what it leaves tenfold
_POOR_STEP = 0.3  # of the error left, from which on a sampled Hessian takes more rows
_COARSE_ITER = 8  # outer iterations spent on each temperature above the last
_COARSE_TOL = 5e-3  # less than a point's mass: what has to cross a gap does so while it is warm
_POOR_GUESS = 4e-2  # marginal error above which a warm start passes by warmer temperatures
_POOR_LARGE_GUESS = 2e-1  # likewise where each of these costs many passes over a large kernel
_HOPELESS = 2e-2  # marginal error that these leave of a guess from which a cold start is quicker
_PATIENCE = 30  # iterations given to a guess; good ones take few
_LOST = 1e-22  # of what a column wants: what it has where no row's exponent is above the floor
_TINY = 1e-30  # keeps a solved problem's 0 / 0 out of the batch
_WORTHWHILE = 4  # pairs of points to a pair of cells, from which on cells pay
_CELLS_ITER = 60  # iterations between cells; far cheaper than one between points
_THINNING = 4  # of a larger one, every fourth point
_SUBSAMPLE = 2048  # points of each cloud that a large cold start is solved on first, at least


class SinkhornPotentials(NamedTuple):
    """Dual potentials of entropic transport problems, and how well they solve them.

    Those of clouds far apart are large numbers of which small differences matter, and are
    kept in double precision whatever that of the clouds.

    Attributes
    ----------
    f : Tensor of shape (n,) or (B, n)
        Potential on the first cloud, in cost units; the exact soft minimum of `g`, so row
        marginals hold to rounding.
    g : Tensor of shape (m,) or (B, m)
        Potential on the second cloud, in cost units.
    epsilon : float
        Temperature, in cost units: `blur` squared.
    n_iter : int
        Outer iterations taken by the slowest problem, summed over temperatures.
    marginal_error : Tensor of shape () or (B,)
        Mass, of a total of 1, by which the column marginal misses the uniform one (L1).
    converged : bool Tensor of shape () or (B,)
        Whether `marginal_error` reached the tolerance.
    """

    f: Tensor
    g: Tensor
    epsilon: float
    n_iter: int
    marginal_error: Tensor
    converged: Tensor


class _Scaling(NamedTuple):
    """Scaled plans diag(u) P diag(v) with unit rows, and their distance from solved."""

    log_v: Tensor
    v: Tensor
    u: Tensor
    column_mass: Tensor
    error: Tensor
    trust: Tensor  # longest Newton step, in nats

    def select(self, problems: Tensor) -> _Scaling:
        return _Scaling(*(field[problems] for field in self))

    def update(self, problems: Tensor, other: _Scaling) -> _Scaling:
        merged = (field.clone() for field in self)
        return _Scaling(
            *(m.index_put_((problems,), o) for m, o in zip(merged, other, strict=True))
        )


def solve_batch(
    x: Tensor,
    y: Tensor,
    epsilon: float,
    tol: float,
    max_iter: int,
    g: Tensor | None = None,
    inner: Tensor | None = None,
    masses: Masses | None = None,
) -> tuple[SinkhornPotentials, ScaledKernel, _Scaling]:
    """Solve problems of shape (B, n, d), (B, m, d); return the scaled plan as well."""
    kernel = make_kernel(x, y, inner=inner, masses=masses)
    if isinstance(kernel, BlockedKernel):
        scaling, n_coarse = _guess_large(kernel, epsilon, tol, g)
    else:
        scaling, n_coarse = _guess(kernel, epsilon, g)
    # One step even within the tolerance: along a flow the errors of a guess would add up
    # while the velocity shrinks.
    patience = max_iter if g is None else min(max_iter, _PATIENCE)
    scaling, n_iter = _improve(kernel, _iterate(kernel, scaling), tol, patience - 1)
    check_finite(scaling.error)
    if patience < max_iter:
        scaling, n = _restart(kernel, scaling, epsilon, tol, max_iter - patience)
        n_iter += n

    f, g = kernel.potential(scaling.u), kernel.g + epsilon * scaling.log_v
    error, converged = scaling.error, scaling.error <= tol
    potentials = SinkhornPotentials(f, g, epsilon, n_coarse + n_iter + 1, error, converged)
    return potentials, kernel, scaling


def _restart(
    kernel: ScaledKernel, scaling: _Scaling, epsilon: float, tol: float, max_iter: int
) -> tuple[_Scaling, int]:
    """Start problems cold that a guess holds: a point on the wrong side of a gap stays there."""
    held = scaling.error > tol
    if not bool(held.any()):
        return scaling, 0
    part = kernel if bool(held.all()) else kernel.select(held)
    cold, n_coarse = _guess(part, epsilon, None)
    cold, n_iter = _improve(part, cold, tol, max_iter)
    if part is kernel:
        return cold, n_coarse + n_iter
    kernel.update(held, part)
    return scaling.update(held, cold), n_coarse + n_iter


def _guess(kernel: ScaledKernel, epsilon: float, g: Tensor | None) -> tuple[_Scaling, int]:
    """Start from a guess, or cold from none and from a hopeless one."""
    warm = None if g is None else _warm_guess(kernel, g, epsilon)
    if warm is None and isinstance(kernel, BlockedKernel):
        warm = _warm_guess(kernel, _guess_from_subsample(kernel, epsilon), epsilon)
    return warm or _cold_guess(kernel, epsilon)


def _cold_guess(kernel: ScaledKernel, epsilon: float) -> tuple[_Scaling, int]:
    """Lower the temperature from the spread of the data to epsilon."""
    # This potential is exact where the temperature is high: rows see only x_i · y_j.
    g = half_squared_norm(kernel.y - kernel.x.mean(-2, keepdim=True))
    spread = _spread(kernel.x, kernel.y)
    check_finite(spread)
    n_levels = max(0, math.ceil(math.log2(max(float(spread), 1e-300) / epsilon)))
    g, n_iter, _ = _anneal(kernel, g, [epsilon * 2.0**k for k in range(n_levels, 0, -1)])
    return _absorb(kernel, g, epsilon), n_iter


def _warm_guess(kernel: ScaledKernel, g: Tensor, epsilon: float) -> tuple[_Scaling, int] | None:
    """Start from a guess, by way of two warmer temperatures if it is poor; None if hopeless."""
    scaling = _absorb(kernel, g, epsilon)
    poor = _POOR_LARGE_GUESS if isinstance(kernel, BlockedKernel) else _POOR_GUESS
    if _is_near(kernel, scaling, poor):
        return scaling, 0
    g, n_iter, worth_while = _anneal(kernel, g, [4 * epsilon, 2 * epsilon])
    return (_absorb(kernel, g, epsilon), n_iter) if worth_while else None


def _is_near(kernel: ScaledKernel, scaling: _Scaling, limit: float) -> bool:
    """Whether all errors are within a limit, and no column is so far off that sweeps crawl."""
    found = scaling.column_mass > _LOST * kernel.demand
    return bool((scaling.error <= limit).all() & found.all())


def _has_digits(g: Tensor, epsilon: float) -> bool:
    """Whether exponents of a guess can be computed with."""
    return bool((g.abs() < torch.finfo(g.dtype).max * min(epsilon, 1.0) / 8).all())


def _guess_large(
    kernel: BlockedKernel, epsilon: float, tol: float, g: Tensor | None
) -> tuple[_Scaling, int]:
    """Start from a smaller problem: between cells, or else between some of the points."""
    coarse = _solve_cells(kernel, epsilon, tol, g)
    if coarse is None:
        return _guess(kernel, epsilon, g if g is None or _has_digits(g, epsilon) else None)
    kernel.coarse_step = coarse.step
    return _absorb(kernel, coarse.extend(kernel.y), epsilon), 0


class _Coarse(NamedTuple):
    """A problem solved between the cells of both clouds."""

    rows: Cells
    columns: Cells
    potentials: SinkhornPotentials
    kernel: ScaledKernel
    scaling: _Scaling

    def extend(self, points: Tensor) -> Tensor:
        """Potential on the columns' points, from that on the cells of the rows."""
        f, epsilon = self.potentials.f, self.potentials.epsilon
        return _extended(f, self.rows.centres, self.rows.masses, points, epsilon)

    def step(self, missing: Tensor, trust: Tensor) -> Tensor:
        """Newton step for the mass that points miss, the same for all of a cell."""
        share = self.rows.masses.numel() / len(self.rows.cell_of)
        missing = share * self.columns.gather(missing)
        return self.columns.spread(_newton_solution(self.kernel, self.scaling, missing, trust))


def _solve_cells(
    kernel: BlockedKernel, epsilon: float, tol: float, g: Tensor | None
) -> _Coarse | None:
    """Solve between cells half a blur wide, if that saves most of the pairs of points."""
    width = math.sqrt(epsilon / (2 * kernel.x.shape[-1]))
    rows, columns = in_cells(kernel.x, width), in_cells(kernel.y, width)
    n_pairs = kernel.x.shape[1] * kernel.y.shape[1]
    if kernel.masses or _WORTHWHILE * rows.masses.numel() * columns.masses.numel() > n_pairs:
        return None
    clouds, masses = (rows.centres, columns.centres), (rows.masses, columns.masses)
    g = None if g is None else columns.average(g)
    solved = solve_batch(*clouds, epsilon, tol, _CELLS_ITER, g, masses=masses)
    return _Coarse(rows, columns, *solved)


def _guess_from_subsample(kernel: BlockedKernel, epsilon: float) -> Tensor:
    """Solve for evenly spaced points and extend."""
    size = max(_SUBSAMPLE, max(kernel.x.shape[1], kernel.y.shape[1]) // _THINNING)
    x, y = _thin(kernel.x, size), _thin(kernel.y, size)
    masses = None
    if kernel.masses is not None:
        a, b = (_thin(mass, size) for mass in kernel.masses)
        masses = a / a.mean(), b / b.mean()
    potentials, *_ = solve_batch(x, y, epsilon, 1e-2, 20, masses=masses)
    return _extended(potentials.f, x, masses and masses[0], kernel.y, epsilon)


def _extended(f: Tensor, x: Tensor, masses: Tensor | None, y: Tensor, epsilon: float) -> Tensor:
    """Extend a potential on one cloud to another by the soft minimum."""
    pair = None if masses is None else (torch.ones_like(y[..., 0]), masses)
    kernel = make_kernel(y, x, masses=pair)
    kernel.absorb(f, epsilon)
    return kernel.potential(1 / kernel.forward(torch.ones_like(f)))


def _thin(cloud: Tensor, size: int) -> Tensor:
    return cloud[:, :: math.ceil(cloud.shape[1] / size)]


def _spread(x: Tensor, y: Tensor) -> Tensor:
    """Estimate the standard deviation of x_i · y_j in the batch's widest problem."""
    x, y = _thin(x - x.mean(-2, keepdim=True), 64), _thin(y - y.mean(-2, keepdim=True), 64)
    products = x @ y.mT
    largest = products.abs().amax().clamp(min=torch.finfo(x.dtype).tiny)  # its square overflows
    return largest * (products / largest).square().mean((-2, -1)).amax().sqrt()


def _anneal(
    kernel: ScaledKernel, g: Tensor, temperatures: list[float]
) -> tuple[Tensor, int, bool]:
    """Solve at one temperature after another; count iterations, and tell whether all helped."""
    n_iter, helped = 0, True
    for temperature in temperatures:
        scaling = _absorb(kernel, g, temperature)
        scaling, n = _improve(kernel, scaling, _COARSE_TOL, _COARSE_ITER)
        g, n_iter = kernel.g + temperature * scaling.log_v, n_iter + n
        helped = helped and _is_near(kernel, scaling, _HOPELESS)
    return g, n_iter, helped


def _improve(
    kernel: ScaledKernel, scaling: _Scaling, tol: float, max_iter: int
) -> tuple[_Scaling, int]:
    """Iterate until every problem is within `tol`; count iterations."""
    for iteration in range(max_iter):
        unsolved = scaling.error > tol
        n_unsolved = int(unsolved.sum())
        if n_unsolved == 0:
            return scaling, iteration
        if 2 * n_unsolved <= len(unsolved):
            part = kernel.select(unsolved)
            left = max_iter - iteration
            improved, n = _improve(part, scaling.select(unsolved), tol, left)
            kernel.update(unsolved, part)
            return scaling.update(unsolved, improved), iteration + n
        scaling = _iterate(kernel, scaling)
    return scaling, max_iter


def _absorb(kernel: ScaledKernel, g: Tensor, epsilon: float) -> _Scaling:
    kernel.absorb(g, epsilon)
    return _scale(kernel, torch.zeros_like(g), g.new_full(g.shape[:-1], _TRUST))


def _iterate(kernel: ScaledKernel, scaling: _Scaling) -> _Scaling:
    """One Newton step and one Sinkhorn sweep; the sweep alone where Newton did not help."""
    log_v = scaling.log_v + _newton_step(kernel, scaling)
    trial = _sweep(kernel, _scale(kernel, log_v, (2 * scaling.trust).clamp_(max=_TRUST)))
    failed = ~(trial.error < scaling.error)
    any_failed = bool(failed.any())
    if any_failed or float(trial.error.max()) > _POOR_STEP * float(scaling.error.max()):
        kernel.distrust_hessian(failed=any_failed)
    if any_failed:
        careful = scaling._replace(trust=scaling.trust / 4)
        trial = trial.update(failed, _sweep(kernel, careful).select(failed))
    if float(trial.log_v.abs().amax()) > kernel.reach:
        g = kernel.g + kernel.epsilon * trial.log_v
        trial = _absorb(kernel, g, kernel.epsilon)._replace(trust=trial.trust)
    return trial


def _scale(kernel: ScaledKernel, log_v: Tensor, trust: Tensor) -> _Scaling:
    v = log_v.exp()
    u, column_mass = kernel.balance(v)
    error = (column_mass - kernel.demand).abs().sum(-1) / u.shape[-1]
    return _Scaling(log_v, v, u, column_mass, error, trust)


def _sweep(kernel: ScaledKernel, scaling: _Scaling) -> _Scaling:
    log_v = scaling.log_v - (scaling.column_mass / kernel.demand).log()
    return _scale(kernel, log_v - log_v.mean(-1, keepdim=True), scaling.trust)


def _newton_step(kernel: ScaledKernel, scaling: _Scaling) -> Tensor:
    """Step of log v towards the masses that columns want, for points or for their cells."""
    missing = kernel.demand - scaling.column_mass
    if kernel.coarse_step is not None:
        return kernel.coarse_step(missing, scaling.trust)
    return _newton_solution(kernel, scaling, missing, scaling.trust)


def _newton_solution(
    kernel: ScaledKernel, scaling: _Scaling, missing: Tensor, trust: Tensor
) -> Tensor:
    """Solve the semi-dual Newton equation by Jacobi-preconditioned conjugate gradients.

    The Hessian H is the Laplacian of a graph: where z is largest, (H z)_j >= 0. So with the
    damping D = diag(|missing| / trust), which fades at the solution, that of
    (H + D) z = missing nowhere exceeds `trust`, in the near-assignment regime as well, where H
    is close to singular.
    """
    curvature, weights = kernel.curvature(scaling.v, scaling.u, scaling.column_mass)
    root = torch.addcdiv(curvature, missing.abs(), trust.unsqueeze(-1)).sqrt()
    scale, weights = (scaling.v / root).unsqueeze(-2), weights.unsqueeze(-2)

    def hessian(p: Tensor) -> Tensor:
        return torch.addcmul(p, scale, kernel.smooth(scale * p, weights), value=-1)

    step = _conjugate_gradients(hessian, (missing / root).unsqueeze(-2)).squeeze(-2) / root
    return step - step.mean(-1, keepdim=True)


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], residual: Tensor) -> Tensor:
    """Solve to a part of the residual, problem by problem: rows (B, 1, m) to rows."""
    solution, direction = torch.zeros_like(residual), residual
    square = _squared(residual)
    goal = _CG_GOAL * square
    for _ in range(_MAX_CG):
        unfinished = square > goal
        if not bool(unfinished.any()):
            break
        image = matrix(direction)
        length = unfinished * square / torch.bmm(direction, image.mT).clamp_(min=_TINY)
        solution.addcmul_(length, direction)
        residual = torch.addcmul(residual, length, image, value=-1)
        square, before = _squared(residual), square
        direction = torch.addcmul(residual, square / before.clamp_(min=_TINY), direction)
    return solution


def _squared(rows: Tensor) -> Tensor:
    return torch.bmm(rows, rows.mT)
