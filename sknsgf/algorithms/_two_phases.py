"""NSGF++, a few Sinkhorn steps and then a straight flow: Algorithms 3 and 4 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sknsgf._arguments import check_choice, check_share
from sknsgf._random import seeded_generator, stream
from sknsgf._surroundings import undisturbed, without_autocast
from sknsgf.algorithms._checks import check_counts, check_kind, check_lengths, check_width
from sknsgf.algorithms._run import Learned, Run, velocity_loss
from sknsgf.algorithms._sinkhorn_flow import SinkhornFlow, SinkhornMap
from sknsgf.flow import (
    CoupledPairs,
    Ends,
    IndependentPairs,
    LargePairs,
    LineTeacher,
    Pairs,
    Records,
    Rows,
    Source,
    Teacher,
    by_number,
    first_records,
    split,
)
from sknsgf.networks import NetworkSpec, StandardisedVelocity, go_on_with, suit_rate
from sknsgf.ode import Inverse, Solution, integrate, invert
from sknsgf.training import Training, time_prediction_loss

_N_STARTS = 2**15  # most points at the end of the Sinkhorn steps that lines start from
_LINES_A_START = 16  # where they can be drawn at will
_N_UNSEEN = 2**12  # records on lines between rows held out
_N_STATISTICS = 2**13
_N_SWITCHES = 1024
_EMA_DECAY = 0.995
_N_LARGE = 2**13  # points of each cloud that a large coupling is solved for
_SPARE_ROWS = 50  # of a source: in fewer, none is spared for measuring switch times
STRAIGHT_RATE = 3e-3  # of perceptrons: targets of the straight flow are noisier than velocities
_CHUNK = 2**13  # points moved together
_N_ENTRIES = 30  # iterations for the time at which a point entered, at most
_ENTRY_TOL = {torch.float64: 1e-9, torch.float32: 1e-5}
_NAME = "straight_flow"


@dataclass(frozen=True, eq=False)
class TwoPhaseMap:
    """Points moved along a Sinkhorn flow and then a straight flow: Algorithm 4.

    Parameters
    ----------
    first : SinkhornMap
        The first phase.
    network : Module
        Velocity of the straight flow, called as ``network(t, x)``.
    predictor : Module or None
        Tells at what time a point enters the straight flow.
    switch : float
        The time at which all enter, where there is no predictor.
    n_steps : int
        Euler steps of the straight flow, for every point.
    step_size : float or None
        Length of a step, which then takes the place of `n_steps`.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.algorithms import SinkhornMap
    >>> to_four = lambda t, x: (4 - x) / (1 - t[:, None])
    >>> first = SinkhornMap(to_four, None, t_last=0.25, t_end=0.5, pace=None, n_steps=2)
    >>> both = TwoPhaseMap(first, to_four, predictor=None, switch=0.5, n_steps=5, step_size=None)
    >>> both.forward(torch.zeros(1, 1))
    tensor([[4.]])
    """

    first: SinkhornMap
    network: nn.Module | Callable[[Tensor, Tensor], Tensor]
    predictor: nn.Module | Callable[[Tensor], Tensor] | None
    switch: float
    n_steps: int
    step_size: float | None

    @property
    def n_states(self) -> int:
        """States that a path has, at most."""
        from_start = torch.zeros(1, dtype=torch.float64, device="cpu")
        return self.first.n_states + self.n_steps_from(from_start) + 1

    @without_autocast()
    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluate the field of the straight flow, held to velocities that lead to the target.

        Parameters
        ----------
        t : Tensor of shape (n,)
            Times.
        x : Tensor of shape (n, d)
            Positions.

        Returns
        -------
        Tensor of shape (n, d)
            Velocities.
        """
        u, hull = self.network(t, x), self.first.hull
        return u if hull is None else hull.to(x).hold(x, u, 1 - t.unsqueeze(-1))

    @undisturbed
    @torch.no_grad()
    def switch_times(self, x: Tensor) -> Tensor:
        """Tell when points at the end of the first phase enter the straight flow.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points.

        Returns
        -------
        Tensor of shape (n,)
            Times.
        """
        if self.predictor is None:
            return torch.full((len(x),), self.switch, dtype=x.dtype, device=x.device)
        return self.predictor(x)

    @undisturbed
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Move points to the end of the flow.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points of the source.

        Returns
        -------
        Tensor of shape (n, d)
            Where they end.
        """
        near = self.first.forward(x)
        grid = self._grid(self.switch_times(near))
        return self._draw_in(integrate(self.velocity, near, grid, all_states=False).x[-1])

    @undisturbed
    @torch.no_grad()
    def path(self, x: Tensor) -> Solution:
        """Return all states on the way.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points of the source.

        Returns
        -------
        Solution
            Times of every point, along the first phase and then along the straight flow, states,
            and the most function evaluations that any point took.
        """
        near = self.first.path(x)
        end = integrate(self.velocity, near.x[-1], self._grid(self.switch_times(near.x[-1])))
        end.x[-1] = self._draw_in(end.x[-1])
        t = torch.cat([_by_point(near), end.t])
        return Solution(t, torch.cat([near.x, end.x]), near.nfe + end.nfe + self._n_predictions)

    @undisturbed
    @torch.no_grad()
    def backward(self, x: Tensor) -> Inverse:
        """Return the way back.

        Where times are predicted, a point entered the straight flow at the time that is predicted
        of where it was then. There may be several: the one returned is near the end of the first
        phase.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points at the end of the flow. Those that it never leads to, beyond the hull, are
            taken back from its edge.

        Returns
        -------
        Inverse
            Times and states from the end to the start, and how far from `x` it leads from there.
        """
        inside = self._draw_in(x)
        entry, nfe = self._entry_times(inside)
        straight = self._straight_back(inside, entry)
        near = self.first.backward(straight.x[-1])
        return Inverse(
            torch.cat([straight.t, _by_point(near)]),
            torch.cat([straight.x, near.x]),
            nfe + straight.nfe + near.nfe,
            (self.forward(near.x[-1]) - x).norm(dim=-1),
        )

    def way_left(self, t: Any) -> Any:
        """Tell how much of a translation that parts the clouds is left along paths.

        Parameters
        ----------
        t : array of shape (n_states, n)
            Times of `path`.

        Returns
        -------
        array of shape (n_states, n)
            1 at the source, 0 at the target.
        """
        left = 1 - t
        n = self.first.n_states
        left[:n] = self.first.way_left(t[:n])
        entered = left[n].clip(1e-300)
        left[n:] *= left[n - 1] / entered
        return left

    def _straight_back(self, x: Tensor, entry: Tensor) -> Inverse:
        guide = None if self.first.hull is None else self.network
        return invert(self.velocity, x, self._grid(entry), guide=guide)

    def _entry_times(self, x: Tensor) -> tuple[Tensor, int]:
        """Find by secants when points that have arrived entered, at so many evaluations."""
        if self.predictor is None:
            return self.switch_times(x), 0
        t, nfe = x.new_full((len(x),), self.first.t_end), 0
        low, high = torch.zeros_like(t), torch.ones_like(t)  # times predicted are between
        before, missed_before = t.clone(), torch.full_like(t, torch.inf)
        rows = torch.arange(len(x), device=x.device)
        for number in range(_N_ENTRIES):
            back = self._straight_back(x[rows], t[rows])
            now, missed = t[rows], self.switch_times(back.x[-1]) - t[rows]
            nfe += back.nfe + 1
            low[rows] = torch.where(missed > 0, now, low[rows])
            high[rows] = torch.where(missed > 0, high[rows], now)
            middle = (low[rows] + high[rows]) / 2
            secant = now - missed * (now - before[rows]) / (missed - missed_before[rows])
            good = (secant > low[rows]) & (secant < high[rows])
            good &= missed.abs() < missed_before[rows].abs() / 2
            before[rows], missed_before[rows] = now, missed
            is_open = missed.abs() > _ENTRY_TOL[t.dtype]
            most = 2.0 ** (number - 4)  # so that a near one is found first
            step = (torch.where(good, secant, middle) - now).clamp(-most, most)
            t[rows] = torch.where(is_open, now + step, now)
            rows = rows[is_open]
            if not len(rows):
                break
        return t, nfe

    def _draw_in(self, x: Tensor) -> Tensor:
        """Bring ends that nothing leads to, but for rounding, to where the flow may end."""
        return x if self.first.hull is None else self.first.hull.to(x).draw_in(x)

    @property
    def _n_predictions(self) -> int:
        return int(self.predictor is not None)

    def n_steps_from(self, start: Tensor) -> int:
        """Count the steps of the straight flow that points need.

        Parameters
        ----------
        start : Tensor of shape (n,)
            Times at which they enter it.

        Returns
        -------
        int
            The most that any of them needs.
        """
        if self.step_size is None:
            return self.n_steps
        rounding = 4 * torch.finfo(start.dtype).eps
        to_go = 1 - float(start.min()) - rounding  # which is no step of its own
        return max(1, math.ceil(to_go / self.step_size))

    def _grid(self, start: Tensor) -> Tensor:
        """Lay out times (n_steps + 1, n) from each point's start (n,) to 1."""
        if self.step_size is None:
            done = torch.linspace(0, 1, self.n_steps + 1, dtype=start.dtype, device="cpu")
            return torch.lerp(start, torch.ones_like(start), done.to(start.device)[:, None])
        n_steps = self.n_steps_from(start)
        steps = torch.arange(n_steps + 1, dtype=start.dtype, device=start.device)
        grid = (start + self.step_size * steps[:, None]).clamp(max=1)
        grid[-1] = 1  # which rounding may have missed
        return grid


@dataclass(frozen=True, eq=False)
class TwoPhases:
    """Learn a Sinkhorn flow, then the straight flow that takes over from it: Algorithm 3.

    Parameters
    ----------
    first : SinkhornFlow
        The first phase.
    network : NetworkSpec
        What the network of the straight flow is to be like.
    straight_from, coupling, switch, n_straight_steps, straight_step_size
        As in :class:`~sknsgf.NSGFPlusPlus`.
    max_iter, learning_rate, batch_size
        As in :class:`~sknsgf.NSGFPlusPlus`.

    Raises
    ------
    TypeError, ValueError
        If a value cannot be used.

    See Also
    --------
    sknsgf.NSGFPlusPlus : The same for arrays, in any units.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithms 3 and 4.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.algorithms import (
    ...     Ends, GaussianNoise, NetworkSpec, Run, SinkhornFlow, TwoPhases)
    >>> y = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    >>> spec = NetworkSpec(2, hidden_layer_sizes=(32, 32))
    >>> first = SinkhornFlow(spec, blur=0.1, n_steps=5, t_end=0.5, max_iter=50)
    >>> learned = TwoPhases(first, spec, max_iter=50).learn(Ends(GaussianNoise(2), y), Run(seed=0))
    >>> learned.map.forward(torch.randn(7, 2)).shape
    torch.Size([7, 2])
    """

    first: SinkhornFlow
    network: NetworkSpec
    straight_from: str = "flow"
    coupling: str = "auto"
    switch: str = "predict"
    n_straight_steps: int = 20
    straight_step_size: float | None = None
    max_iter: int = 3000
    learning_rate: float | str = "auto"
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Raise unless the values can be used."""
        check_counts(self, "n_straight_steps", "max_iter", "batch_size")
        check_kind(self.first, "first", SinkhornFlow)
        check_kind(self.network, "network", NetworkSpec)
        check_lengths(self, "learning_rate")
        if self.straight_step_size is not None:
            check_share(self.straight_step_size, "straight_step_size", "(0, 1]")
        check_choice(self.straight_from, "straight_from", ("flow", "source"))
        check_choice(self.coupling, "coupling", ("auto", "independent", "minibatch", "large"))
        check_choice(self.switch, "switch", ("predict", "fixed"))

    @property
    def predicts(self) -> bool:
        """Whether a time predictor is trained."""
        return self.straight_from == "source" and self.switch == "predict"

    def stages(self, ends: Ends) -> int:
        """Count the stages of a run.

        Parameters
        ----------
        ends : Ends
            Where flows start and end.

        Returns
        -------
        int
            The first phase, the straight flow, and the time predictor where there is one.
        """
        return 2 + self.predicts

    @undisturbed
    def learn(self, ends: Ends, run: Run, start: TwoPhaseMap | None = None) -> Learned:
        """Learn one phase after the other, and return the map.

        Parameters
        ----------
        ends : Ends
            Where flows start and end.
        run : Run
            Seed, device and who is told.
        start : TwoPhaseMap, default=None
            A map to go on from.

        Returns
        -------
        Learned
            A :class:`TwoPhaseMap`, histories and statuses of "sinkhorn_flow", "straight_flow" and,
            where used, "time_predictor".

        Raises
        ------
        TypeError, ValueError
            If a network cannot be used, is of another kind than that of `start` or of another
            width than the rows, or there are too few rows to hold any out.
        """
        check_width(self.network, ends)
        check_kind(run, "run", Run)
        network: Any = self.network.make(run.stream("network"))
        rate = self.choose_rate(network)
        predictor = self._make_predictor(run, start)
        if start is not None:
            network = go_on_with(start.network, network)
        ends = replace(ends, source=self.spare_starts(ends.source)[0])
        with run.nested("sinkhorn_flow", self.first.stages(ends)) as inner:
            before = None if start is None else start.first
            learned = self.first.learn(ends, inner, before)
        teacher, unseen = self._make_lines(ends, learned.map, run)
        if start is None:
            t, x, u = first_records(teacher, _N_STATISTICS)
            line_starts = x - t.unsqueeze(-1) * u
            network = StandardisedVelocity(network, line_starts, line_starts + u, 1.0, u)
        make_map = partial(self._make_map, learned.map)
        histories, statuses = dict(learned.histories), dict(learned.statuses)
        rates = learned.learning_rates | {_NAME: rate}
        network, histories[_NAME] = run.train(
            "straight",
            self._begin(network.to(run.device), rate),
            teacher,
            velocity_loss(network),
            unseen,
            lambda network: None if predictor is not None else make_map(network, None),
        )
        if predictor is not None:
            rates["time_predictor"] = self.choose_rate(predictor)
            predictor, histories["time_predictor"] = run.train(
                "predictor",
                self._begin(predictor.to(run.device), rates["time_predictor"]),
                teacher,
                lambda network, records: time_prediction_loss(network, records.t, records.x),
                unseen,
                partial(make_map, network),
            )
        statuses[_NAME] = teacher.status
        return Learned(make_map(network, predictor), histories, statuses, rates)

    def choose_rate(self, network: nn.Module) -> float:
        """Choose the peak learning rate of a network of the second phase.

        Parameters
        ----------
        network : Module
            What is trained.

        Returns
        -------
        float
            The one given, or the one that suits the network.
        """
        return suit_rate(self.learning_rate, network, STRAIGHT_RATE)

    def measure_switch_times(self, ends: Ends, run: Run, learned: TwoPhaseMap) -> Tensor:
        """Tell when points drawn from the source enter the straight flow.

        Predicted times are those of rows that nothing was fitted to, a tenth of the source, where
        it has rows enough.

        Parameters
        ----------
        ends : Ends
            Where flows start and end, as given to `learn`.
        run : Run
            As given to `learn`.
        learned : TwoPhaseMap
            The map.

        Returns
        -------
        Tensor of shape (n,)
            Times.
        """
        _, source = self.spare_starts(ends.source)
        n = min(_N_SWITCHES, len(source.x)) if isinstance(source, Rows) else _N_SWITCHES
        x = source.draw(n, seeded_generator(run.stream("switch times"), 0)).to(run.device)
        return learned.switch_times(learned.first.forward(x))

    def spare_starts(self, source: Source) -> tuple[Source, Source]:
        """Spare a tenth of the rows of a source for predicted switch times.

        Parameters
        ----------
        source : Rows, GaussianNoise or object with ``draw(n, generator)``
            Where flows start.

        Returns
        -------
        trained_on, judged_by : objects of the same kind
            The same one twice, where nothing is predicted, rows are few or points are drawn.
        """
        if self.predicts and isinstance(source, Rows) and len(source.x) >= _SPARE_ROWS:
            kept, spared = (Rows(x) for x in split(source.x))
            return kept, spared
        return source, source

    def _make_predictor(self, run: Run, start: TwoPhaseMap | None) -> nn.Module | None:
        if not self.predicts:
            return None
        predictor = self.network.make_predictor(run.stream("predictor"))
        before = start and start.predictor
        return predictor if before is None else go_on_with(before, predictor)

    def _begin(self, network: nn.Module, rate: float) -> Training:
        return Training(network, max_iter=self.max_iter, learning_rate=rate, ema_decay=_EMA_DECAY)

    def _make_map(
        self, first: SinkhornMap, network: nn.Module, predictor: nn.Module | None
    ) -> TwoPhaseMap:
        return TwoPhaseMap(
            first,
            network,
            predictor,
            switch=0.0 if self.straight_from == "flow" else self.first.t_end,
            n_steps=self.n_straight_steps,
            step_size=self.straight_step_size,
        )

    def _make_lines(
        self, ends: Ends, first: SinkhornMap, run: Run
    ) -> tuple[Teacher, Records | None]:
        """Return what draws records on lines, and records on lines between rows held out."""
        kept, held_out = ends.hold_out(self.first.early_stopping, self.max_iter)
        n_starts = min(_N_STARTS, math.ceil(self.max_iter * self.batch_size / _LINES_A_START))
        teacher = self._make_teacher(kept, n_starts, first, run, "lines")
        if held_out is None:
            return teacher, None
        unseen = self._make_teacher(held_out, _N_UNSEEN, first, run, "held-out lines")
        return teacher, first_records(unseen, _N_UNSEEN)

    def _make_teacher(
        self, ends: Ends, n_starts: int, first: SinkhornMap, run: Run, name: str
    ) -> LineTeacher:
        seed = run.stream(name)
        start = ends.source
        if self.straight_from == "flow":
            n_starts = len(start.x) if isinstance(start, Rows) else n_starts
            x = start.draw(n_starts, seeded_generator(stream(seed, "starts"), 0))
            moved = [first.forward(part.to(run.device)).cpu() for part in x.split(_CHUNK)]
            start = Rows(torch.cat(moved))
        return LineTeacher(self._make_pairs(start, ends.target, seed), stream(seed, "times"))

    def _make_pairs(self, start: Source, target: Tensor, seed: int) -> Pairs:
        n, coupling = self.batch_size, self.coupling
        if coupling == "auto":
            coupling = "large" if self.straight_from == "flow" else "independent"
        draws = (
            by_number(start, stream(seed, "source")),
            by_number(Rows(target), stream(seed, "target")),
        )
        if coupling == "independent":
            return IndependentPairs(*draws, n)
        if coupling == "minibatch":
            return CoupledPairs(*draws, n, seed=seed, blur=self.first.blur)
        n_source = len(start.x) if isinstance(start, Rows) else _N_LARGE
        n_target = min(_N_LARGE, len(target))
        return LargePairs(
            *draws,
            seed=seed,
            batch_size=n,
            n_source=max(n, min(_N_LARGE, n_source)),
            n_target=n_target,
            fixed_target=n_target == len(target),
        )


def _by_point(way: Solution | Inverse) -> Tensor:
    """Return times with a column for every point."""
    return way.t[:, None].expand(-1, way.x.shape[1])
