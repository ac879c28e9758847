"""The velocity of the Sinkhorn gradient flow: a difference of two projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn import self_transport, transport


class SinkhornState(NamedTuple):
    """What one velocity leaves behind for the next: a warm start.

    Attributes
    ----------
    g : Tensor of shape (m,) or (B, m)
        Potential on the targets, of the transport from the particles.
    g_self : Tensor of shape (n,) or (B, n)
        Potential of the particles' transport onto themselves.
    g_target : Tensor of shape (m,) or (B, m)
        Potential of the targets' transport onto themselves, the value `g` tends to as the
        particles reach the targets.
    trend : Tensor of shape (m,) or (B, m)
        What the prediction of `g` missed at this step, and will miss much alike at the next.
    """

    g: Tensor
    g_self: Tensor
    g_target: Tensor
    trend: Tensor


class SinkhornVelocity(NamedTuple):
    """Velocity of each particle, and how far its transport problems are from solved.

    Attributes
    ----------
    velocity : Tensor of shape (n, d) or (B, n, d)
        Velocity per unit of flow time, in the units of the clouds.
    marginal_error : Tensor of shape () or (B,)
        The larger marginal error of the two transport problems behind the velocity.
    converged : bool Tensor of shape () or (B,)
        Whether both reached the tolerance.
    state : SinkhornState
        Warm start for the next call.
    """

    velocity: Tensor
    marginal_error: Tensor
    converged: Tensor
    state: SinkhornState


def sinkhorn_velocity(
    x: Tensor,
    y: Tensor,
    *,
    blur: float,
    tol: float = 2e-3,
    max_iter: int = 200,
    state: SinkhornState | None = None,
    step_size: float | Tensor | None = None,
) -> SinkhornVelocity:
    r"""Velocity of particles along the Sinkhorn gradient flow.

    .. math:: v(x) = \nabla f_{\mu\mu}(x) - \nabla f_{\mu\nu}(x)
              = T_{\mu\to\nu}(x) - T_{\mu\to\mu}(x)

    Particles move along +v; it equals minus n times the gradient of the Sinkhorn divergence
    with respect to the particles.

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Particles, float32 or float64.
    y : Tensor of shape (m, d) or (B, m, d)
        Targets.
    blur : float
        Resolution, in the units of the clouds; the temperature is ``blur**2``.
    tol : float, default=2e-3
        Largest accepted marginal error. The relative error of the velocity is of the same
        order.
    max_iter : int, default=200
        Solver iterations after which an unsolved problem is returned as it is.
    state : SinkhornState, optional
        The `state` of the previous call for the same targets: a warm start.
    step_size : float or Tensor of shape (B,), optional
        The step by which the particles have moved along the previous velocity. With it the
        warm start also follows the motion; leave it out if they moved otherwise.

    Returns
    -------
    SinkhornVelocity
        Velocity, marginal error, whether it converged, and the state for the next call.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or `blur` is not positive and finite.

    Notes
    -----
    Without the self-transport term particles collapse onto the means of their targets.
    Memory is a small multiple of B n (n + m) numbers.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sinkhorn_velocity(x, x + 5, blur=0.1).velocity.round(decimals=3)
    tensor([[5.],
            [5.]])
    """
    settings: dict[str, Any] = {"epsilon": blur**2, "tol": tol, "max_iter": max_iter}
    expected = _expected(state, step_size)
    with torch.inference_mode():  # a tenth faster; what leaves it below takes gradients again
        if expected is None:
            g, g_self, g_target = None, None, self_transport(y, **settings).potentials.g
        else:
            g, g_self, g_target, *_ = expected
        onto_targets = transport(x, y, **settings, g=g)
        onto_itself = self_transport(x, **settings, g=g_self)

    across, within = onto_targets.potentials, onto_itself.potentials
    error = across.marginal_error.maximum(within.marginal_error)
    return SinkhornVelocity(
        velocity=onto_targets.projection - onto_itself.projection,
        marginal_error=error,
        converged=error <= tol,
        state=_state(across.g, within.g, g_target, expected),
    )


def _expected(
    state: SinkhornState | None, step_size: float | Tensor | None
) -> SinkhornState | None:
    """Guess the next potentials: `g` exactly if the particles interpolate displacements.

    What the last guess missed is expected again, smaller as the particles slow down.
    """
    if state is None:
        return None
    if step_size is None:
        return state._replace(trend=torch.zeros_like(state.trend))
    if isinstance(step_size, Tensor):
        step_size = step_size.unsqueeze(-1)
    g, g_self, g_target, trend = state
    left = 1 - step_size
    trend = left * trend
    return SinkhornState(g_target + left * (g - g_target) + trend, g_self, g_target, trend)


def _state(
    g: Tensor, g_self: Tensor, g_target: Tensor, expected: SinkhornState | None
) -> SinkhornState:
    """Keep the solved potentials, and what a guess without trend would have missed."""
    if expected is None:
        return SinkhornState(g, g_self, g_target, torch.zeros_like(g))
    missed = g - expected.g  # up to a constant, which means nothing
    trend = expected.trend + missed - missed.mean(-1, keepdim=True)
    return SinkhornState(g, g_self, g_target, trend)
