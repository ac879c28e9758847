"""Explicit Runge–Kutta integration of dx/dt = f(t, x), its inverse, volumes and cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf._arguments import (
    check_callable,
    check_choice,
    check_positive,
    check_size,
    check_tensor,
)

__all__ = ["METHODS", "Inverse", "Solution", "integrate", "invert"]

Velocity = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor], Tensor]

_N_ACCELERATED, _N_REMEMBERED = 50, 6  # iterations of an inverse, and those looked back on
_N_HALVINGS = 12  # of a Newton step that does not come closer


class _Tableau(NamedTuple):
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


_TABLEAUS = {
    "euler": _Tableau((0,), ((),), (1,)),
    "heun": _Tableau((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    "rk4": _Tableau(
        (0, 1 / 2, 1 / 2, 1),
        ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
METHODS = tuple(_TABLEAUS)
"""Names of the methods that :func:`integrate` and :func:`invert` know."""


class Solution(NamedTuple):
    """States along a solution.

    Attributes
    ----------
    t : Tensor of shape (n_steps + 1,) or (n_steps + 1, n)
        Times.
    x : Tensor of shape (n_steps + 1, n, d)
        States at those times; the last is the result.
    nfe : int
        Evaluations of the velocity, each of all n states.
    """

    t: Tensor
    x: Tensor
    nfe: int


class Inverse(NamedTuple):
    """States along a solution that was undone.

    Attributes
    ----------
    t, x, nfe
        As in :class:`Solution`, from the last time to the first.
    error : Tensor of shape (n,)
        How far from the state given the one found is carried, of the step where that is most.
    """

    t: Tensor
    x: Tensor
    nfe: int
    error: Tensor


def integrate(
    velocity: Velocity, x: Tensor, t: Tensor, *, method: str = "euler", all_states: bool = True
) -> Solution:
    r"""Integrate dx/dt = velocity(t, x) over a grid of times.

    Parameters
    ----------
    velocity : callable (t, x) -> dx/dt
        Called with times of shape (n,) and states of shape (n, d).
    x : Tensor of shape (n, d)
        States at the first time.
    t : Tensor of shape (n_steps + 1,) or (n_steps + 1, n)
        Grid of times, ascending or descending; a column per state where they differ.
    method : {"euler", "heun", "rk4"}, default="euler"
        Order 1, 2 or 4 with 1, 2 or 4 evaluations a step.
    all_states : bool, default=True
        Whether all states are wanted, or the last alone, with its time.

    Returns
    -------
    Solution
        Times, states and the number of function evaluations.

    Raises
    ------
    TypeError, ValueError
        If the method is unknown, or another argument, or what `velocity` returns, is not as
        described.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> growth = integrate(lambda t, x: x, torch.ones(1, 1).double(), grid, method="rk4")
    >>> growth.x[-1], growth.nfe  # e = 2.718282 to fourth order
    (tensor([[2.7183]], dtype=torch.float64), 40)
    """
    tableau, t = _checked(velocity, x, t, method)
    states, nfe = [x], len(tableau.nodes) * (len(t) - 1)
    for start, stop in pairwise(t):
        x = _step(velocity, x, start, stop - start, tableau)
        states = [*states, x] if all_states else [x]
    return Solution(t[-len(states) :], torch.stack(states), nfe)


def invert(
    velocity: Velocity,
    x: Tensor,
    t: Tensor,
    *,
    method: str = "euler",
    n_iterations: int = 10,
    tol: float | None = None,
    guide: Velocity | None = None,
) -> Inverse:
    r"""Undo :func:`integrate`: find the states that it carries to `x`.

    Each step :math:`x' = x + h\,\phi(x)` is undone by the fixed-point iteration
    :math:`x \leftarrow x' - h\,\phi(x)`, which gains a factor :math:`h\,\mathrm{Lip}(\phi)` an
    iteration. Integrating backwards in time would commit an error of the order of a step
    instead.

    Parameters
    ----------
    velocity : callable (t, x) -> dx/dt
        As passed to :func:`integrate`.
    x : Tensor of shape (n, d)
        States at the last time of the grid.
    t : Tensor of shape (n_steps + 1,) or (n_steps + 1, n)
        The grid passed to :func:`integrate`.
    method : {"euler", "heun", "rk4"}, default="euler"
        The method passed to :func:`integrate`.
    n_iterations : int, default=10
        Fixed-point iterations a step.
    tol : float, optional
        States that are further off then, in units of their size where that is above one, are
        looked for by up to 50 accelerated iterations more.
    guide : callable (t, x) -> dx/dt, optional
        What the fixed-point iterations go by, if not by `velocity`: a field that agrees with it
        at the states looked for, and leads there from further away.

    Returns
    -------
    Inverse
        The grid reversed, the states from its last time to its first, the number of function
        evaluations, and by how far the states found miss those given.

    Raises
    ------
    TypeError, ValueError
        If the method is unknown, or another argument, or what `velocity` returns, is not as
        described.

    References
    ----------
    .. [1] Behrmann et al., "Invertible Residual Networks", ICML 2019.
    .. [2] Walker and Ni, "Anderson Acceleration for Fixed-Point Iterations", SIAM J. Numer.
       Anal. 49, 2011.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> decay = lambda t, x: -x
    >>> there = integrate(decay, torch.ones(1, 1).double(), grid)
    >>> invert(decay, there.x[-1], grid).x[-1]
    tensor([[1.0000]], dtype=torch.float64)
    """
    tableau, t = _checked(velocity, x, t, method)
    check_size(n_iterations, "n_iterations", least=0)
    if tol is not None:
        check_positive(tol, "tol")
    states, error, n_steps = [x], x.new_zeros(len(x)), 0
    for stop, start in pairwise(t.flip(0)):
        step = partial(_step, velocity, t=start, h=stop - start, tableau=tableau)
        by = (
            step
            if guide is None
            else partial(_step, guide, t=start, h=stop - start, tableau=tableau)
        )
        found = _approach(by, states[-1], n_iterations)
        missed = (states[-1] - step(found)).norm(dim=-1)
        n_steps += n_iterations + 1
        goal = missed if tol is None else tol * states[-1].abs().amax(-1).clamp(min=1)
        far = (missed > goal).nonzero().squeeze(-1)
        if len(far):
            t_far, h_far = (v[far] if v.ndim else v for v in (start, stop - start))
            step = partial(_step, velocity, t=t_far, h=h_far, tableau=tableau)
            nearer, error_far, n_more = _accelerate(step, found[far], states[-1][far], goal[far])
            reached = error_far <= goal[far]
            found[far[reached]], missed[far[reached]] = nearer[reached], error_far[reached]
            n_steps += n_more
        states.append(found)
        error = error.maximum(missed)
    return Inverse(t.flip(0), torch.stack(states), len(tableau.nodes) * n_steps, error)


def _approach(step: Step, x: Tensor, n_iterations: int) -> Tensor:
    """Look for the states that a step carries to `x`, by the fixed-point iteration."""
    found = x.clone()
    for _ in range(n_iterations):
        found = found + (x - step(found))
    return torch.where(found.isfinite().all(-1, keepdim=True), found, x)


def _accelerate(step: Step, found: Tensor, x: Tensor, tol: Tensor) -> tuple[Tensor, Tensor, int]:
    """Go on by Anderson's acceleration: move as if what is missed were linear in the state.

    Returns the best states met, by how far they miss, and how often the step was taken.
    """
    now, best, error = found, found, x.new_full((len(x),), torch.inf)
    states: list[Tensor] = []
    misses: list[Tensor] = []
    n_steps = 0
    while n_steps < _N_ACCELERATED and not (error <= tol).all():
        states, misses = [*states, now][-_N_REMEMBERED:], [*misses, x - step(now)][-_N_REMEMBERED:]
        n_steps += 1
        distance = misses[-1].norm(dim=-1)
        best = torch.where((distance < error).unsqueeze(-1), now, best)
        error = error.minimum(distance)
        move = misses[-1] if n_steps == 1 else _secant_move(states, misses)
        now = now + torch.where(move.isfinite().all(-1, keepdim=True), move, 0)
    return best, error, n_steps


def _secant_move(states: list[Tensor], misses: list[Tensor]) -> Tensor:
    """Move by what is missed last, less what earlier changes of both say will be missed."""
    moved, changed = (torch.stack(parts, -1).diff(dim=-1) for parts in (states, misses))
    gram = changed.mT @ changed
    ridge = 1e-10 * gram.diagonal(dim1=-2, dim2=-1).sum(-1) + 1e-30  # of parallel changes
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge.unsqueeze(-1))
    share, _ = torch.linalg.solve_ex(gram, changed.mT @ misses[-1].unsqueeze(-1))
    return misses[-1] - ((moved + changed) @ share).squeeze(-1)


class ChangeOfVariables(NamedTuple):
    """Where states came from, and how volumes changed on the way.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        States at the first time of the grid.
    log_det : Tensor of shape (n,)
        Logarithm of the absolute determinant of the map from there, summed over its steps.
    folded : bool Tensor of shape (n,)
        Whether a step turned space over there: it then maps other states to the same point.
    reached : bool Tensor of shape (n,)
        Whether the state found is carried to the one given.
    """

    x: Tensor
    log_det: Tensor
    folded: Tensor
    reached: Tensor


@torch.inference_mode(False)
def change_of_variables(
    velocity: Velocity,
    x: Tensor,
    t: Tensor,
    *,
    method: str = "euler",
    tol: float = 1e-9,
    max_iter: int = 50,
) -> ChangeOfVariables:
    r"""Undo :func:`integrate` exactly, and account for volumes.

    Every step :math:`x' = F(x)` is undone by Newton's method, shortened where it would not come
    closer, and its Jacobian gives what a density is divided by:

    .. math:: \log p'(x') = \log p(x) - \log|\det \nabla F(x)|.

    These are the densities of the steps that are taken, not those of the differential equation
    that they approximate.

    Parameters
    ----------
    velocity : callable (t, x) -> dx/dt
        As passed to :func:`integrate`; differentiable, and of every state by itself.
    x : Tensor of shape (n, d)
        States at the last time of the grid.
    t : Tensor of shape (n_steps + 1,)
        The grid passed to :func:`integrate`.
    method : {"euler", "heun", "rk4"}, default="euler"
        The method passed to :func:`integrate`.
    tol : float, default=1e-9
        Distance from the state given at which the one found is carried to it; of float32
        states at least 1e-5.
    max_iter : int, default=50
        Newton iterations a step, at most.

    Returns
    -------
    ChangeOfVariables
        States at the first time, log-determinants, and where something is amiss.

    Raises
    ------
    TypeError, ValueError
        If the method is unknown, or another argument, or what `velocity` returns, is not as
        described.

    Notes
    -----
    A Jacobian takes d backward passes, in any dimension: it is not estimated.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> growth = change_of_variables(lambda t, x: x, torch.ones(1, 3).double(), grid)
    >>> growth.log_det / torch.tensor(1.1).log()  # three dimensions, ten steps
    tensor([30.0000], dtype=torch.float64)
    """
    tableau, t = _checked(velocity, x, t, method)
    tol = max(tol, 1e-5) if x.dtype == torch.float32 else tol
    x, log_det = x.clone(), x.new_zeros(len(x))
    folded, reached = (
        torch.full_like(log_det, value, dtype=torch.bool) for value in (False, True)
    )
    for stop, start in pairwise(t.flip(0)):
        step = partial(_step, velocity, t=start, h=stop - start, tableau=tableau)
        x, converged = _undo(step, x, tol, max_iter)
        sign, change = torch.linalg.slogdet(_value_and_jacobian(step, x)[1])
        log_det, folded = log_det + change, folded | (sign < 0)
        reached &= converged & change.isfinite()  # where space is pressed flat there is no density
    return ChangeOfVariables(x, log_det, folded, reached)


def _undo(step: Step, x: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor]:
    """Find the states that a step carries to `x`, and tell of which it does so."""
    found, open_ = x.clone(), torch.arange(len(x), device=x.device)
    for _ in range(max_iter):
        value, jacobian = _value_and_jacobian(step, found[open_])
        error = (x[open_] - value).norm(dim=-1)
        far = ~(error <= tol)
        open_, value, jacobian, error = open_[far], value[far], jacobian[far], error[far]
        if not len(open_):
            break
        move = _solve(jacobian, x[open_] - value)
        found[open_] = _come_closer(step, found[open_], move, x[open_], error)
    converged = torch.ones(len(x), dtype=torch.bool, device=x.device)
    converged[open_] = False
    return found, converged


def _solve(matrix: Tensor, y: Tensor) -> Tensor:
    """Solve systems of equations, by least squares those that have no solution."""
    solution, info = torch.linalg.solve_ex(matrix, y.unsqueeze(-1))
    if (singular := info > 0).any():
        solution[singular] = torch.linalg.pinv(matrix[singular]) @ y[singular].unsqueeze(-1)
    return solution.squeeze(-1)


def _come_closer(step: Step, found: Tensor, move: Tensor, x: Tensor, error: Tensor) -> Tensor:
    """Move, by half as far and half again where that does not lessen the error."""
    best, length = found, 1.0
    worse = torch.ones_like(error, dtype=torch.bool)
    for _ in range(_N_HALVINGS):
        trial = found + length * move
        with torch.no_grad():
            closer = (x - step(trial)).norm(dim=-1) < error
        best = torch.where((worse & closer).unsqueeze(-1), trial, best)
        worse &= ~closer
        if not worse.any():
            break
        length /= 2
    return best


@torch.enable_grad()
def _value_and_jacobian(step: Step, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_(True)
    value = step(x)
    rows = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in value.unbind(-1)]
    return value.detach(), torch.stack(rows, 1)


def _checked(velocity: Velocity, x: Tensor, t: Tensor, method: str) -> tuple[_Tableau, Tensor]:
    """Return the tableau of a method and the grid of times in the precision of the states."""
    check_choice(method, "method", METHODS)
    check_callable(velocity, "velocity", "t and x")
    check_tensor(x, "x")
    check_tensor(t, "t")
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, d), got {tuple(x.shape)}.")
    if not len(t.shape) or not len(t) or t.shape[1:] not in ((), x.shape[:1]):
        raise ValueError(
            f"t must have shape (n_steps + 1,) or (n_steps + 1, {len(x)}), got {tuple(t.shape)}."
        )
    if not t.isfinite().all():
        raise ValueError("t must hold finite times, got NaN or infinity.")
    return _TABLEAUS[method], t.to(x)


def _step(velocity: Velocity, x: Tensor, t: Tensor, h: Tensor, tableau: _Tableau) -> Tensor:
    h = h.expand(len(x)).unsqueeze(-1)
    slopes: list[Tensor] = []
    for node, coefficients in zip(tableau.nodes, tableau.stages, strict=True):
        stage = x + h * _combine(coefficients, slopes) if slopes else x
        slope = velocity(t + node * h.squeeze(-1), stage)
        if getattr(slope, "shape", None) != x.shape:
            raise ValueError(
                f"velocity(t, x) must return a tensor of the shape of x, {tuple(x.shape)}, got "
                f"{tuple(getattr(slope, 'shape', ())) or type(slope).__name__}."
            )
        slopes.append(slope)
    return torch.addcmul(x, h, _combine(tableau.weights, slopes))


def _combine(coefficients: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = [k if c == 1 else c * k for c, k in zip(coefficients, slopes, strict=True) if c]
    return reduce(torch.add, terms)
