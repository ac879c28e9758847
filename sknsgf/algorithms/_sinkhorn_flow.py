"""Neural Sinkhorn Gradient Flow: Algorithms 1 and 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sknsgf._arguments import check_choice, check_share
from sknsgf._random import seeded_generator, stream
from sknsgf._surroundings import undisturbed, without_autocast
from sknsgf.algorithms._checks import check_counts, check_kind, check_lengths, check_width
from sknsgf.algorithms._run import Learned, Run, velocity_loss
from sknsgf.flow import (
    Ends,
    Hull,
    PoolTeacher,
    Records,
    Rows,
    Schedule,
    Start,
    TrajectoryPool,
    by_number,
    constant_schedule,
    first_records,
    simulate_by_number,
    straight_schedule,
)
from sknsgf.networks import (
    NetworkSpec,
    StandardisedVelocity,
    go_on_with,
    suit_rate,
)
from sknsgf.ode import Inverse, Solution, Volumes, integrate, invert, volumes
from sknsgf.training import Training

_TOL = 5e-3  # marginal error of simulations; the network's own error is several times larger
_MAX_ITER = 50
_REUSE = 2  # times a record is drawn, on average, in a full run
_RECORDS_A_ROW = 500  # at most: more teach nothing where rows are few
_POOL_ENTRIES = 2**28  # numbers in the largest pool that is chosen unasked: 1 GB
_N_HELD_OUT_RECORDS = 4096
_N_STATISTICS = 16384  # records that the scale of the velocities is measured on
_NAME = "sinkhorn_flow"


@dataclass(frozen=True, eq=False)
class SinkhornMap:
    """Points moved along a learned Sinkhorn flow: Algorithm 2.

    Parameters
    ----------
    network : Module
        The velocity, called as ``network(t, x)``.
    hull : Hull or None
        Where flows may end; None holds nothing.
    t_last : float
        The last time that the network has learned, the start of the last simulated step.
    t_end : float
        The end of the flow.
    pace : float or None
        Flow time per unit of network time where it is constant; None on the straight schedule.
    n_steps : int
        Steps to take. The last begins no later than `t_last`; all others are equal.
    method : {"euler", "heun", "rk4"}, default="euler"
        How they are taken.

    Examples
    --------
    >>> import torch
    >>> half = SinkhornMap(lambda t, x: 4 - x, None, t_last=0, t_end=1, pace=None, n_steps=1)
    >>> half.forward(torch.tensor([[1.0]]))
    tensor([[4.]])
    """

    network: nn.Module | Callable[[Tensor, Tensor], Tensor]
    hull: Hull | None
    t_last: float
    t_end: float
    pace: float | None
    n_steps: int
    method: str = "euler"

    @property
    def n_states(self) -> int:
        """States that a path has."""
        return self.n_steps + 1

    @without_autocast()
    def velocity(self, t: Tensor, x: Tensor) -> Tensor:
        """Evaluate the field, held past its last time and to velocities that lead to the target.

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
        return self._hold(t, x, self._free_velocity(t, x))

    def _free_velocity(self, t: Tensor, x: Tensor) -> Tensor:
        return self.network(t.clamp(max=self.t_last), x)

    def _hold(self, t: Tensor, x: Tensor, u: Tensor) -> Tensor:
        if self.hull is None:
            return u
        t_left = 1 - t.clamp(max=self.t_last).unsqueeze(-1)
        return self.hull.to(x).hold(x, u, t_left if self.pace is None else 1 / self.pace)

    def way_left(self, t: Any) -> Any:
        """Tell how much of a translation that parts the clouds is left at these times.

        Parameters
        ----------
        t : float or array
            Times.

        Returns
        -------
        float or array
            1 at the source, 0 at the target.
        """
        if self.pace is None:
            return 1 - t
        step = self.t_end - self.t_last
        return max(1 - self.pace * step, 0.0) ** (t / step)

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
        grid = self._grid(x)
        end = integrate(self.velocity, x, grid, method=self._methods, all_states=False).x[-1]
        return self._draw_in(end)

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
            Times, states, and the number of function evaluations.
        """
        way = integrate(self.velocity, x, self._grid(x), method=self._methods)
        way.x[-1] = self._draw_in(way.x[-1])
        return way

    @undisturbed
    @torch.no_grad()
    def backward(self, x: Tensor) -> Inverse:
        """Return the way back.

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
        # The field that is held leads back from the hull in small steps alone.
        guide = None if self.hull is None else self._free_velocity
        grid = self._grid(x)
        back = invert(self.velocity, inside, grid, method=self._methods, guide=guide)
        return back._replace(error=back.error + (inside - x).norm(dim=-1))

    @undisturbed
    def volumes(self, states: Tensor) -> Volumes:
        """Measure how volumes change along the flow.

        Parameters
        ----------
        states : Tensor of shape (n_states, n, d)
            States from the start to the end.

        Returns
        -------
        Volumes
            Of all steps together.
        """
        return volumes(self.velocity, states, self._grid(states), method=self._methods)

    @undisturbed
    @torch.no_grad()
    def is_held(self, x: Tensor) -> Tensor:
        """Tell which points would move otherwise if velocities were not held.

        Parameters
        ----------
        x : Tensor of shape (n, d)
            Points of the source.

        Returns
        -------
        bool Tensor of shape (n,)
            Whether a velocity was changed anywhere on the way.
        """
        held = torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            free = self._free_velocity(t, x)
            u = self._hold(t, x, free)
            held.logical_or_((u != free).any(-1))
            return u

        integrate(velocity, x, self._grid(x), method=self._methods, all_states=False)
        return held

    def _draw_in(self, x: Tensor) -> Tensor:
        """Bring ends that nothing leads to, but for rounding, to where the flow may end."""
        lands = self.t_end == 1 and self.pace is None
        return x if self.hull is None or not lands else self.hull.to(x).draw_in(x)

    def _grid(self, x: Tensor) -> Tensor:
        # One simulated step is one straight step, however many are asked for.
        n = self.n_steps if self.t_last > 0 else 1
        grid = torch.linspace(0, self.t_end, n + 1, dtype=x.dtype, device="cpu")
        if grid[-2] > self.t_last:
            grid[:-1] = torch.linspace(0, self.t_last, n, dtype=x.dtype, device="cpu")
        return grid.to(x.device)

    @property
    def _methods(self) -> list[str]:
        """How steps are taken: past the last simulated time the flow is one straight step."""
        n = self.n_steps if self.t_last > 0 else 1
        return [self.method] * (n - 1) + ["euler"]


@dataclass(frozen=True, eq=False)
class SinkhornFlow:
    """Learn the velocity of the Sinkhorn gradient flow from simulated particles: Algorithm 1.

    Parameters
    ----------
    network : NetworkSpec
        What the velocity network is to be like.
    blur : float
        Resolution of the Sinkhorn divergence, in the units of the clouds.
    step_size, n_steps, n_particles, n_targets, n_simulations, schedule, t_end, pool_dir
        As in :class:`~sknsgf.NSGFSampler`.
    max_iter, learning_rate, batch_size, ema_decay, early_stopping
        As in :class:`~sknsgf.NSGFSampler`.
    perceptron_rate : float, default=1e-2
        The learning rate that "auto" is where the network is a perceptron.

    Raises
    ------
    TypeError, ValueError
        If a value cannot be used.

    See Also
    --------
    sknsgf.NSGFSampler : The same for arrays, in any units.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.algorithms import Ends, NetworkSpec, Rows, Run, SinkhornFlow
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(500, 2, generator=generator)
    >>> y = torch.rand(500, 2, generator=generator) + 3
    >>> flow = SinkhornFlow(NetworkSpec(2), blur=0.1, max_iter=200)
    >>> learned = flow.learn(Ends(Rows(x), y), Run(seed=0))
    >>> moved = learned.map.forward(x)
    >>> bool((moved.mean(0) - y.mean(0)).abs().max() < 0.1)
    True
    """

    network: NetworkSpec
    blur: float
    step_size: float | None = None
    n_steps: int = 10
    n_particles: int = 256
    n_targets: int | None = None
    n_simulations: int | None = None
    schedule: str = "straight"
    t_end: float = 1.0
    pool_dir: str | Path | None = None
    max_iter: int = 3000
    learning_rate: float | str = "auto"
    batch_size: int = 256
    ema_decay: float = 0.995
    early_stopping: bool | str = "auto"
    perceptron_rate: float = 1e-2

    def __post_init__(self) -> None:
        """Raise unless the values can be used."""
        check_kind(self.network, "network", NetworkSpec)
        check_counts(
            self, "n_steps", "n_particles", "n_targets", "n_simulations", "max_iter", "batch_size"
        )
        check_lengths(self, "blur", "step_size", "learning_rate", "perceptron_rate")
        if self.step_size is not None and self.step_size >= 2:
            raise ValueError(
                f"step_size must be below 2, got {self.step_size!r}: a step of 1 leads to where a "
                "particle is drawn to, and steps of 2 and more lead ever further past it."
            )
        check_choice(self.schedule, "schedule", ("straight", "constant"))
        check_choice(self.early_stopping, "early_stopping", ("auto", True, False))
        check_share(self.t_end, "t_end", "(0, 1]")
        check_share(self.ema_decay, "ema_decay", "[0, 1)")

    def stages(self, ends: Ends) -> int:
        """Count the stages of a run.

        Parameters
        ----------
        ends : Ends
            Where flows start and end.

        Returns
        -------
        int
            Simulation, that of rows held out where there is one, and training.
        """
        return 2 if ends.hold_out(self.early_stopping, self.max_iter)[1] is None else 3

    @undisturbed
    def learn(self, ends: Ends, run: Run, start: SinkhornMap | None = None) -> Learned:
        """Simulate, train, and return the map.

        Parameters
        ----------
        ends : Ends
            Where flows start and end.
        run : Run
            Seed, device and who is told.
        start : SinkhornMap, default=None
            A map to go on from.

        Returns
        -------
        Learned
            A :class:`SinkhornMap`, the history of "sinkhorn_flow", and the status of the
            simulations.

        Raises
        ------
        TypeError, ValueError
            If the network cannot be used, is of another kind than that of `start` or of another
            width than the rows, or there are too few rows to hold any out.
        """
        check_width(self.network, ends)
        check_kind(run, "run", Run)
        kept, held_out = ends.hold_out(self.early_stopping, self.max_iter)
        network: Any = self.network.make(run.stream("network"))
        rate = self.choose_rate(network)
        if start is not None:
            network = go_on_with(start.network, network)
        pool = self._simulate("simulate", kept, self._choose_n_simulations(kept), run)
        unseen = None if held_out is None else self._draw_unseen(held_out, run)
        teacher = PoolTeacher(pool, self.batch_size, run.stream("batches"), _TOL)
        if start is None:
            first, last = (pool.positions[:, k].flatten(0, 1) for k in (0, -1))
            u = first_records(teacher, _N_STATISTICS).u
            network = StandardisedVelocity(network, first, last, self.t_end, u)
        hull = start.hull.joined(ends.target) if start and start.hull else Hull.of(ends.target)
        make_map = partial(self._make_map, hull)
        network, history = run.train(
            "train",
            self._begin(network.to(run.device), rate),
            teacher,
            velocity_loss(network),
            unseen,
            make_map,
        )
        status = teacher.status
        return Learned(make_map(network), {_NAME: history}, {_NAME: status}, {_NAME: rate})

    def choose_rate(self, network: nn.Module) -> float:
        """Choose the peak learning rate.

        Parameters
        ----------
        network : Module
            What is trained.

        Returns
        -------
        float
            The one given, or the one that suits the network.
        """
        return suit_rate(self.learning_rate, network, self.perceptron_rate)

    def _begin(self, network: nn.Module, rate: float) -> Training:
        return Training(
            network, max_iter=self.max_iter, learning_rate=rate, ema_decay=self.ema_decay
        )

    def _make_map(self, hull: Hull, network: nn.Module) -> SinkhornMap:
        return SinkhornMap(
            network,
            hull,
            t_last=self.t_end * (self.n_steps - 1) / self.n_steps,
            t_end=self.t_end,
            pace=None if self.schedule == "straight" else self.n_steps * self._choose_step_size(),
            n_steps=self.n_steps,
        )

    def _simulate(self, stage: str, ends: Ends, n_simulations: int, run: Run) -> TrajectoryPool:
        n_particles = self._choose_n_particles(ends)
        n_targets = min(self.n_targets or n_particles, len(ends.target))
        seed = run.stream(stage)
        draw_source = by_number(ends.source, stream(seed, "source"))
        draw_target = by_number(Rows(ends.target), stream(seed, "target"))
        schedule_seed = stream(seed, "schedule")

        def draw(number: int) -> Start:
            schedule = self._make_schedule(seeded_generator(schedule_seed, number))
            return Start(
                schedule, draw_source(n_particles, number), draw_target(n_targets, number)
            )

        with run.watch.stage(stage, n_simulations) as advance:
            return simulate_by_number(
                draw,
                n_simulations=n_simulations,
                shape=(self.n_steps, n_particles, n_targets, ends.target.shape[1]),
                blur=self.blur,
                tol=_TOL,
                max_iter=_MAX_ITER,
                device=run.device,
                n_jobs=run.n_jobs,
                directory=self.pool_dir,
                progress=advance,
            )

    def _draw_unseen(self, ends: Ends, run: Run) -> Records:
        """Simulate a tenth of what a full run wants, or as much as is looked at."""
        n_records = min(self._n_records_wanted() / 10, _N_HELD_OUT_RECORDS)
        stage = "simulate held-out rows"
        pool = self._simulate(stage, ends, self._count_simulations(ends, n_records), run)
        return pool.draw(_N_HELD_OUT_RECORDS, seeded_generator(run.stream("held-out records"), 0))

    def _choose_n_particles(self, ends: Ends) -> int:
        return min(int(self.n_particles), ends.n_rows)

    def _choose_n_simulations(self, ends: Ends) -> int:
        if self.n_simulations is not None:
            return self.n_simulations
        n_records = min(self._n_records_wanted(), _RECORDS_A_ROW * ends.n_rows)
        positions = self._choose_n_particles(ends) * (int(self.n_steps) + 1)
        largest = _POOL_ENTRIES // (positions * ends.target.shape[1])
        return max(1, min(self._count_simulations(ends, n_records), largest))

    def _n_records_wanted(self) -> float:
        return float(self.max_iter) * self.batch_size / _REUSE

    def _count_simulations(self, ends: Ends, n_records: float) -> int:
        return math.ceil(n_records / (self._choose_n_particles(ends) * int(self.n_steps)))

    def _make_schedule(self, generator: torch.Generator) -> Schedule:
        if self.schedule == "straight":
            return straight_schedule(self.n_steps, self.t_end, generator)
        return constant_schedule(self.n_steps, self._choose_step_size())

    def _choose_step_size(self) -> float:
        return self.step_size or 1 - 0.01 ** (1 / self.n_steps)
