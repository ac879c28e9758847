"""The second teacher: straight lines from source to target points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from sknsgf._arguments import check_positive, check_size
from sknsgf._random import seeded_generator, stream
from sknsgf.flow._clouds import Cloud, Draw, Drawn
from sknsgf.flow._pool import Records
from sknsgf.flow._status import Status
from sknsgf.sinkhorn import check_clouds, coupling, squared_cost, temperature, transport

_GROUP = 8  # minibatches coupled at a time
_SHARPNESS = 0.05  # temperature of a large coupling over the standard deviation of its costs
_N_COSTS = 1024  # points of each cloud on which that is measured
_REUSE = 16  # targets drawn for a source point, while its row of the coupling is at hand
_BLOCK = 256  # rows of it at a time


def straight_records(x: Tensor, y: Tensor, generator: torch.Generator) -> Records:
    r"""Place pairs on their straight lines, at uniform times.

    .. math:: x_t = (1 - t)\, x + t\, y, \qquad u = y - x

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Starts.
    y : Tensor of shape (n, d)
        Ends, paired with the starts row by row.
    generator : torch.Generator
        Draws the times.

    Returns
    -------
    Records
        Times in [0, 1), positions and velocities.

    Raises
    ------
    TypeError, ValueError
        If `x` and `y` are not tensors of one shape and dtype.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.zeros(3, 2), torch.ones(3, 2)
    >>> records = straight_records(x, y, torch.Generator().manual_seed(0))
    >>> bool(torch.all(records.x == records.t[:, None]))
    True
    """
    check_clouds(x, y)
    if x.shape != y.shape or x.ndim > 2:
        raise ValueError(
            f"x and y must be pairs of shape (n, d), got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    t = torch.rand(len(x), dtype=x.dtype, device=generator.device, generator=generator)
    return Records(t, torch.lerp(x, y, t.unsqueeze(-1)), y - x)


class Pairs(Protocol):
    """Pairs of points, batch by batch: each a function of its number alone."""

    status: Status

    def __call__(self, number: int) -> tuple[Cloud, Cloud]:
        """Return the starts and the ends of batch `number`."""


class IndependentPairs:
    """Points of both clouds as they are drawn.

    Parameters
    ----------
    draw_source, draw_target : callable (n, number) -> Cloud
        Draw points.
    batch_size : int
        Pairs at a time.
    """

    status = Status()

    def __init__(self, draw_source: Draw, draw_target: Draw, batch_size: int):
        self.draws, self.batch_size = (draw_source, draw_target), batch_size

    def __call__(self, number: int) -> tuple[Cloud, Cloud]:
        """Return batch `number`."""
        source, target = (draw(self.batch_size, number) for draw in self.draws)
        return source, target


class CoupledPairs:
    """Minibatches paired by entropic transport, several at a time.

    Parameters
    ----------
    draw_source, draw_target : callable (n, number) -> Cloud
        Draw minibatches.
    batch_size : int
        Pairs at a time.
    seed : int
        Seed of the targets drawn for source points.
    blur, tol
        As in :func:`coupled_pairs`.
    """

    def __init__(
        self,
        draw_source: Draw,
        draw_target: Draw,
        batch_size: int,
        *,
        seed: int,
        blur: float,
        tol: float = 1e-2,
    ):
        self.draws, self.batch_size, self.seed = (draw_source, draw_target), batch_size, seed
        self.epsilon, self.tol = temperature(blur), check_positive(tol, "tol")
        self.status = Status()
        self._group: tuple[int, list[tuple[Cloud, Cloud]]] = (-1, [])  # the last one solved

    def __call__(self, number: int) -> tuple[Cloud, Cloud]:
        """Return batch `number`."""
        group, place = divmod(number, _GROUP)
        if group != self._group[0]:
            self._group = group, self._solve(group)
        return self._group[1][place]

    def _solve(self, group: int) -> list[tuple[Cloud, Cloud]]:
        numbers = range(_GROUP * group, _GROUP * (group + 1))
        clouds = [[draw(self.batch_size, k) for k in numbers] for draw in self.draws]
        x, y = (torch.stack([cloud.x for cloud in side]) for side in clouds)
        potentials = transport(x, y, epsilon=self.epsilon, tol=self.tol).potentials
        self.status += Status.of(potentials.converged, potentials.marginal_error, self.tol)
        generator = seeded_generator(self.seed, group)
        plans = coupling(x, y, potentials)
        return [
            (start, end.take(_draw_columns(plan, 1, generator).squeeze(-1)))
            for plan, start, end in zip(plans, *clouds, strict=True)
        ]


class LargePairs:
    """Pairs by the entropic transport between two large clouds, a round of batches at a time.

    Parameters
    ----------
    draw_source, draw_target : callable (n, number) -> Cloud
        Draw points.
    seed : int
        Seed of the targets drawn for source points, and of their order.
    batch_size, n_source, n_target, fixed_target, tol
        As in :func:`large_pairs`.
    """

    def __init__(
        self,
        draw_source: Draw,
        draw_target: Draw,
        *,
        seed: int,
        batch_size: int,
        n_source: int,
        n_target: int,
        fixed_target: bool = True,
        tol: float = 1e-2,
    ):
        self.draw_source, self.draw_target, self.seed = draw_source, draw_target, seed
        self.batch_size = check_size(batch_size, "batch_size")
        self.n_source = check_size(n_source, "n_source")
        self.n_target = check_size(n_target, "n_target")
        self.tol = check_positive(tol, "tol")
        self.fixed_target, self.status = fixed_target, Status()
        self._solved: tuple[int, Cloud, Tensor, float] | None = None  # the last problem
        self._round: tuple[int, Cloud, Cloud, Tensor] | None = None  # the last round of starts

    def __call__(self, number: int) -> tuple[Cloud, Cloud]:
        """Return batch `number`.

        A round draws new source points; each draws its targets from its row of the coupling, and
        with each of them comes once.
        """
        if self.batch_size > self.n_source:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the n_source={self.n_source} points "
                "that are paired at a time; raise n_source."
            )
        n_batches = self.n_source // self.batch_size
        again, place = divmod(number, n_batches)
        round_, column = divmod(again, _REUSE)
        if self._round is None or self._round[0] != round_:
            self._round = round_, *self._begin(round_)
        _, x, y, ends = self._round
        generator = seeded_generator(stream(self.seed, "order"), again)
        order = torch.randperm(self.n_source, device="cpu", generator=generator)
        some = order[place * self.batch_size :][: self.batch_size]
        return x.take(some), y.take(ends[some, column])

    def _begin(self, round_: int) -> tuple[Cloud, Cloud, Tensor]:
        """Draw the source points of a round, and _REUSE targets (n_source, _REUSE) for each."""
        problem = 0 if self.fixed_target else round_
        if self._solved is None or self._solved[0] != problem:
            self._solved = problem, *self._solve(problem)
        _, y, g, epsilon = self._solved
        x = self.draw_source(self.n_source, round_)
        generator = seeded_generator(stream(self.seed, "ends"), round_)
        ends = []
        for block in x.x.split(_BLOCK):
            exponents = (g - squared_cost(block, y.x)) / epsilon
            weights = (exponents - exponents.amax(-1, keepdim=True)).exp()
            ends.append(_draw_columns(weights, _REUSE, generator))
        return x, y, torch.cat(ends)

    def _solve(self, problem: int) -> tuple[Cloud, Tensor, float]:
        x = self.draw_source(self.n_source, problem)
        y = self.draw_target(self.n_target, problem)
        spread = float(squared_cost(x.x[:_N_COSTS], y.x[:_N_COSTS]).std())
        epsilon = _SHARPNESS * (spread or 1.0)  # where all costs are equal any will do
        potentials = transport(x.x, y.x, epsilon=epsilon, tol=self.tol).potentials
        self.status += Status.of(potentials.converged, potentials.marginal_error, self.tol)
        return y, potentials.g, epsilon


def coupled_pairs(
    draw_source: Callable[[torch.Generator], Tensor],
    draw_target: Callable[[torch.Generator], Tensor],
    generator: torch.Generator,
    *,
    blur: float,
    tol: float = 1e-2,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair minibatches of source and target points by entropic optimal transport.

    Parameters
    ----------
    draw_source, draw_target : callable (generator) -> Tensor of shape (n, d)
        Draw a minibatch.
    generator : torch.Generator
        Draws minibatches, and a target for each source point from its row of the coupling.
    blur : float
        Resolution, in the units of the clouds.
    tol : float, default=1e-2
        Largest accepted marginal error.

    Returns
    -------
    iterator of tuples of two Tensors of shape (n, d)
        Source points and the target points drawn for them, without end.

    Raises
    ------
    TypeError, ValueError
        If `blur` or `tol` is not a positive number.

    References
    ----------
    .. [1] Pooladian et al., "Multisample Flow Matching", ICML 2023.

    Examples
    --------
    >>> import torch
    >>> near = lambda g: torch.rand(4, 1, generator=g).sort(0).values
    >>> pairs = coupled_pairs(near, near, torch.Generator().manual_seed(0), blur=0.01)
    >>> x, y = next(pairs)
    >>> x.shape, y.shape
    (torch.Size([4, 1]), torch.Size([4, 1]))
    """
    seed = _draw_seed(generator)
    draws = (
        Drawn(lambda _, generator: draw_source(generator), stream(seed, "source")),
        Drawn(lambda _, generator: draw_target(generator), stream(seed, "target")),
    )
    return _endless(CoupledPairs(*draws, 0, seed=seed, blur=blur, tol=tol))


def large_pairs(
    draw_source: Callable[[int, torch.Generator], Tensor],
    draw_target: Callable[[int, torch.Generator], Tensor],
    generator: torch.Generator,
    *,
    batch_size: int,
    n_source: int,
    n_target: int,
    fixed_target: bool = True,
    tol: float = 1e-2,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Pair points as the entropic transport between two large clouds does.

    Only the potential :math:`g` of the targets is kept. New source points then draw their
    targets, sixteen each, from their own rows of the coupling,

    .. math:: p_j(x) \propto \exp\bigl((g_j - \tfrac12\|x - y_j\|^2) / \varepsilon\bigr),

    with :math:`\varepsilon` a twentieth of the standard deviation of the costs, whatever the
    scale of the data.

    Parameters
    ----------
    draw_source, draw_target : callable (n, generator) -> Tensor of shape (n, d)
        Draw points.
    generator : torch.Generator
        Draws clouds, source points and their targets.
    batch_size : int
        Pairs at a time, at most `n_source`.
    n_source, n_target : int
        Points of the clouds that transport is solved for.
    fixed_target : bool, default=True
        Whether transport is solved once, which is right where `n_target` are all the targets
        there are, or again for other points whenever new ones are drawn.
    tol : float, default=1e-2
        Largest accepted marginal error.

    Returns
    -------
    iterator of tuples of two Tensors of shape (batch_size, d)
        Source points and the target points drawn for them, without end.

    Raises
    ------
    TypeError, ValueError
        If a number is not as described; at the first batch if `batch_size` is more than
        `n_source`.

    Notes
    -----
    Memory grows with ``n_source + n_target`` and by blocks of ``256 * n_target`` and those of
    the solver, never by ``n_source * n_target``, once that is large.

    References
    ----------
    .. [1] Pooladian et al., "Multisample Flow Matching", ICML 2023.
    .. [2] Zhang et al., "On Fitting Flow Models with Large Sinkhorn Couplings", 2025,
       arXiv:2506.05526.

    Examples
    --------
    >>> import torch
    >>> draw = lambda n, g: torch.rand(n, 1, generator=g)
    >>> pairs = large_pairs(draw, draw, torch.Generator().manual_seed(0),
    ...                     batch_size=4, n_source=500, n_target=300)
    >>> x, y = next(pairs)
    >>> bool((x - y).abs().max() < 0.5)  # the transport of a distribution to itself is short
    True
    """
    seed = _draw_seed(generator)
    pairs = LargePairs(
        Drawn(draw_source, stream(seed, "source")),
        Drawn(draw_target, stream(seed, "target")),
        seed=seed,
        batch_size=batch_size,
        n_source=n_source,
        n_target=n_target,
        fixed_target=fixed_target,
        tol=tol,
    )
    return _endless(pairs)


def _endless(pairs: Pairs) -> Iterator[tuple[Tensor, Tensor]]:
    for number in itertools.count():
        start, end = pairs(number)
        yield start.x, end.x


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), device=generator.device, generator=generator))


def _draw_columns(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n columns for each row of weights; multinomial draws a number for every entry."""
    shares = weights.cumsum(-1)
    shape = len(weights), n
    level = torch.rand(shape, dtype=shares.dtype, device=shares.device, generator=generator)
    level *= shares[:, -1:]
    return torch.searchsorted(shares, level, right=True).clamp(max=weights.shape[1] - 1)
