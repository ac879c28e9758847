"""Explicit Runge–Kutta integration of dx/dt = f(t, x), its inverse, volumes and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sknsgf._arguments import (
    check_callable,
    check_choice,
    check_positive,
    check_tensor,
)

__all__ = ["METHODS", "Inverse", "Solution", "integrate", "invert"]

Velocity = Callable[[Tensor, Tensor], Tensor]

_TOL = {torch.float64: 1e-10, torch.float32: 1e-6}  # of the norm of a state, one at least
_GAIN = 0.5  # what an iteration leaves of an error at most, or Newton's method takes over
_N_NEWTON, _N_HALVINGS = 30, 12  # its steps, and of each that does not come closer
_N_DIRECTIONS = 20  # that a Newton step is looked for in, at most
_LEAPS = (0.5, -0.5)  # beyond a fold, in lengths of the step that is undone


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
        How far from the state given the one found is carried, by all steps together.
    """

    t: Tensor
    x: Tensor
    nfe: int
    error: Tensor


def integrate(
    velocity: Velocity,
    x: Tensor,
    t: Tensor,
    *,
    method: str | Sequence[str] = "euler",
    all_states: bool = True,
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
    method : {"euler", "heun", "rk4"} or sequence of these, default="euler"
        Order 1, 2 or 4 with 1, 2 or 4 evaluations a step; a sequence has one for each step.
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
    t, states, nfe = _checked(velocity, x, t), [x], 0
    for step in _plan(t, method):
        x = _take(velocity, x, *step)
        states = [*states, x] if all_states else [x]
        nfe += len(step.tableau.nodes)
    return Solution(t[-len(states) :], torch.stack(states), nfe)


def invert(
    velocity: Velocity,
    x: Tensor,
    t: Tensor,
    *,
    method: str | Sequence[str] = "euler",
    tol: float | None = None,
    guide: Velocity | None = None,
) -> Inverse:
    r"""Undo :func:`integrate`: find the states that it carries to `x`.

    Each step :math:`x' = x + h\,\phi(x)` is undone by the fixed-point iteration
    :math:`x \leftarrow x' - h\,\phi(x)`, begun where the same step backwards leads, as long as
    it halves the error; what is not there yet is found by Newton's method, shortened where it
    would not come closer. Integrating backwards in time would commit an error of the order of a
    step instead.

    Parameters
    ----------
    velocity : callable (t, x) -> dx/dt
        As passed to :func:`integrate`; of every state by itself.
    x : Tensor of shape (n, d)
        States at the last time of the grid, float32 or float64.
    t : Tensor of shape (n_steps + 1,) or (n_steps + 1, n)
        The grid passed to :func:`integrate`.
    method : {"euler", "heun", "rk4"} or sequence of these, default="euler"
        The method passed to :func:`integrate`.
    tol : float, optional
        How near each step has to come, in units of the norm of `x` where that is above one.
        None is 1e-10, of float32 states 1e-6.
    guide : callable (t, x) -> dx/dt, optional
        What states are looked for by at first, if not by `velocity`: a field that agrees with
        it at most of them, and leads there from further away.

    Returns
    -------
    Inverse
        The grid reversed, the states from its last time to its first, the number of calls of
        the fields, and by how far the first states miss those given. States are finite; of
        those that nothing is carried to it is the nearest found that is carried near them.

    Raises
    ------
    TypeError, ValueError
        If the method is unknown, or another argument, or what `velocity` returns, is not as
        described.

    Notes
    -----
    No derivative is asked for: Newton steps are taken in the space of some twenty products of
    the Jacobian, which are differences of steps.

    References
    ----------
    .. [1] Behrmann et al., "Invertible Residual Networks", ICML 2019.
    .. [2] Knoll and Keyes, "Jacobian-free Newton–Krylov methods", J. Comput. Phys. 193, 2004.

    Examples
    --------
    >>> import torch
    >>> grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    >>> decay = lambda t, x: -x
    >>> there = integrate(decay, torch.ones(1, 1).double(), grid)
    >>> invert(decay, there.x[-1], grid).x[-1]
    tensor([[1.0000]], dtype=torch.float64)
    """
    t, states, nfe = _checked(velocity, x, t), [x], 0
    if tol is not None:
        check_positive(tol, "tol")
    goal = (_TOL[x.dtype] if tol is None else tol) * x.norm(dim=-1).clamp(min=1)

    def counted(field: Velocity, t: Tensor, x: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        return field(t, x)

    fields = [partial(counted, field) for field in (guide, velocity) if field is not None]
    for step in reversed(_plan(t, method)):
        end = states[-1]
        found = _take(fields[0], end, step.start + step.h, -step.h, step.tableau)
        found = torch.where(found.isfinite().all(-1, keepdim=True), found, end)
        states.append(_Search(fields, step, found, end, goal).run())
    again = integrate(fields[-1], states[-1], t, method=method, all_states=False)
    return Inverse(t.flip(0), torch.stack(states), nfe, (again.x[-1] - x).norm(dim=-1))


class _Search:
    """States `found` that a step is to carry to `end`: the best met so far."""

    def __init__(
        self, fields: Sequence[Velocity], step: _Step, found: Tensor, end: Tensor, goal: Tensor
    ):
        self.fields, self.tableau = fields, step.tableau
        self.start, self.h = step.start.expand(len(end)), step.h.expand(len(end))
        self.found, self.end = found.clone(), end
        self.goal = goal + 4 * torch.finfo(goal.dtype).eps * found.norm(dim=-1)  # of rounding
        self.missed, self.error = torch.full_like(end, torch.inf), torch.empty_like(goal)

    def run(self) -> Tensor:
        """Return states from which the step ends as near as that, where there are any."""
        every = torch.arange(len(self.end), device=self.end.device)
        for field in self.fields:
            self.field, before = field, self.missed
            self.missed, self.error = self.look(self.found, every)
            rows = every[(self.missed != before).any(-1)]  # others were looked for already
            self.iterate(self.still_open(rows))
            self.take_newton_steps(self.still_open(rows))
            for leap in _LEAPS:
                self.leap(self.still_open(rows), leap)
        self.move(every, self.missed)  # once more, for digits at no more than an evaluation
        return self.found

    def still_open(self, rows: Tensor) -> Tensor:
        return rows[self.error[rows] > self.goal[rows]]

    def iterate(self, rows: Tensor) -> None:
        """Move states by what is missed, as long as that helps much."""
        while len(rows):
            left = self.move(rows, self.missed[rows])
            rows = self.still_open(rows[left < _GAIN])

    def take_newton_steps(self, rows: Tensor) -> None:
        """Move states by Newton's method, each step halved until it comes closer."""
        for _ in range(_N_NEWTON):
            if not len(rows):
                break
            closer, by = torch.zeros_like(rows, dtype=torch.bool), self.newton_step(rows)
            for _ in range(_N_HALVINGS):
                (waiting,) = (~closer).nonzero(as_tuple=True)
                if not len(waiting):
                    break
                closer[waiting] = self.move(rows[waiting], by[waiting]) < 1
                by = by / 2
            rows = self.still_open(rows[closer])

    def leap(self, rows: Tensor, length: float) -> None:
        """Look beyond a fold, at which Newton's method comes to a halt."""
        if not len(rows):
            return
        kept = self.found[rows], self.missed[rows], self.error[rows]
        far = length * (self.end[rows] - kept[0]).norm(dim=-1, keepdim=True)
        self.found[rows] += far * normalize(self.newton_step(rows), dim=-1)
        self.missed[rows], self.error[rows] = self.look(self.found[rows], rows)
        self.take_newton_steps(rows)
        worse = ~(self.error[rows] < kept[2])
        for now, before in zip((self.found, self.missed, self.error), kept, strict=True):
            now[rows[worse]] = before[worse]

    def step(self, x: Tensor, rows: Tensor) -> Tensor:
        """Take the step from other states in the place of those of these indices."""
        return _take(self.field, x, self.start[rows], self.h[rows], self.tableau)

    def look(self, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tell what states miss, and by how much."""
        missed = self.end[rows] - self.step(x, rows)
        return missed, missed.norm(dim=-1).nan_to_num(torch.inf)

    def move(self, rows: Tensor, by: Tensor) -> Tensor:
        """Move states that come closer so, and return what is left of each error."""
        found, before = self.found[rows] + by, self.error[rows]
        missed, error = self.look(found, rows)
        closer = error < before
        for kept, new in ((self.found, found), (self.missed, missed), (self.error, error)):
            kept[rows[closer]] = new[closer]
        return torch.where(closer, error / before, torch.inf)

    def newton_step(self, rows: Tensor) -> Tensor:
        """Solve J s = missed by least squares among products of J with what is missed."""
        x, missed = self.found[rows], self.missed[rows]
        value = self.end[rows] - missed
        size = torch.finfo(x.dtype).eps ** 0.5 * x.norm(dim=-1, keepdim=True).clamp(min=1)
        directions = [normalize(missed, dim=-1)]
        images: list[Tensor] = []
        for _ in range(min(x.shape[1], _N_DIRECTIONS)):
            image = (self.step(x + size * directions[-1], rows) - value) / size
            images.append(image.nan_to_num(0, 0, 0))
            basis = torch.stack(directions, -1)
            rest = images[-1]
            for _ in range(2):  # once leaves rounding errors of the others' size
                rest = rest - (basis @ (basis.mT @ rest.unsqueeze(-1))).squeeze(-1)
            directions.append(normalize(rest, dim=-1))
        share = torch.linalg.pinv(torch.stack(images, -1)) @ missed.unsqueeze(-1)
        return (torch.stack(directions[:-1], -1) @ share).squeeze(-1)


class Volumes(NamedTuple):
    """How steps change volumes.

    Attributes
    ----------
    log_det : Tensor of shape (n,)
        Logarithm of the absolute determinant of the Jacobian of all steps together.
    folded : bool Tensor of shape (n,)
        Whether a step turned space over: it then carries other states to the same point.
    """

    log_det: Tensor
    folded: Tensor


@torch.inference_mode(False)
@torch.enable_grad()
def volumes(
    velocity: Velocity, x: Tensor, t: Tensor, *, method: str | Sequence[str] = "euler"
) -> Volumes:
    r"""Measure how the steps of :func:`integrate` change volumes.

    A density is divided by them: with :math:`x_{k+1} = F_k(x_k)`

    .. math:: \log p_n(x_n) = \log p_0(x_0) - \sum_k \log|\det \nabla F_k(x_k)|.

    These are the densities of the steps that are taken, not those of the differential equation
    that they approximate.

    Parameters
    ----------
    velocity : callable (t, x) -> dx/dt
        As passed to :func:`integrate`; differentiable, and of every state by itself.
    x : Tensor of shape (n_steps + 1, n, d)
        States along the way, as of :class:`Solution`.
    t : Tensor of shape (n_steps + 1,) or (n_steps + 1, n)
        The grid passed to :func:`integrate`.
    method : {"euler", "heun", "rk4"} or sequence of these, default="euler"
        The method passed to :func:`integrate`.

    Returns
    -------
    Volumes
        Log-determinants, and where something is amiss.

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
    >>> growth = integrate(lambda t, x: x, torch.ones(1, 3).double(), grid)
    >>> change = volumes(lambda t, x: x, growth.x, grid)
    >>> change.log_det / torch.tensor(1.1).log()  # three dimensions, ten steps
    tensor([30.0000], dtype=torch.float64)
    """
    check_tensor(x, "x")
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x must have shape (n_steps + 1, n, d), got {tuple(x.shape)}.")
    t = _checked(velocity, x[0], t)
    if len(x) != len(t):
        raise ValueError(f"x must hold a state for each of the {len(t)} times, got {len(x)}.")
    log_det = x.new_zeros(x.shape[1])
    folded = torch.zeros_like(log_det, dtype=torch.bool)
    for state, step in zip(x[:-1], _plan(t.clone(), method), strict=True):
        state = state.detach().clone().requires_grad_()
        value = _take(velocity, state, *step)
        rows = [torch.autograd.grad(y.sum(), state, retain_graph=True)[0] for y in value.mT]
        sign, change = torch.linalg.slogdet(torch.stack(rows, 1))
        log_det, folded = log_det + change, folded | (sign < 0)
    return Volumes(log_det, folded)


class _Step(NamedTuple):
    start: Tensor
    h: Tensor
    tableau: _Tableau


def _plan(t: Tensor, method: str | Sequence[str]) -> list[_Step]:
    """List the steps of a grid."""
    n = len(t) - 1
    methods: list[Any] = list(method) if isinstance(method, list | tuple) else [method] * n
    for name in methods or [method]:
        check_choice(name, "method", METHODS)
    if len(methods) != n:
        raise ValueError(f"method must be a name, or one for each of {n} steps, got {method!r}.")
    tableaus = [_TABLEAUS[name] for name in methods]
    return list(map(_Step, t[:-1], t.diff(dim=0), tableaus))


def _take(velocity: Velocity, x: Tensor, t: Tensor, h: Tensor, tableau: _Tableau) -> Tensor:
    t, h = t.expand(len(x)), h.expand(len(x)).unsqueeze(-1)

    def combine(coefficients: tuple[float, ...]) -> Tensor:
        terms = zip(coefficients, slopes, strict=True)
        return reduce(torch.add, [k if c == 1 else c * k for c, k in terms if c])

    slopes: list[Tensor] = []
    for node, coefficients in zip(tableau.nodes, tableau.stages, strict=True):
        stage = x + h * combine(coefficients) if slopes else x
        slope = velocity(t + node * h.squeeze(-1), stage)
        if getattr(slope, "shape", None) != x.shape:
            raise ValueError(
                f"velocity(t, x) must return a tensor of the shape of x, {tuple(x.shape)}, got "
                f"{tuple(getattr(slope, 'shape', ())) or type(slope).__name__}."
            )
        slopes.append(slope)
    return torch.addcmul(x, h, combine(tableau.weights))


def _checked(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """Return the grid of times in the precision of the states."""
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
    return t.to(x)
