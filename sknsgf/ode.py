"""Explicit Runge–Kutta integration of dx/dt = f(t, x), its inverse, volumes and cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["METHODS", "Solution", "integrate", "invert"]

Velocity = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Tensor], Tensor]

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


def integrate(velocity: Velocity, x: Tensor, t: Tensor, *, method: str = "euler") -> Solution:
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

    Returns
    -------
    Solution
        Times, states and the number of function evaluations.

    Raises
    ------
    ValueError
        If the method is unknown.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> growth = integrate(lambda t, x: x, torch.ones(1, 1).double(), grid, method="rk4")
    >>> growth.x[-1], growth.nfe  # e = 2.718282 to fourth order
    (tensor([[2.7183]], dtype=torch.float64), 40)
    """
    tableau, t = _find_tableau(method), t.to(x)
    states = [x]
    for start, stop in pairwise(t):
        states.append(_step(velocity, states[-1], start, stop - start, tableau))
    return Solution(t, torch.stack(states), len(tableau.nodes) * (len(t) - 1))


def invert(
    velocity: Velocity, x: Tensor, t: Tensor, *, method: str = "euler", n_iterations: int = 10
) -> Solution:
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

    Returns
    -------
    Solution
        The grid reversed, the states from its last time to its first, and the number of
        function evaluations.

    Raises
    ------
    ValueError
        If the method is unknown.

    References
    ----------
    .. [1] Behrmann et al., "Invertible Residual Networks", ICML 2019.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> decay = lambda t, x: -x
    >>> there = integrate(decay, torch.ones(1, 1).double(), grid)
    >>> invert(decay, there.x[-1], grid).x[-1]
    tensor([[1.0000]], dtype=torch.float64)
    """
    tableau, t = _find_tableau(method), t.to(x)
    states = [x]
    for stop, start in pairwise(t.flip(0)):
        guess = states[-1]
        for _ in range(n_iterations):
            moved = _step(velocity, guess, start, stop - start, tableau)
            guess = states[-1] - (moved - guess)
        states.append(guess)
    nfe = len(tableau.nodes) * (len(t) - 1) * n_iterations
    return Solution(t.flip(0), torch.stack(states), nfe)


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
    ValueError
        If the method is unknown.

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
    tableau, t = _find_tableau(method), t.to(x)
    tol = max(tol, 1e-5) if x.dtype == torch.float32 else tol
    x, log_det = x.clone(), x.new_zeros(len(x))
    folded, reached = (
        torch.full_like(log_det, value, dtype=torch.bool) for value in (False, True)
    )
    for stop, start in pairwise(t.flip(0)):
        step = partial(_step, velocity, t=start, h=stop - start, tableau=tableau)
        x, converged = _undo(step, x, tol, max_iter)
        sign, change = torch.linalg.slogdet(_value_and_jacobian(step, x)[1])
        log_det, folded, reached = log_det + change, folded | (sign < 0), reached & converged
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


def _find_tableau(method: str) -> _Tableau:
    if method not in _TABLEAUS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}.")
    return _TABLEAUS[method]


def _step(velocity: Velocity, x: Tensor, t: Tensor, h: Tensor, tableau: _Tableau) -> Tensor:
    h = h.expand(len(x)).unsqueeze(-1)
    slopes: list[Tensor] = []
    for node, coefficients in zip(tableau.nodes, tableau.stages, strict=True):
        stage = x + h * _combine(coefficients, slopes) if slopes else x
        slopes.append(velocity(t + node * h.squeeze(-1), stage))
    return x + h * _combine(tableau.weights, slopes)


def _combine(coefficients: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = (c * k for c, k in zip(coefficients, slopes, strict=True) if c)
    return sum(terms, start=torch.zeros_like(slopes[0]))
