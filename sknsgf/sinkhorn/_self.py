r"""Entropic transport of a cloud onto itself: the term that keeps particles apart.

The kernel :math:`K = e^{-\|x - x'\|^2 / 2\epsilon}` is symmetric, positive definite and has a
unit diagonal, so it needs no stabilising: one scaling `w` with
:math:`w \odot K w = 1` solves the problem. The logarithm of that equation has a Jacobian with
spectrum in [1, 2] (identity plus a doubly stochastic, positive matrix), on which Chebyshev's
iteration gains a factor of six a step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sknsgf.sinkhorn._blocked import make_kernel
from sknsgf.sinkhorn._checks import check_finite
from sknsgf.sinkhorn._kernel import ScaledKernel
from sknsgf.sinkhorn._solver import SinkhornPotentials

_CENTRE, _HALF_WIDTH = 1.5, 0.5  # of the spectrum [1, 2]


def solve_self_batch(
    x: Tensor,
    epsilon: float,
    tol: float,
    max_iter: int,
    g: Tensor | None = None,
    inner: Tensor | None = None,
) -> tuple[SinkhornPotentials, ScaledKernel, tuple[Tensor, Tensor]]:
    """Solve problems of shape (B, n, d); return the kernel and its scalings u, w as well."""
    kernel = make_kernel(x, x, same=True, inner=inner)
    kernel.absorb(torch.zeros_like(x[..., 0]), epsilon)
    log_w = _guess(kernel, g)
    log_rows, error = _residual(kernel, log_w)
    step, rho, n_iter = torch.zeros_like(log_w), 0.0, 0
    while n_iter < max_iter and bool((error > tol).any()):
        step, rho = _chebyshev(step, rho, log_rows)
        trial = log_w + step
        trial_rows, trial_error = _residual(kernel, trial)
        helped = trial_error < error
        if not bool(helped.all()):
            # Far from the solution the averaged iteration, which always contracts, takes over.
            step = torch.where(helped.unsqueeze(-1), step, -log_rows / 2)
            trial = log_w + step
            trial_rows, trial_error = _residual(kernel, trial)
        log_w, log_rows, error = trial, trial_rows, trial_error
        n_iter += 1

    check_finite(error)

    w, u = log_w.exp(), (log_w - log_rows).exp()
    # g = epsilon (log w + shift) turns sums into means.
    shift = math.log(x.shape[-2]) / 2
    f, g = kernel.potential(u) - epsilon * shift, epsilon * (log_w + shift)
    return SinkhornPotentials(f, g, epsilon, n_iter, error, error <= tol), kernel, (u, w)


def is_identity(u: Tensor, w: Tensor) -> bool:
    """Whether no particle has a neighbour that shares its mass."""
    rounding = 8 * torch.finfo(w.dtype).eps
    return bool(((u - 1).abs() <= rounding).all() & (1 - w <= rounding).all())


def _guess(kernel: ScaledKernel, g: Tensor | None) -> Tensor:
    """Log scaling to start from, within the bounds any solution keeps."""
    log_n = math.log(kernel.x.shape[-2])
    if g is None:
        return -0.5 * kernel.forward(torch.ones_like(kernel.g)).log()
    return (g / kernel.epsilon - log_n / 2).clamp(-log_n, 0).nan_to_num()


def _chebyshev(step: Tensor, rho: float, log_rows: Tensor) -> tuple[Tensor, float]:
    """Next step of Chebyshev's semi-iteration, and its recurrence coefficient."""
    if rho == 0:
        return -log_rows / _CENTRE, _HALF_WIDTH / _CENTRE
    rho, before = 1 / (2 * _CENTRE / _HALF_WIDTH - rho), rho
    return rho * before * step - (2 * rho / _HALF_WIDTH) * log_rows, rho


def _residual(kernel: ScaledKernel, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Log row sums (B, n) of the scaled kernel, and a bound of its marginal error (B,).

    Dividing by the row sums takes their excess out of the rows and puts at most as much
    again into the columns.
    """
    log_rows = log_w + kernel.forward(log_w.exp()).log()
    return log_rows, 2 * log_rows.expm1().abs().mean(-1)
