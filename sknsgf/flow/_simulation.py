"""Simulated particles: the Sinkhorn gradient flow on many independent minibatches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from joblib import Parallel, delayed, effective_n_jobs
from torch import Tensor

from sknsgf._arguments import check_callable, check_positive, check_size, check_tensor, shown
from sknsgf._random import seeded_generator
from sknsgf._surroundings import undisturbed
from sknsgf.flow._clouds import Cloud
from sknsgf.flow._pool import Trajectories, TrajectoryPool
from sknsgf.flow._schedule import Schedule
from sknsgf.flow._velocity import sinkhorn_velocity
from sknsgf.sinkhorn import check_clouds, temperature

DrawPoints = Callable[[int, torch.Generator], Tensor]
MakeSchedule = Callable[[torch.Generator], Schedule]

_BATCH_ENTRIES = {"cpu": 2**19, "cuda": 2**26}  # kernel entries that keep each device busy


def follow_sinkhorn_flow(
    x: Tensor,
    y: Tensor,
    step_sizes: Tensor,
    *,
    blur: float,
    tol: float = 1e-3,
    max_iter: int = 200,
) -> Trajectories:
    """Move particles along the Sinkhorn gradient flow by explicit Euler steps.

    Parameters
    ----------
    x : Tensor of shape (B, n, d)
        Particles at the start.
    y : Tensor of shape (B, m, d)
        Targets.
    step_sizes : Tensor of shape (n_steps,) or (B, n_steps)
        Flow time of each step.
    blur, tol, max_iter
        As in :func:`sinkhorn_velocity`.

    Returns
    -------
    Trajectories
        Positions from start to end, with the solver's status at every step.

    Raises
    ------
    TypeError, ValueError
        As in :func:`sinkhorn_velocity`, or if `step_sizes` are not finite numbers of that shape.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[0.0], [1.0]]])
    >>> follow_sinkhorn_flow(x, x + 4, torch.tensor([0.5]), blur=0.1).positions[0, -1]
    tensor([[2.],
            [3.]])
    """
    check_clouds(x, y)
    fits = isinstance(step_sizes, Tensor) and step_sizes.ndim and step_sizes.numel()
    fits = fits and step_sizes.shape[:-1] in ((), x.shape[:1])
    if not fits or not step_sizes.isfinite().all():
        raise ValueError(
            "step_sizes must be a tensor of finite numbers, of shape (n_steps,) or (B, n_steps), "
            f"got {shown(step_sizes)}."
        )
    step_sizes = step_sizes.to(x).expand(len(x), -1)
    positions, errors, converged = [x], [], []
    state, step_size = None, None
    for next_step in step_sizes.T:
        flow = sinkhorn_velocity(
            x, y, blur=blur, tol=tol, max_iter=max_iter, state=state, step_size=step_size
        )
        x = x + next_step.view(-1, 1, 1) * flow.velocity
        state, step_size = flow.state, next_step
        positions.append(x)
        errors.append(flow.marginal_error)
        converged.append(flow.converged)
    return Trajectories(*(torch.stack(parts, 1) for parts in (positions, errors, converged)))


def simulate_sinkhorn_flow(
    draw_source: DrawPoints,
    draw_target: DrawPoints,
    make_schedule: MakeSchedule,
    *,
    n_particles: int,
    n_targets: int,
    n_simulations: int,
    blur: float,
    tol: float = 1e-3,
    max_iter: int = 200,
    seed: int = 0,
    device: torch.device | str = "cpu",
    n_jobs: int | None = None,
    directory: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> TrajectoryPool:
    """Simulate the Sinkhorn gradient flow on many independent minibatches.

    Parameters
    ----------
    draw_source, draw_target : callable (n, generator) -> Tensor of shape (n, d)
        Draw a minibatch, float32, on the CPU. Called for one simulation after the other, in
        their order.
    make_schedule : callable (generator) -> Schedule
        Times and step sizes of one simulation.
    n_particles, n_targets : int
        Sizes of the two minibatches of a simulation.
    n_simulations : int
        Number of simulations.
    blur, tol, max_iter
        As in :func:`sinkhorn_velocity`.
    seed : int, default=0
        Simulation i draws from a generator seeded by (seed, i).
    device : torch.device, default="cpu"
        Where to compute. The pool itself is kept in the memory of the host.
    n_jobs : int, optional
        Batches of simulations computed at a time, through joblib. The result is the same to
        the bit whatever it is.
    directory : path, optional
        Where to keep the positions in a memory-mapped file instead of in memory.
    progress : callable (int), optional
        Told how many more simulations are done.

    Returns
    -------
    TrajectoryPool
        All positions and times.

    Raises
    ------
    TypeError, ValueError
        If a number or what is drawn is not as described, or as in :func:`sinkhorn_velocity`.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.flow import straight_schedule
    >>> noise = lambda n, generator: torch.randn(n, 2, generator=generator)
    >>> pool = simulate_sinkhorn_flow(
    ...     noise, lambda n, g: noise(n, g) + 3, lambda g: straight_schedule(5, generator=g),
    ...     n_particles=32, n_targets=32, n_simulations=4, blur=0.1)
    >>> len(pool)  # 4 simulations of 5 steps of 32 particles
    640
    """
    check_callable(make_schedule, "make_schedule", "a generator")
    source = _Checked.of(draw_source, "draw_source", n_particles, "n_particles")
    target = _Checked.of(draw_target, "draw_target", n_targets, "n_targets")
    generator = seeded_generator(seed, 0)
    n_steps, d = len(make_schedule(generator).step_sizes), target.draw(1, generator).shape[-1]

    def draw(number: int) -> Start:
        generator = seeded_generator(seed, number)
        schedule = make_schedule(generator)
        return Start(schedule, source(generator, d), target(generator, d))

    return simulate_by_number(
        draw,
        n_simulations=n_simulations,
        shape=(n_steps, n_particles, n_targets, d),
        blur=blur,
        tol=tol,
        max_iter=max_iter,
        device=device,
        n_jobs=n_jobs,
        directory=directory,
        progress=progress,
    )


class _Checked(NamedTuple):
    """Draws as many points as it is to, of the width of the targets, or says that it does not."""

    draw: DrawPoints
    name: str
    n: int

    @classmethod
    def of(cls, draw: Any, name: str, n: Any, size: str) -> _Checked:
        check_callable(draw, name, "a number and a generator")
        return cls(draw, name, check_size(n, size))

    def __call__(self, generator: torch.Generator, d: int) -> Cloud:
        x = self.draw(self.n, generator)
        check_tensor(x, f"what {self.name} returns")
        if x.shape != (self.n, d):
            raise ValueError(
                f"what {self.name}(n, generator) returns must have shape {(self.n, d)}, got "
                f"{tuple(x.shape)}."
            )
        return Cloud(x)


class Start(NamedTuple):
    """Where one simulation starts: its times and steps, its particles and their targets."""

    schedule: Schedule
    source: Cloud
    target: Cloud

    @staticmethod
    def stacked(starts: Iterable[Start]) -> tuple[Tensor, ...]:
        """Return times, steps, particles and targets of several simulations."""
        parts = [(*start.schedule, start.source.x, start.target.x) for start in starts]
        return tuple(torch.stack(part) for part in zip(*parts, strict=True))


@undisturbed
def simulate_by_number(
    draw: Callable[[int], Start],
    *,
    n_simulations: int,
    shape: tuple[int, int, int, int],
    blur: float,
    tol: float,
    max_iter: int,
    device: torch.device | str = "cpu",
    n_jobs: int | None = None,
    directory: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> TrajectoryPool:
    """Simulate the flows whose starts are drawn by number.

    Parameters
    ----------
    draw : callable (number) -> Start
        Draws where a simulation starts, on the CPU. Called in the order of the numbers, as a
        source of the user's may have a state.
    n_simulations : int
        How many: those of the numbers below it.
    shape : tuple (n_steps, n_particles, n_targets, d)
        Sizes of one.
    blur, tol, max_iter, device, n_jobs, directory, progress
        As in :func:`simulate_sinkhorn_flow`.

    Returns
    -------
    TrajectoryPool
        All positions and times.
    """
    n_steps, n_particles, n_targets, d = shape
    check_size(n_simulations, "n_simulations")
    temperature(blur)
    check_positive(tol, "tol")
    pool = TrajectoryPool.allocate(
        (n_simulations, n_steps + 1, n_particles, d), directory=directory
    )
    device = torch.device(device)
    # A function of the problem alone, never of n_jobs: results must not depend on it.
    size = min(64, max(1, _BATCH_ENTRIES.get(device.type, 2**22) // (n_particles * n_targets)))
    batches = [
        range(n_simulations)[first : first + size] for first in range(0, n_simulations, size)
    ]
    solver: dict[str, Any] = {"blur": blur, "tol": tol, "max_iter": max_iter}
    simulate = delayed(partial(_simulate_batch, device=device, **solver))
    with _one_thread, Parallel(n_jobs=n_jobs, prefer="threads") as parallel:
        n_together = effective_n_jobs(n_jobs)
        for first in range(0, len(batches), n_together):
            wave = batches[first : first + n_together]
            drawn = [Start.stacked(map(draw, batch)) for batch in wave]
            moved = parallel(simulate(*clouds) for _, *clouds in drawn)
            for batch, (times, *_), result in zip(wave, drawn, moved, strict=True):
                pool.store(slice(batch.start, batch.stop), times, result)
                if progress is not None:
                    progress(len(batch))
    return pool


def _simulate_batch(
    step_sizes: Tensor, x: Tensor, y: Tensor, device: torch.device, **solver: Any
) -> Trajectories:
    with _one_thread:
        return follow_sinkhorn_flow(x.to(device), y.to(device), step_sizes, **solver)


class _OneThread:
    """Compute on one thread, so that sums are in the same order however many jobs run.

    The number of threads belongs to the process: of several users at a time the first to
    come sets it and the last to go restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_users = 0
        self._n_threads = 1

    def __enter__(self) -> None:
        with self._lock:
            if self._n_users == 0:
                self._n_threads = torch.get_num_threads()
            self._n_users += 1
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_users -= 1
            if self._n_users == 0:
                torch.set_num_threads(self._n_threads)


_one_thread = _OneThread()
