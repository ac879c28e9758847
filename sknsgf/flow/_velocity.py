"""The velocity of the Sinkhorn gradient flow: a difference of two projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn import Plan, Transport, self_transport, transport


class Products(NamedTuple):
    """Plans behind a velocity, from which inner products after a step follow."""

    onto_targets: Plan
    onto_itself: Plan
    targets: Tensor  # y yᵀ

    def after(self, step_size: float | Tensor) -> tuple[Tensor, Tensor]:
        """Inner products x yᵀ and x xᵀ after the step x + step_size v = r + step_size W y."""
        r_y = self._remain(self.onto_targets.inner, step_size)
        r_r = self._remain(self._remain(self.onto_itself.inner, step_size).mT, step_size)
        across = r_y + step_size * self.onto_targets.average(self.targets)
        pulled = step_size * self.onto_targets.average((r_y + across).mT)
        return across, r_r + (pulled + pulled.mT) / 2

    def _remain(self, values: Tensor, step_size: float | Tensor) -> Tensor:
        """Take the self term's part of the step: from x to r = x − step_size Q x."""
        return values - step_size * self.onto_itself.average(values)


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
    products : Products or None
        Of fewer points than coordinates: what the next inner products follow from.
    """

    g: Tensor
    g_self: Tensor
    g_target: Tensor
    trend: Tensor
    products: Products | None


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
    tol: float = 1e-3,
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
    tol : float, default=1e-3
        Largest accepted marginal error. The relative error of the velocity is of the same
        order.
    max_iter : int, default=200
        Solver iterations after which an unsolved problem is returned as it is.
    state : SinkhornState, optional
        The `state` of the previous call for the same targets: a warm start.
    step_size : float or Tensor of shape (B,), optional
        The step by which the particles have moved along the previous velocity. With it the
        warm start also follows the motion, and so do the inner products of particles with
        many coordinates; leave it out if they moved otherwise.

    Returns
    -------
    SinkhornVelocity
        Velocity, marginal error, whether it converged, and the state for the next call.
        Results carry no gradient.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit, or `blur` is not positive and finite.

    Notes
    -----
    Without the self-transport term particles collapse onto the means of their targets.
    Memory is a small multiple of n (n + m) numbers per problem, and of n + m for clouds too
    large to store their kernels: see :func:`~sknsgf.sinkhorn.transport`.

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
    if not blur > 0:
        raise ValueError(f"blur must be positive and finite, got {blur}.")
    settings: dict[str, Any] = {"epsilon": blur**2, "tol": tol, "max_iter": max_iter}
    with torch.inference_mode():  # a tenth faster; what leaves it below takes gradients again
        start = _cold_start(y, settings) if state is None else _warm_start(x, state, step_size)
        onto_targets = transport(x, y, **settings, g=start.g, inner=start.x_y)
        onto_itself = self_transport(x, **settings, g=start.g_self, inner=start.x_x)

    across, within = onto_targets.potentials, onto_itself.potentials
    error = across.marginal_error.maximum(within.marginal_error)
    return SinkhornVelocity(
        velocity=onto_targets.projection - onto_itself.projection,
        marginal_error=error,
        converged=error <= tol,
        state=_state(onto_targets, onto_itself, start),
    )


class _Start(NamedTuple):
    """What is known before a velocity is solved for: guesses and inner products."""

    g_target: Tensor
    y_y: Tensor | None
    g: Tensor | None = None
    g_self: Tensor | None = None
    trend: Tensor | None = None
    x_y: Tensor | None = None
    x_x: Tensor | None = None


def _cold_start(y: Tensor, settings: dict[str, Any]) -> _Start:
    _, potentials, plan = self_transport(y, **settings)
    return _Start(potentials.g, plan and plan.inner)


def _warm_start(x: Tensor, state: SinkhornState, step_size: float | Tensor | None) -> _Start:
    """Guess the next potentials: `g` exactly if the particles interpolate displacements.

    What the last guess missed is expected again, smaller as the particles slow down.
    """
    g, g_self, g_target, trend, products = state
    y_y = products and products.targets
    if step_size is None:
        return _Start(g_target, y_y, g, g_self, torch.zeros_like(trend))
    if isinstance(step_size, Tensor):
        step_size = step_size.unsqueeze(-1)
    left = 1 - step_size
    trend = left * trend
    g = g_target + left * (g - g_target) + trend
    inner = (None, None) if products is None else _inner_products(x, products, step_size)
    return _Start(g_target, y_y, g, g_self, trend, *inner)


def _inner_products(
    x: Tensor, products: Products, step_size: float | Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Inner products after the step, unless norms tell that the particles moved otherwise."""
    if isinstance(step_size, Tensor):
        step_size = step_size.unsqueeze(-1)
    x_y, x_x = products.after(step_size)
    norms = torch.linalg.vector_norm(x, dim=-1).square()
    gap = (x_x.diagonal(dim1=-2, dim2=-1) - norms).abs().amax()
    as_promised = bool(gap <= 1e3 * torch.finfo(x.dtype).eps * norms.amax())
    return (x_y, x_x) if as_promised else (None, None)


def _state(onto_targets: Transport, onto_itself: Transport, start: _Start) -> SinkhornState:
    """Keep what was solved, and what a guess without trend would have missed."""
    g, g_self = onto_targets.potentials.g, onto_itself.potentials.g
    trend = torch.zeros_like(g)
    if start.g is not None and start.trend is not None:
        missed = g - start.g  # up to a constant, which means nothing
        trend = start.trend + missed - missed.mean(-1, keepdim=True)
    products = None
    if onto_targets.plan and onto_itself.plan and start.y_y is not None:
        products = Products(onto_targets.plan, onto_itself.plan, start.y_y)
    return SinkhornState(g, g_self, start.g_target, trend, products)
