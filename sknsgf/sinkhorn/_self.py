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

from sknsgf.sinkhorn._kernel import squared_cost
from sknsgf.sinkhorn._solver import SinkhornPotentials

_CENTRE, _HALF_WIDTH = 1.5, 0.5  # of the spectrum [1, 2]


def solve_self_batch(
    x: Tensor, epsilon: float, tol: float, max_iter: int, g: Tensor | None
) -> tuple[SinkhornPotentials, Tensor]:
    """Solve problems of shape (B, n, d); return the row-stochastic plans (B, n, n) too."""
    n = x.shape[-2]
    kernel = torch.exp(squared_cost(x, x).div_(-epsilon).clamp_(min=-80))
    kernel.diagonal(dim1=-2, dim2=-1).fill_(1)
    shift = math.log(n) / 2  # g = epsilon (log w + shift) turns sums into means
    log_w = -0.5 * kernel.sum(-1).log() if g is None else g / epsilon - shift

    log_rows, error = _residual(kernel, log_w)
    step, rho, n_iter = torch.zeros_like(log_w), 0.0, 0
    while n_iter < max_iter and bool((error > tol).any()):
        rho_before, rho = rho, 1 / (2 * _CENTRE / _HALF_WIDTH - rho)
        if n_iter == 0:
            rho = _HALF_WIDTH / _CENTRE
            step = -log_rows / _CENTRE
        else:
            step = rho * rho_before * step - (2 * rho / _HALF_WIDTH) * log_rows
        trial = log_w + step
        trial_rows, trial_error = _residual(kernel, trial)
        helped = (trial_error < error).unsqueeze(-1)
        # Far from the solution the averaged iteration, which always contracts, takes over.
        step = torch.where(helped, step, -log_rows / 2)
        log_w = log_w + step
        log_rows, error = (
            (trial_rows, trial_error) if bool(helped.all()) else _residual(kernel, log_w)
        )
        n_iter += 1

    plan = kernel * torch.exp(log_w.unsqueeze(-2) + (log_w - log_rows).unsqueeze(-1))
    f, g = epsilon * (log_w - log_rows + shift), epsilon * (log_w + shift)
    return SinkhornPotentials(f, g, epsilon, n_iter, error, error <= tol), plan


def _residual(kernel: Tensor, log_w: Tensor) -> tuple[Tensor, Tensor]:
    """Log row sums (B, n) of the scaled kernel, and its marginal error (B,)."""
    w = log_w.exp()
    log_rows = log_w + torch.bmm(w.unsqueeze(-2), kernel).squeeze(-2).log()
    return log_rows, log_rows.expm1().abs().mean(-1)
