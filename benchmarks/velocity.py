"""Time one velocity of the Sinkhorn flow, beside the peers and at their accuracy.

Every method gets the same states of one trajectory, in one process, in turns: the trajectory
that ours follows, as in a simulation. Errors are relative to a float64 velocity converged as
far as rounding lets it. The times of ours include its cold start; its warm start is the state
it left at the step before. Ratios are of the times on the states that both methods finished.

    python benchmarks/velocity.py --cases A,B --data folder-with-mnist.npz --json out.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from two_dimensional import machine

from sknsgf.flow import sinkhorn_velocity


class Case(NamedTuple):
    """Clouds, resolution and schedule of one comparison."""

    n: int
    dim: int
    blur: float
    n_problems: int
    images: str | None = None

    @property
    def schedule(self) -> tuple[int, float]:
        """Number and size of the steps."""
        if self.n >= 10_000:
            return 3, 0.2
        return (10, 0.3) if self.images else (20, 0.2)


CASES = {
    "A": Case(256, 2, 0.5, 8),
    "B": Case(1024, 2, 0.5, 2),
    "C": Case(1024, 2, 0.1, 2),
    "D": Case(256, 784, 0.5, 8, "mnist.npz"),
    "E": Case(256, 784, 1.0, 8, "mnist.npz"),
    "F": Case(128, 3072, 1.0, 8, "cifar10_small.npz"),
    "G": Case(128, 3072, 2.0, 8, "cifar10_small.npz"),
    "10000x2": Case(10_000, 2, 0.5, 1),
    "10000x50": Case(10_000, 50, 2.0, 1),
}

OURS = "sknsgf"
Velocity = Callable[[Tensor, Tensor], tuple[Tensor, float | None]]


class Record(NamedTuple):
    """One timed velocity."""

    step: int
    ms: float  # per problem
    error: float  # the worst problem's
    marginal_error: float | None  # None where the peer does not say


Summary = dict[str, float | None]


# Data


def make_clouds(
    case: Case, data: Path | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw noise and targets (B, n, d)."""
    shape = (case.n_problems, case.n, case.dim)
    noise = torch.randn(shape, generator=generator)
    if case.images and data:
        return noise, _images(data / case.images, case).view(shape)
    if case.dim == 2:
        return noise, _eight_gaussians(shape, generator)
    return noise, _clusters(shape, generator)


def _images(path: Path, case: Case) -> Tensor:
    with np.load(path) as archive:
        images = archive["x_train"]
    rows = np.random.default_rng(0).choice(len(images), case.n * case.n_problems, replace=False)
    return torch.from_numpy(images[rows].astype(np.float32) / 127.5 - 1)


def _eight_gaussians(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    angle = torch.randint(8, shape[:-1], generator=generator) * (math.pi / 4)
    centres = 5 * torch.stack([angle.cos(), angle.sin()], -1)
    return centres + 0.5 * torch.randn(shape, generator=generator)


def _clusters(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Ten clusters with a few large directions each, as images have."""
    dim, labels = shape[-1], torch.randint(10, shape[:-1], generator=generator)
    centres = 0.4 * torch.randn(10, dim, generator=generator)
    spectrum = 1.5 / torch.arange(1, dim + 1).sqrt()
    return centres[labels] + spectrum * torch.randn(shape, generator=generator)


# Methods


class Ours:
    """Follows the flow: each call starts from the one before."""

    def __init__(self, blur: float, step_size: float):
        self.blur, self.step_size, self.state = blur, step_size, None

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        step_size = None if self.state is None else self.step_size
        result = sinkhorn_velocity(x, y, blur=self.blur, state=self.state, step_size=step_size)
        self.state = result.state
        return result.velocity, float(result.marginal_error.max())


def geomloss_velocity(blur: float, scaling: float) -> Velocity:
    """Minus n times the gradient of GeomLoss's Sinkhorn divergence."""
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=blur, scaling=scaling, backend="tensorized")

    def velocity(x: Tensor, y: Tensor) -> tuple[Tensor, None]:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x, y).sum(), x)
        return -x.shape[1] * gradient, None

    return velocity


def pot_velocity(blur: float, method: str, **settings: float) -> Velocity:
    """POT, problem by problem, on the first problem only: it has no batches."""
    import ot

    def project(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
        cost = ot.dist(x, y) / 2
        plan = ot.sinkhorn([], [], cost, blur**2, method=method, warn=False, **settings)
        return len(x) * plan @ y, float(np.abs(plan.sum(0) - 1 / len(y)).sum())

    def velocity(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        x_rows, y_rows = x[0].cpu().double().numpy(), y[0].cpu().double().numpy()
        (onto_targets, error), (onto_itself, _) = project(x_rows, y_rows), project(x_rows, x_rows)
        return torch.from_numpy(onto_targets - onto_itself).unsqueeze(0).to(x), error

    return velocity


def ott_velocity(blur: float) -> Velocity:
    """OTT with its defaults: compiled, on stored costs, problem by problem.

    That is the fastest way to use it here: it forms the costs of a `PointCloud` again at
    each iteration, and a batch under `vmap` waits for its slowest problem.
    """
    import jax
    import jax.numpy as jnp
    from ott.geometry import costs, geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn

    solver = sinkhorn.Sinkhorn()

    def project(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        cost = costs.SqEuclidean().all_pairs(x, y)  # twice ours
        problem = linear_problem.LinearProblem(geometry.Geometry(cost, epsilon=2 * blur**2))
        plan = solver(problem).matrix
        return len(x) * plan @ y, jnp.abs(plan.sum(0) - 1 / len(y)).sum()

    @jax.jit
    def one(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        (onto_targets, error), (onto_itself, _) = project(x, y), project(x, x)
        return onto_targets - onto_itself, error

    def velocity(x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        clouds = (jnp.asarray(cloud.cpu().numpy()) for cloud in (x, y))
        results = [one(*pair) for pair in zip(*clouds, strict=True)]
        velocities = np.stack([np.asarray(v) for v, _ in results])
        return torch.from_numpy(velocities).to(x), float(max(error for _, error in results))

    return velocity


def make_methods(case: Case) -> dict[str, Velocity]:
    """Set up ours, and every peer that is installed and can hold the case."""
    methods: dict[str, Velocity] = {OURS: Ours(case.blur, case.schedule[1])}
    for name, make in _peers(case):
        try:
            methods[name] = make()
        except ImportError as error:
            print(f"skipped {name}: {error}")
    return methods


def _peers(case: Case) -> Iterator[tuple[str, Callable[[], Velocity]]]:
    large = case.n >= 10_000
    for scaling in (0.5,) if large else (0.5, 0.8, 0.95):
        yield f"GeomLoss {scaling}", lambda s=scaling: geomloss_velocity(case.blur, s)
    if large:
        print("skipped at 10 000 points: GeomLoss 0.8 and 0.95, POT, OTT (minutes a velocity)")
        return
    yield "POT log", lambda: pot_velocity(case.blur, "sinkhorn_log")
    yield (
        "POT stabilized",
        lambda: pot_velocity(case.blur, "sinkhorn_stabilized", stopThr=1e-4),
    )
    yield "OTT", lambda: ott_velocity(case.blur)


# Measurement


class State(NamedTuple):
    """One state of the flow, and its velocity in double precision."""

    x: Tensor
    velocity: Tensor
    marginal_error: float  # of that velocity


def reference_trajectory(x: Tensor, y: Tensor, case: Case) -> Iterator[State]:
    """States of the flow as ours follows it."""
    n_steps, step_size = case.schedule
    tol = 1e-5 if case.n >= 10_000 else 1e-8
    ours, state = Ours(case.blur, step_size), None
    for _ in range(n_steps):
        result = sinkhorn_velocity(
            x.double(), y.double(), blur=case.blur, tol=tol, max_iter=60, state=state
        )
        yield State(x, result.velocity.to(x), float(result.marginal_error.max()))
        x, state = x + step_size * ours(x, y)[0], result.state


def time_methods(
    case: Case, clouds: tuple[Tensor, Tensor], repeats: int, budget: float
) -> tuple[dict[str, list[Record]], float]:
    """Give each method each state in turn, as long as its budget of seconds lasts.

    The marginal error of the worst reference comes back as well: errors much below it would
    mean nothing.
    """
    x, y = clouds
    trajectory = list(tqdm(reference_trajectory(x, y, case), "reference", case.schedule[0]))
    records, spent = defaultdict(list), defaultdict(float)
    methods = make_methods(case)
    _warm_up(methods, x, y, case)
    for _ in range(repeats):
        methods[OURS] = Ours(case.blur, case.schedule[1])
        for step, state in enumerate(tqdm(trajectory, "states")):
            for name, method in methods.items():
                if name == OURS or spent[name] < budget:
                    record = _timed(step, method, state.x, y, state.velocity)
                    records[name].append(record)
                    spent[name] += record.ms * len(x) / 1e3
    return records, max(state.marginal_error for state in trajectory)


def _warm_up(methods: dict[str, Velocity], x: Tensor, y: Tensor, case: Case) -> None:
    """Compile, where a method compiles."""
    for name in {OURS, "OTT"} & set(methods):
        if case.n < 10_000:
            methods[name](x, y)


def _timed(step: int, method: Velocity, x: Tensor, y: Tensor, reference: Tensor) -> Record:
    _synchronize(x.device)
    # Processor time is the same on a quiet core, and other work on a shared one does not count.
    alone = x.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    velocity, marginal_error = method(x, y)
    _synchronize(x.device)
    ms = 1e3 * (clock() - start) / len(velocity)
    reference = reference[: len(velocity)]
    gap, size = ((a.flatten(1).norm(dim=1)) for a in (velocity - reference, reference))
    return Record(step, ms, float((gap / size).max()), marginal_error)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# Report


def median_times(records: list[Record]) -> dict[int, float]:
    """Median time of each state, by step."""
    by_step = defaultdict(list)
    for record in records:
        by_step[record.step].append(record.ms)
    return {step: float(np.median(ms)) for step, ms in by_step.items()}


def summarize(records: list[Record], ours: dict[int, float]) -> Summary:
    """Average over the trajectory; compare with ours on the states that both finished."""
    times = median_times(records)
    warm = [step for step in times if step > 0]
    errors = [record.error for record in records]
    said = [r.marginal_error for r in records if r.marginal_error is not None]

    def ratio(steps: Iterable[int]) -> float | None:
        own = sum(ours[step] for step in steps)
        return sum(times[step] for step in steps) / own if own else None

    figures = {
        "ms": np.mean(list(times.values())),
        "cold_ms": times[0],
        "warm_ms": np.mean([times[step] for step in warm]) if warm else None,
        "ratio": ratio(times),
        "warm_ratio": ratio(warm),
        "n_states": len(times),
        "max_error": np.max(errors),
        "median_error": np.median(errors),
        "marginal_error": max(said, default=None),
    }
    # JSON has no NaN; a peer's failure is a missing figure.
    return {
        name: None if value is None or not math.isfinite(value) else float(value)
        for name, value in figures.items()
    }


def report(name: str, case: Case, summaries: dict[str, Summary], reference_error: float) -> None:
    """Print a case's table."""
    print(f"\n{name}: {case.n} x {case.dim}, blur {case.blur}, batches of {case.n_problems}")
    print(f"references: double precision, marginal errors up to {reference_error:.0e}")
    columns = ("ms", "cold_ms", "warm_ms", "max_error", "median_error", "marginal_error")
    heads = (*columns, "ratio", "warm_ratio", "n_states")
    print(f"{'':16}" + "".join(f"{head:>15}" for head in heads))
    for method, figures in summaries.items():
        cells = ("–" if figures[head] is None else f"{figures[head]:.4g}" for head in heads)
        print(f"{method:16}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder with mnist.npz and cifar10_small.npz")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds a peer has per case")
    return parser.parse_args()


def main() -> None:
    """Compare on each case, print as it goes, and write the figures."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    if arguments.data is None:
        print("synthetic clusters stand in for images (no --data)")
    figures: dict[str, Any] = {}
    reference_errors: dict[str, float] = {}
    for name in arguments.cases.split(","):
        case, generator = CASES[name], torch.Generator().manual_seed(0)
        clouds = make_clouds(case, arguments.data, generator)
        x, y = (cloud.to(arguments.device) for cloud in clouds)
        repeats = 1 if case.n >= 10_000 else arguments.repeats
        records, error = time_methods(case, (x, y), repeats, arguments.budget)
        ours = median_times(records[OURS])
        figures[name] = {method: summarize(rows, ours) for method, rows in records.items()}
        reference_errors[name] = error
        report(name, case, figures[name], error)
        if arguments.json:
            about = {"machine": machine(arguments), "reference_marginal_errors": reference_errors}
            result = {**about, **figures}
            arguments.json.write_text(json.dumps(result, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
