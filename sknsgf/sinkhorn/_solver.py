r"""Entropic optimal transport between two clouds.

The unknown is the one potential :math:`\tilde g_j = g_j - \tfrac12\|y_j\|^2`. The other
potential follows from it by a row softmax, so row marginals always hold, and the *marginal
error* of the columns says how far the problem is from solved. ``docs/method.md`` derives
the iteration.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn._kernel import ScaledKernel, half_squared_norm

_MAX_NEWTON_STEP = 4.0  # nats; the quadratic model means nothing further out
_ABSORB_AT = 12.0  # nats of log v at which the scaling moves into the potential
_MAX_CG = 60
_COARSE_ITER = 8  # outer iterations spent on each temperature above the last


class SinkhornPotentials(NamedTuple):
    """Dual potentials of entropic transport problems, and how well they solve them.

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

    def where(self, condition: Tensor, other: _Scaling) -> _Scaling:
        pairs = zip(self, other, strict=True)
        masks = (condition.view(-1, *[1] * (a.ndim - 1)) for a in self)
        return _Scaling(*(torch.where(c, a, b) for c, (a, b) in zip(masks, pairs, strict=True)))

    def select(self, problems: Tensor) -> _Scaling:
        return _Scaling(*(field[problems] for field in self))


def solve_batch(
    x: Tensor, y: Tensor, epsilon: float, tol: float, max_iter: int, g: Tensor | None
) -> tuple[SinkhornPotentials, ScaledKernel]:
    """Solve problems of shape (B, n, d), (B, m, d); return the kernel with the final plan."""
    centre = y.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    kernel = ScaledKernel(x, y)
    y_norm = half_squared_norm(y)
    if g is None:
        g_tilde = torch.zeros_like(y_norm)
        ladder, coarse_tol = _cold_ladder(kernel, epsilon), 5e-2
    else:
        g_tilde = g - y_norm
        ladder, coarse_tol = _warm_ladder(kernel, g_tilde, epsilon), 1e-2
    n_iter = 0
    for temperature in ladder:
        n_iter += _solve_at(kernel, g_tilde, temperature, coarse_tol, _COARSE_ITER)
    n_iter += _solve_at(kernel, g_tilde, epsilon, tol, max_iter)

    log_mass = kernel.absorb(g_tilde, epsilon)
    f = half_squared_norm(x) - epsilon * (log_mass - math.log(y.shape[-2]))
    error = _scale(kernel, torch.zeros_like(g_tilde)).error
    return SinkhornPotentials(f, g_tilde + y_norm, epsilon, n_iter, error, error <= tol), kernel


def _cold_ladder(kernel: ScaledKernel, epsilon: float) -> list[float]:
    """Temperatures from the spread of the scores down to twice epsilon, halving."""
    spread = float(kernel.scores.std((-2, -1), correction=0).max())
    n_levels = max(0, math.ceil(math.log2(max(spread, epsilon) / epsilon)))
    return [epsilon * 2.0**k for k in range(n_levels, 0, -1)]


def _warm_ladder(kernel: ScaledKernel, g_tilde: Tensor, epsilon: float) -> list[float]:
    """Two warmer temperatures if the guess is poor, none if it is good."""
    kernel.absorb(g_tilde, epsilon)
    guess = _scale(kernel, torch.zeros_like(g_tilde))
    return [4 * epsilon, 2 * epsilon] if bool((guess.error > 3e-2).any()) else []


def _solve_at(
    kernel: ScaledKernel, g_tilde: Tensor, epsilon: float, tol: float, max_iter: int
) -> int:
    """Improve `g_tilde` in place until every problem is within `tol`; count iterations."""
    active = torch.arange(len(g_tilde), device=g_tilde.device)
    kernel.absorb(g_tilde, epsilon)
    scaling = _scale(kernel, torch.zeros_like(g_tilde))
    n_iter = 0
    while n_iter < max_iter:
        unsolved = scaling.error > tol
        n_unsolved = int(unsolved.sum())
        if n_unsolved == 0:
            break
        if 2 * n_unsolved <= len(active):
            g_tilde[active] += epsilon * scaling.log_v
            active, kernel = active[unsolved], kernel.select(unsolved)
            kernel.absorb(g_tilde[active], epsilon)
            scaling = _scale(kernel, torch.zeros_like(g_tilde[active]))
        scaling = _iterate(kernel, scaling)
        n_iter += 1
        if float(scaling.log_v.abs().amax()) > _ABSORB_AT:
            g_tilde[active] += epsilon * scaling.log_v
            kernel.absorb(g_tilde[active], epsilon)
            scaling = _scale(kernel, torch.zeros_like(scaling.log_v))
    g_tilde[active] += epsilon * scaling.log_v
    return n_iter


def _iterate(kernel: ScaledKernel, scaling: _Scaling) -> _Scaling:
    """One Newton step and one Sinkhorn sweep; the sweep alone where Newton did not help."""
    step = _newton_step(kernel, scaling)
    trial = _sweep(kernel, _scale(kernel, scaling.log_v + step))
    helped = trial.error < scaling.error
    if bool(helped.all()):
        return trial
    return trial.where(helped, _sweep(kernel, scaling))


def _scale(kernel: ScaledKernel, log_v: Tensor) -> _Scaling:
    v = log_v.exp()
    u = 1 / kernel.forward(v)
    column_mass = v * kernel.adjoint(u)
    n_rows, n_columns = u.shape[-1], v.shape[-1]
    error = (column_mass - n_rows / n_columns).abs().sum(-1) / n_rows
    return _Scaling(log_v, v, u, column_mass, error)


def _sweep(kernel: ScaledKernel, scaling: _Scaling) -> _Scaling:
    n_rows, n_columns = scaling.u.shape[-1], scaling.v.shape[-1]
    log_v = scaling.log_v - (scaling.column_mass * (n_columns / n_rows)).log()
    return _scale(kernel, log_v - log_v.mean(-1, keepdim=True))


def _newton_step(kernel: ScaledKernel, scaling: _Scaling) -> Tensor:
    """Solve the semi-dual Newton equation by preconditioned conjugate gradients.

    The damping, proportional to the error (Levenberg), tames the near-assignment regime,
    where the Hessian is close to singular, and fades at the solution.
    """
    _, v, u, mass, error = scaling
    diagonal = (1 + 0.03 * error.unsqueeze(-1)) * mass
    residual = u.shape[-1] / v.shape[-1] - mass
    goal = 0.1 * residual.abs().sum(-1, keepdim=True)
    step = torch.zeros_like(residual)
    direction = preconditioned = residual / diagonal
    rz = (residual * preconditioned).sum(-1, keepdim=True)
    for _ in range(_MAX_CG):
        rows = u * kernel.forward(v * direction)
        image = diagonal * direction - v * kernel.adjoint(u * rows)
        curvature = (direction * image).sum(-1, keepdim=True)
        unfinished = (residual.abs().sum(-1, keepdim=True) > goal) & (curvature > 0)
        if not bool(unfinished.any()):
            break
        alpha = torch.where(unfinished, rz / curvature, 0)
        step = step + alpha * direction
        residual = residual - alpha * image
        preconditioned = residual / diagonal
        rz, rz_before = (residual * preconditioned).sum(-1, keepdim=True), rz
        direction = preconditioned + torch.where(unfinished, rz / rz_before, 0) * direction
    step = step - step.mean(-1, keepdim=True)
    longest = step.abs().amax(-1, keepdim=True).clamp(min=_MAX_NEWTON_STEP)
    return step * (_MAX_NEWTON_STEP / longest)
