"""The velocity of the Sinkhorn gradient flow: a difference of two projections."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sknsgf._arguments import check_number
from sknsgf.sinkhorn import (
    Plan,
    check_clouds,
    has_products,
    self_transport,
    temperature,
    transport,
)


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
        Warm start for the next call; its tensors are for reading only.
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
        Largest accepted marginal error. The error of the velocity, relative to the particles'
        way to the means of their targets, is of the same order.
    max_iter : int, default=200
        Solver iterations after which an unsolved problem is returned as it is.
    state : SinkhornState, optional
        The `state` of the previous call for as many particles and targets: a warm start.
    step_size : float or Tensor of shape (B,), optional
        The step by which the particles have moved along the previous velocity. With it the
        warm start also follows the motion, and so do the inner products of particles with
        many coordinates. These are checked, so that particles or targets that moved otherwise
        cost only time; leave it out if they did.

    Returns
    -------
    SinkhornVelocity
        Velocity, marginal error, whether it converged, and the state for the next call.
        Results carry no gradient.

    Raises
    ------
    TypeError, ValueError
        As in :func:`~sknsgf.sinkhorn.transport`, or if `state` is of other shapes or another
        dtype, or `step_size` is not finite.

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
    check_clouds(x, y)
    settings: dict[str, Any] = {"epsilon": temperature(blur), "tol": tol, "max_iter": max_iter}
    with torch.inference_mode():  # a tenth faster; what leaves it below takes gradients again
        start = _warm_start(x, y, state, step_size)
        if start is None:
            _, potentials, plan = self_transport(y, **settings)
            start = _Start(potentials.g, plan and plan.inner)
        onto_targets = transport(x, y, **settings, g=start.g, inner=start.x_y)
        onto_itself = self_transport(x, **settings, g=start.g_self, inner=start.x_x)

    across, within = onto_targets.potentials, onto_itself.potentials
    trend = torch.zeros_like(across.g)
    if start.g is not None and start.trend is not None:  # what it would have missed without one
        missed = across.g - start.g  # up to a constant, which means nothing
        trend = start.trend + missed - missed.mean(-1, keepdim=True)
    products = None
    if onto_targets.plan and onto_itself.plan and start.y_y is not None:
        products = Products(onto_targets.plan, onto_itself.plan, start.y_y)
    error = across.marginal_error.maximum(within.marginal_error)
    return SinkhornVelocity(
        velocity=onto_targets.projection - onto_itself.projection,
        marginal_error=error,
        converged=error <= tol,
        state=SinkhornState(across.g, within.g, start.g_target, trend, products),
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


def _warm_start(
    x: Tensor, y: Tensor, state: SinkhornState | None, step_size: float | Tensor | None
) -> _Start | None:
    """Guess the next potentials: `g` exactly if the particles interpolate displacements.

    What the last guess missed is expected again, smaller as the particles slow down. There is
    nothing to start from if the targets have changed.
    """
    step = None if step_size is None else _checked_step(step_size, x)
    if state is None:
        return None
    _check_state(state, x, y)
    g, g_self, g_target, trend, products = state
    y_y = products and products.targets
    if step is None:
        return _Start(g_target, y_y, g, g_self, torch.zeros_like(trend))
    left = 1 - step
    trend = left * trend
    start = _Start(g_target, y_y, g_target + left * (g - g_target) + trend, g_self, trend)
    if products is None:
        return start
    x_y, x_x = products.after(step.unsqueeze(-1))
    if has_products(x, (x_y, y), (x_x, x)):
        return start._replace(x_y=x_y, x_x=x_x)
    return start if has_products(y, (products.targets, y)) else None


def _check_state(state: SinkhornState, x: Tensor, y: Tensor) -> None:
    if not isinstance(state, SinkhornState):
        raise TypeError(
            f"state must be the state of a SinkhornVelocity, got {type(state).__name__}: pass "
            "sinkhorn_velocity(...).state."
        )
    shapes = [tuple(g.shape) for g in (state.g_self, state.g_target)]
    if shapes != [x.shape[:-1], y.shape[:-1]] or state.g_self.dtype != x.dtype:
        raise ValueError(
            f"state is of particles {shapes[0]} and targets {shapes[1]} in "
            f"{state.g_self.dtype}, but x has shape {tuple(x.shape)} and y {tuple(y.shape)} in "
            f"{x.dtype}: pass the state of the same clouds, or none."
        )


def _checked_step(step_size: float | Tensor, x: Tensor) -> Tensor:
    """Step sizes (B, 1), or (1,) of all, for these particles."""
    if not isinstance(step_size, Tensor):
        step_size = check_number(step_size, "step_size")
    step = torch.as_tensor(step_size, dtype=x.dtype, device=x.device)
    if step.shape not in ((), x.shape[:-2]) or not bool(step.isfinite().all()):
        raise ValueError(
            f"step_size must be a finite number, or one for each of the {tuple(x.shape[:-2])} "
            f"problems, got {step_size}."
        )
    return step.unsqueeze(-1)
