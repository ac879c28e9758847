"""Explicit Runge–Kutta integration of dx/dt = f(t, x), its inverse, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["METHODS", "Solution", "integrate", "invert"]

Velocity = Callable[[Tensor, Tensor], Tensor]


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
