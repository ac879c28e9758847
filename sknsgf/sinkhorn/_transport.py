"""The room's public functions: check shapes, batch, solve, and read the plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf.sinkhorn._blocked import make_kernel
from sknsgf.sinkhorn._checks import (
    check_clouds,
    check_epsilon,
    check_finite,
    check_shape,
    check_solver,
    temperature,
)
from sknsgf.sinkhorn._kernel import (
    ScaledKernel,
    problems_together,
    squared_cost,
    weighted_means,
)
from sknsgf.sinkhorn._precision import in_full_precision
from sknsgf.sinkhorn._self import is_identity, solve_self_batch
from sknsgf.sinkhorn._solver import SinkhornPotentials, solve_batch

_TOL = 1e-3
_MAX_ITER = 200
_FAR = 1e3  # squared radii apart from which clouds are moved together to be solved


class Plan(NamedTuple):
    """A plan and the inner products it comes from, always with a batch dimension.

    Attributes
    ----------
    inner : Tensor of shape (B, n, m)
        Inner products of all pairs.
    weights : Tensor of shape (B, n, m) or None
        The plan with rows that sum to 1; None for the identity.
    """

    inner: Tensor
    weights: Tensor | None

    def average(self, values: Tensor) -> Tensor:
        """Mean of the columns' values for each row: (B, m, k) to (B, n, k)."""
        return values if self.weights is None else _average(self.weights, values)


_average = in_full_precision(weighted_means)


class Transport(NamedTuple):
    """Where entropic transport sends each particle, and the potentials that say so.

    Attributes
    ----------
    projection : Tensor of shape (n, d) or (B, n, d)
        Barycentric projection of the first cloud onto the second.
    potentials : SinkhornPotentials
        The solved problem and its status.
    plan : Plan or None
        Given only where it is smaller than the clouds, so that keeping it costs little: for
        fewer points than coordinates, about the origin, and few enough problems to be solved
        together.
    """

    projection: Tensor
    potentials: SinkhornPotentials
    plan: Plan | None = None


class SinkhornDivergence(NamedTuple):
    """A Sinkhorn divergence and how far its three problems are from solved.

    Attributes
    ----------
    value : Tensor of shape () or (B,)
        The divergence, in squared units of the clouds.
    marginal_error : Tensor of shape () or (B,)
        The largest marginal error of the three transport problems.
    converged : bool Tensor of shape () or (B,)
        Whether all three reached the tolerance.
    """

    value: Tensor
    marginal_error: Tensor
    converged: Tensor


@in_full_precision
def transport(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    tol: float = _TOL,
    max_iter: int = _MAX_ITER,
    g: Tensor | None = None,
    inner: Tensor | None = None,
) -> Transport:
    r"""Solve entropic optimal transport between uniform clouds and project along it.

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Particles.
    y : Tensor of shape (m, d) or (B, m, d)
        Targets.
    epsilon : float
        Temperature, in the units of the cost :math:`\tfrac12\|x - y\|^2`.
    tol : float, default=1e-3
        Largest accepted marginal error: the mass, of a total of 1, that misses its target.
    max_iter : int, default=200
        Iterations at the last temperature after which an unsolved problem is returned as it
        is.
    g : Tensor of shape (m,) or (B, m), optional
        Guess of the potential on `y` (warm start). Without it, and if it turns out hopeless,
        the temperature is lowered from the spread of the data to `epsilon`.
    inner : Tensor of shape (B, n, m), optional
        The inner products of `x` and `y`, where they are known and many coordinates make
        them most of the work. They are taken as they are.

    Returns
    -------
    Transport
        The barycentric projection and the potentials, with `marginal_error` and `converged`
        per problem. An unsolved problem is never an exception. Results carry no gradient.

    Raises
    ------
    TypeError
        If `x` or `y` is not a tensor.
    ValueError
        If shapes or dtypes do not fit, values are not finite or too large to multiply, a setting
        is not positive and finite, or `epsilon` is beyond what the dtype can hold.

    Notes
    -----
    A problem of up to 2**25 pairs (5800 x 5800) keeps its kernel in memory, at most 256 MB in
    single precision. Of a larger one, in up to three dimensions, a group of neighbouring rows
    sees only the columns that can matter to it beyond rounding. What is left is stored up to
    2**26 entries (256 MB in single precision); beyond, it is formed again in blocks of rows
    whenever it is needed, and memory grows with n + m only. Where many points share a cell half
    a blur wide, the problem is first solved between the cells. Problems of a batch are solved
    together as far as that serves speed.

    Inner products are formed in full precision, whatever
    :func:`torch.set_float32_matmul_precision` or autocast ask for elsewhere. Weights are
    uniform; repeat a point to give it weight.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069.
    .. [2] Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn
       Divergences", AISTATS 2019.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> transport(x, x + 5, epsilon=0.01).projection
    tensor([[5.],
            [6.]])
    """
    check_clouds(x, y)
    check_solver(epsilon, tol, max_iter, x.dtype)
    _check_known(x, y, g, inner)
    x, y = x.detach(), y.detach()
    apart = _separation(x, y)
    if apart is not None:
        x, g, inner = x - apart, None if g is None else _together(g, y, apart), None

    def solve(x: Tensor, y: Tensor, g: Tensor | None, inner: Tensor | None) -> Transport:
        potentials, kernel, scaling = solve_batch(x, y, epsilon, tol, max_iter, g, inner)
        return _transport(kernel, scaling.u, scaling.v, potentials)

    solved = _by_problems(solve, x, y, g, inner)
    return solved if apart is None else _apart(solved, x, y, apart)


@in_full_precision
def self_transport(
    x: Tensor,
    *,
    epsilon: float,
    tol: float = _TOL,
    max_iter: int = _MAX_ITER,
    g: Tensor | None = None,
    inner: Tensor | None = None,
) -> Transport:
    """Solve the transport of a uniform cloud onto itself and project along it.

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Particles.
    epsilon, tol, max_iter
        As in :func:`transport`.
    g : Tensor of shape (n,) or (B, n), optional
        Guess of the potential.
    inner : Tensor of shape (B, n, n), optional
        The inner products of `x`, where they are known.

    Returns
    -------
    Transport
        The projection (each particle's mean over its neighbours) and the potentials, for
        which `f` and `g` agree within the tolerance. Results carry no gradient.

    Raises
    ------
    TypeError, ValueError
        As in :func:`transport`.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> self_transport(x, epsilon=0.01).projection.round()  # far apart: nothing shared
    tensor([[0.],
            [1.]])
    """
    check_clouds(x, x)
    check_solver(epsilon, tol, max_iter, x.dtype)
    _check_known(x, x, g, inner)

    def solve(x: Tensor, _: Tensor, *known: Tensor | None) -> Transport:
        potentials, kernel, scalings = solve_self_batch(x, epsilon, tol, max_iter, *known)
        if is_identity(*scalings):
            return Transport(x, potentials, _kept(kernel, identity=True))
        return _transport(kernel, *scalings, potentials)

    return _by_problems(solve, x, x, g, inner)


def _separation(x: Tensor, y: Tensor) -> Tensor | None:
    """Tell by which (..., 1, d) x lies from y if the way is long for their sizes.

    The inner products of clouds far apart have no digits left for their shapes.
    """
    x, y = (cloud[..., :: math.ceil(cloud.shape[-2] / 16), :] for cloud in (x, y))
    x_mean, y_mean = x.mean(-2, keepdim=True), y.mean(-2, keepdim=True)
    apart = x_mean - y_mean
    way = apart.square().sum((-2, -1))
    width, radius = ((c - m).square().sum((-2, -1)) for c, m in ((x, x_mean), (y, y_mean)))
    far = (way > radius * (_FAR / y.shape[-2])) & (way > width / x.shape[-2])
    return apart if bool(far.any()) else None


def _along(points: Tensor, y: Tensor, apart: Tensor) -> Tensor:
    """Part of a cost that is linear in points, for x moved away from them; in full digits."""
    points, centre, apart = (_wide(a) for a in (points, y.mean(-2, keepdim=True), apart))
    return ((points - centre) @ apart.mT).squeeze(-1)


def _wide(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()  # which knows no double


def _together(g: Tensor, y: Tensor, apart: Tensor) -> Tensor:
    """Potential on y of x − apart and y, from that of x and y."""
    return (g + _along(y, y, apart)).to(y.dtype)


def _apart(near: Transport, x: Tensor, y: Tensor, apart: Tensor) -> Transport:
    """Potentials of x + apart and y, from those of x and y; the projection is the same."""
    shift = _wide(apart).square().sum((-2, -1)).unsqueeze(-1) / 2
    f = near.potentials.f + _along(x, y, apart) + shift
    g = near.potentials.g - _along(y, y, apart)
    return Transport(near.projection, near.potentials._replace(f=f, g=g))


def _transport(
    kernel: ScaledKernel, u: Tensor, v: Tensor, potentials: SinkhornPotentials
) -> Transport:
    projection = kernel.project(u, v)  # which turns the kernel into the plan
    return Transport(projection, potentials, _kept(kernel))


def _kept(kernel: ScaledKernel, *, identity: bool = False) -> Plan | None:
    # Half the products that a step takes are by this plan, and none by the identity.
    share = 1.5 if identity or not kernel.same else 3
    centred = isinstance(kernel.offset, Tensor)
    many = share * max(kernel.x.shape[1], kernel.y.shape[1])
    if kernel.scores is None or centred or kernel.x.shape[-1] < many:
        return None
    return Plan(kernel.scores, None if identity else kernel.plan)


@in_full_precision
def coupling(x: Tensor, y: Tensor, potentials: SinkhornPotentials) -> Tensor:
    r"""Joint distribution of particles and targets that the potentials describe.

    .. math:: \pi_{ij} = \tfrac{1}{nm} \exp\bigl((f_i + g_j - \tfrac12\|x_i-y_j\|^2)
              / \epsilon\bigr)

    It is computed from `g`, of which `f` is the soft minimum.

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Particles the potentials were solved for.
    y : Tensor of shape (m, d) or (B, m, d)
        Targets the potentials were solved for.
    potentials : SinkhornPotentials
        From :func:`transport` or :func:`self_transport`.

    Returns
    -------
    Tensor of shape (n, m) or (B, n, m)
        Masses that sum to 1; rows sum to 1/n, columns to 1/m within `marginal_error`, however
        far apart the clouds are.

    Raises
    ------
    TypeError, ValueError
        If the potentials are of other clouds, or as in :func:`transport`.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> coupling(x, x, transport(x, x, epsilon=0.01).potentials).round(decimals=3)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    check_clouds(x, y)
    if not isinstance(potentials, SinkhornPotentials):
        raise TypeError(
            "potentials must be the SinkhornPotentials of a transport, got "
            f"{type(potentials).__name__}: pass transport(x, y, epsilon=...).potentials."
        )
    f, g, epsilon, *_ = potentials
    check_epsilon(epsilon, x.dtype)
    check_shape("potentials.f", f, x.shape[:-1])
    check_shape("potentials.g", g, y.shape[:-1])
    apart = _separation(x, y)
    if apart is not None:
        x, g = x - apart, _together(g, y, apart)
    exponents = (g.unsqueeze(-2) - squared_cost(x, y)) / epsilon
    plan = exponents.softmax(-1) / x.shape[-2]
    check_finite(plan.sum())
    return plan


@in_full_precision
def barycentric_projection(x: Tensor, y: Tensor, g: Tensor, epsilon: float) -> Tensor:
    r"""Send each particle to the mean of the targets it is coupled to.

    .. math:: T(x) = \sum_j p_j(x)\, y_j, \quad
              p_j(x) \propto \exp\bigl((g_j - \tfrac12\|x - y_j\|^2) / \epsilon\bigr)

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        Query particles; they need not be the ones `g` was solved for.
    y : Tensor of shape (m, d) or (B, m, d)
        Targets.
    g : Tensor of shape (m,) or (B, m)
        Potential on `y`, in cost units.
    epsilon : float
        Temperature, in cost units.

    Returns
    -------
    Tensor of shape (n, d) or (B, n, d)
        Projected particles, inside the convex hull of `y`.

    Raises
    ------
    TypeError, ValueError
        As in :func:`transport`.

    Notes
    -----
    Equals :math:`x - \nabla f(x)` for the potential :math:`f` that `g` implies, so no
    automatic differentiation is needed.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069.

    Examples
    --------
    >>> import torch
    >>> y = torch.tensor([[-1.0], [1.0]])
    >>> barycentric_projection(torch.zeros(1, 1), y, torch.zeros(2), epsilon=0.5)
    tensor([[0.]])
    """
    check_clouds(x, y)
    check_epsilon(epsilon, x.dtype)
    check_shape("g", g, y.shape[:-1])
    apart = _separation(x, y)
    if apart is not None:
        x, g = x - apart, _together(g, y, apart)
    xs, ys, potential = _batched(x, 2), _batched(y, 2), _batched(g, 1).to(x)
    size = problems_together(xs, ys)
    groups = zip(xs.split(size), ys.split(size), potential.split(size), strict=True)
    image = torch.cat([_project(*group, epsilon) for group in groups])
    return image if x.ndim == 3 else image.squeeze(0)


def _project(x: Tensor, y: Tensor, g: Tensor, epsilon: float) -> Tensor:
    kernel = make_kernel(x, y)
    kernel.absorb(g, epsilon)
    ones = torch.ones_like(g)
    u = 1 / kernel.forward(ones)
    check_finite(u)
    return kernel.project(u, ones)


@in_full_precision
def sinkhorn_divergence(
    x: Tensor, y: Tensor, *, blur: float, tol: float = _TOL, max_iter: int = _MAX_ITER
) -> SinkhornDivergence:
    r"""Debiased entropic transport cost between two uniform clouds.

    .. math:: S_\epsilon(\mu, \nu) = OT_\epsilon(\mu, \nu)
              - \tfrac12 OT_\epsilon(\mu, \mu) - \tfrac12 OT_\epsilon(\nu, \nu),
              \quad \epsilon = \mathrm{blur}^2

    Parameters
    ----------
    x : Tensor of shape (n, d) or (B, n, d)
        First cloud.
    y : Tensor of shape (m, d) or (B, m, d)
        Second cloud.
    blur : float
        Resolution, in the units of the clouds.
    tol : float, default=1e-3
        Largest accepted marginal error. The error of the value is of second order in it.
    max_iter : int, default=200
        Iterations at the last temperature.

    Returns
    -------
    SinkhornDivergence
        Value, marginal error and whether it converged.

    Raises
    ------
    TypeError, ValueError
        As in :func:`transport`.

    Notes
    -----
    The divergence is nonnegative and zero only between equal distributions. What numerical errors
    leave below zero is cut off; differences below about ``tol * blur**2`` mean nothing. As `blur`
    goes to 0 it tends to half the squared Wasserstein distance :math:`\tfrac12 W_2^2`. Rounding
    errors are relative to
    ``blur**2``: there are no digits left of clouds a thousand times smaller than `blur` in single
    precision, or a million times in double.

    References
    ----------
    .. [1] Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn
       Divergences", AISTATS 2019.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sinkhorn_divergence(x, x + 2, blur=0.1).value.round(decimals=3)  # 2**2 / 2
    tensor(2.)
    """
    check_clouds(x, y)
    epsilon = temperature(blur)
    check_solver(epsilon, tol, max_iter, x.dtype)
    x, y = x.detach(), y.detach()
    apart = _separation(x, y)
    if apart is not None:
        x = x - apart
    xs, ys = _batched(x, 2), _batched(y, 2)
    larger = xs if xs.shape[1] > ys.shape[1] else ys
    size = problems_together(larger, larger)
    parts = [
        _divergence(*group, epsilon, tol, max_iter)
        for group in zip(xs.split(size), ys.split(size), strict=True)
    ]
    values = [torch.cat(part) for part in zip(*parts, strict=True)]
    near = SinkhornDivergence(*(v if x.ndim == 3 else v.squeeze(0) for v in values))
    value = near.value if apart is None else near.value + _way_cost(x, y, apart)
    return near._replace(value=value.clamp(min=0))


def _way_cost(x: Tensor, y: Tensor, apart: Tensor) -> Tensor:
    """Add to the divergence of x and y what it gains if x moves by `apart`."""
    way = x.mean(-2, keepdim=True) - y.mean(-2, keepdim=True) + apart / 2
    return (apart * way).sum((-2, -1))


def _divergence(
    x: Tensor, y: Tensor, epsilon: float, tol: float, max_iter: int
) -> SinkhornDivergence:
    across = solve_batch(x, y, epsilon, tol, max_iter)[0]
    within_x = solve_self_batch(x, epsilon, tol, max_iter)[0]
    within_y = solve_self_batch(y, epsilon, tol, max_iter)[0]
    value = _dual_value(across) - (_dual_value(within_x) + _dual_value(within_y)) / 2
    problems = (across, within_x, within_y)
    error = torch.stack([p.marginal_error for p in problems]).amax(0)
    return SinkhornDivergence(value, error, error <= tol)


def _dual_value(potentials: SinkhornPotentials) -> Tensor:
    # f is the exact soft minimum of g, so the mass term of the dual vanishes and the error
    # is of second order.
    return potentials.f.mean(-1) + potentials.g.mean(-1)


def _by_problems(
    solve: Callable[..., Transport],
    x: Tensor,
    y: Tensor,
    g: Tensor | None,
    inner: Tensor | None,
) -> Transport:
    """Solve a batch, or one problem, as many problems at a time as memory serves best."""
    xs, ys = _batched(x, 2), _batched(y, 2)
    guess = None if g is None else _batched(g, 1).to(xs)
    size = problems_together(xs, ys)
    if len(xs) <= size:
        result = solve(xs, ys, guess, inner)
        return result if x.ndim == 3 else _unbatched(result)
    known = (itertools.repeat(None) if a is None else a.split(size) for a in (guess, inner))
    groups = zip(xs.split(size), ys.split(size), *known, strict=False)
    return _concatenated([solve(*group) for group in groups])


def _concatenated(results: list[Transport]) -> Transport:
    parts = [result.potentials for result in results]
    potentials = SinkhornPotentials(
        f=torch.cat([p.f for p in parts]),
        g=torch.cat([p.g for p in parts]),
        epsilon=parts[0].epsilon,
        n_iter=max(p.n_iter for p in parts),
        marginal_error=torch.cat([p.marginal_error for p in parts]),
        converged=torch.cat([p.converged for p in parts]),
    )
    return Transport(torch.cat([result.projection for result in results]), potentials)


def _batched(tensor: Tensor, ndim: int) -> Tensor:
    """Give a single problem a batch dimension; no gradient passes through a solver."""
    tensor = tensor.detach()
    return tensor.unsqueeze(0) if tensor.ndim == ndim else tensor


def _unbatched(result: Transport) -> Transport:
    projection, potentials, plan = result
    names = ("f", "g", "marginal_error", "converged")
    first = {name: getattr(potentials, name).squeeze(0) for name in names}
    return Transport(projection.squeeze(0), potentials._replace(**first), plan)


def _check_known(x: Tensor, y: Tensor, g: Tensor | None, inner: Tensor | None) -> None:
    if g is not None:
        check_shape("g", g, y.shape[:-1])
    if inner is not None:
        check_shape("inner", inner, (x.shape[0] if x.ndim == 3 else 1, x.shape[-2], y.shape[-2]))
