"""Flow quality in two dimensions, side by side, at the same budget of processor time.

Every method gets the same data, the same network, the same seconds from data to model and the
same evaluation draws. Two rows of every table are no method: the *floor*, another fresh draw of
the target, and the *training rows* drawn again, which is where a model ends that knows its data
by heart and nothing else: 5000 rows are themselves that far from their distribution.

    python benchmarks/two_dimensional.py --seeds 5 --tune --free-plans --json result.json
    python benchmarks/two_dimensional.py --report --json result.json --figure result.png

The baselines are torchcfm's own matchers (``pip install --no-deps torchcfm``), with our network,
training loop and learning rate. ``--tune`` adds them with the best of three learning rates, chosen
task by task on another draw of the data, a favour ours are not given; ``--free-plans`` adds OT-CFM
with as many iterations as flow matching, its plans not counted. ``--new-points`` tells what rows
cost: it adds NSGFSampler with new source points in every simulation instead of 5000 rows, and with
new target points as well, so that all that is left is the network's. Iterations are calibrated to
the budget, task by task, by short runs; no method reads a clock. What the file holds of other
tasks, seeds and methods is kept, so that a comparison can be made in turns, and several files are
reported as one.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from flow_matching import BASELINES, follow, matchers, train_on_lines
from numpy.typing import NDArray
from scipy.stats import t as student_t
from torch import Tensor
from tqdm import tqdm

from sknsgf import NSGFPlusPlus, NSGFSampler, __version__
from sknsgf.datasets import TASKS, make_task
from sknsgf.flow import follow_sinkhorn_flow, straight_schedule
from sknsgf.metrics import w2_distance
from sknsgf.networks import VelocityMLP

NFES = (5, 10, 100)
N_TRAIN = 5000
N_GENERATED = 5000
N_FRESH = 100_000
N_W2, N_W2_BLOCKS = 1024, 3
N_DIRECTIONS = 48
N_DRAWN = 2000
CALIBRATION_ITER, N_CALIBRATIONS = 100, 2
LEARNING_RATES = (1e-2, 3e-3, 1e-3)
TUNING_SEED = 99
FLOOR, ROWS, PARTICLES = "floor", "training rows", "particles, no network"
TUNED = {name: f"{name}, tuned" for name in BASELINES}
FREE = "OT-CFM, tuned, free plans"
OURS = "NSGFSampler"
NEW_SOURCE, NEW_POINTS = f"{OURS}, new source points", f"{OURS}, new points"
DRAWN = (FLOOR, PARTICLES, OURS, "NSGFPlusPlus", *BASELINES)

Record = dict[str, Any]
Sample = Callable[[NDArray, int], NDArray]


class Model(NamedTuple):
    """A fitted method: moves points in so many evaluations."""

    sample: Sample
    pool_seconds: float = 0.0


Fit = Callable[..., Model]  # (source, target, max_iter, seed) and, for baselines, learning_rate


class Method(NamedTuple):
    """What is compared: a way to fit, and its settings on one task."""

    fit: Fit
    n_iter: int
    learning_rate: float | None = None


class Draw(NamedTuple):
    """One seed of a task: rows to fit, and points and rows to judge by."""

    source: NDArray
    target: NDArray
    points: NDArray
    fresh: NDArray
    other: NDArray  # the floor

    @classmethod
    def of(cls, task: str, seed: int) -> Draw:
        """Draw all of them, independently."""
        source, target = make_task(task, N_TRAIN, random_state=seed)
        points, other = make_task(task, N_GENERATED, random_state=1000 + seed)
        _, fresh = make_task(task, N_FRESH, random_state=2000 + seed)
        return cls(source, target, points.astype(np.float32), fresh, other)


# Methods


class _Timed(VelocityMLP):
    """The default network, that remembers when it was first trained."""

    began: ClassVar[float | None] = None

    def train(self, mode: bool = True) -> _Timed:
        """Called by the training loop before the first step."""
        if mode and _Timed.began is None:
            _Timed.began = time.process_time()
        return super().train(mode)


def _fit_timed(sampler: Any, *arrays: NDArray) -> float:
    """Fit a sampler; return the seconds until its first training, spent on simulations."""
    sampler.set_params(network=lambda shape: _Timed(*shape))
    _Timed.began, start = None, time.process_time()
    sampler.fit(*arrays)
    return float(_Timed.began or start) - start


def _fit_flow(flow: NSGFSampler, *arrays: NDArray) -> Model:
    seconds = _fit_timed(flow, *arrays)
    return Model(lambda x, nfe: flow.set_params(n_sampling_steps=nfe).transform(x), seconds)


def fit_nsgf(source: NDArray, target: NDArray, max_iter: int, seed: int) -> Model:
    """NSGFSampler with its defaults."""
    return _fit_flow(NSGFSampler(max_iter=max_iter, random_state=seed), source, target)


class _Source(NamedTuple):
    """The source of a task, whose points are never the same."""

    task: str

    def sample(self, n: int, random_state: Any) -> NDArray:
        return make_task(self.task, n, random_state=random_state)[0]


def fit_new_source(task: str, source: NDArray, target: NDArray, max_iter: int, seed: int) -> Model:
    """NSGFSampler that gets new source points for every simulation, not the rows."""
    flow = NSGFSampler(source=_Source(task), max_iter=max_iter, random_state=seed)
    return _fit_flow(flow, target)


def fit_new_points(task: str, source: NDArray, target: NDArray, max_iter: int, seed: int) -> Model:
    """NSGFSampler that gets new target points as well: more than its simulations deal out."""
    _, target = make_task(task, N_FRESH, random_state=3000 + seed)
    return fit_new_source(task, source, target, max_iter, seed)


def fit_plus_plus(source: NDArray, target: NDArray, max_iter: int, seed: int) -> Model:
    """NSGFPlusPlus with its defaults; half of its evaluations, at most five, in phase one."""
    flow = NSGFPlusPlus(max_iter=max_iter, random_state=seed)
    seconds = _fit_timed(flow, source, target)
    n_predictions = int(flow.time_predictor_ is not None)

    def sample(x: NDArray, nfe: int) -> NDArray:
        n_near = min(5, nfe // 2)
        flow.sinkhorn_flow_.set_params(n_sampling_steps=n_near)
        return flow.set_params(n_straight_steps=nfe - n_near - n_predictions).transform(x)

    return Model(sample, seconds)


def fit_matching(
    matcher: Any,
    source: NDArray,
    target: NDArray,
    max_iter: int,
    seed: int,
    learning_rate: float = LEARNING_RATES[0],
) -> Model:
    """Flow matching by one of torchcfm's matchers, with our network and training loop."""
    x, y, outward = _standardise(source, target)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        return x[torch.randint(len(x), (n,))], y[torch.randint(len(y), (n,))]

    network = train_on_lines(
        matcher,
        lambda: VelocityMLP(x.shape[1]),
        draw,
        seed=seed,
        max_iter=max_iter,
        learning_rate=learning_rate,
    )

    def sample(points: NDArray, nfe: int) -> NDArray:
        return outward(follow(network, _standardise(points, target)[0], nfe))

    return Model(sample)


def fit_particles(source: NDArray, target: NDArray, max_iter: int, seed: int) -> Model:
    """The Sinkhorn flow itself: particles in minibatches of 256, no network."""

    def sample(points: NDArray, nfe: int) -> NDArray:
        x, y, outward = _standardise(points, target)
        generator = torch.Generator().manual_seed(seed)
        x = x[: len(x) // 256 * 256].view(-1, 256, x.shape[1])
        dealt = torch.randperm(len(y), generator=generator)[: x[..., 0].numel()].view(-1, 256)
        flow = follow_sinkhorn_flow(
            x, y[dealt], straight_schedule(nfe).step_sizes, blur=0.1, tol=5e-3
        )
        return outward(flow.positions[:, -1].flatten(0, 1))

    return Model(sample)


def _standardise(
    source: NDArray, target: NDArray
) -> tuple[Tensor, Tensor, Callable[[Tensor], NDArray]]:
    """Both clouds in units of the target, and the way back."""
    mean, scale = target.mean(0), np.sqrt(np.mean((target - target.mean(0)) ** 2))
    x, y = (torch.from_numpy((rows - mean) / scale).float() for rows in (source, target))
    return x, y, lambda moved: moved.numpy() * scale + mean


# Budget


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time that a call takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def calibrate(fit: Callable[[int], object], budget: float) -> int:
    """Iterations that fill the budget, from the slope of short runs, each at its fastest."""
    fit(CALIBRATION_ITER)  # warms up
    runs = [
        [processor_seconds(lambda n=factor * CALIBRATION_ITER: fit(n)) for factor in (1, 4)]
        for _ in range(N_CALIBRATIONS)
    ]
    short, long = (min(times) for times in zip(*runs, strict=True))
    slope = max((long - short) / (3 * CALIBRATION_ITER), 1e-6)
    return max(1, int((budget - short) / slope) + CALIBRATION_ITER)


def tune(fit: Fit, draw: Draw, n_iter: int) -> float:
    """The learning rate that ends nearest to the target in a third of the iterations."""

    def distance(rate: float) -> float:
        model = fit(draw.source, draw.target, n_iter // 3, TUNING_SEED, learning_rate=rate)
        return sum(energy_distance(model.sample(draw.points, nfe), draw.fresh) for nfe in NFES[1:])

    return min(LEARNING_RATES, key=distance)


def prepare(task: str, arguments: argparse.Namespace) -> dict[str, Method]:
    """The methods asked for, calibrated and tuned on data that no result is taken on."""
    draw = Draw.of(task, TUNING_SEED)

    def n_iter(fit: Fit) -> int:
        return calibrate(lambda n: fit(draw.source, draw.target, n, 0), arguments.budget)

    ours: dict[str, Fit] = {OURS: fit_nsgf, "NSGFPlusPlus": fit_plus_plus}
    if arguments.new_points:
        ours[NEW_SOURCE] = partial(fit_new_source, task)
        ours[NEW_POINTS] = partial(fit_new_points, task)
    wanted = arguments.methods or [*ours, *BASELINES, *TUNED.values(), FREE]
    found = {name: Method(fit, n_iter(fit)) for name, fit in ours.items() if name in wanted}
    if not set(wanted) <= set(ours):
        found |= _prepare_baselines(draw, n_iter, arguments)
    return {name: method for name, method in found.items() if name in wanted}


def _prepare_baselines(
    draw: Draw, n_iter: Callable[[Fit], int], arguments: argparse.Namespace
) -> dict[str, Method]:
    fits = {name: partial(fit_matching, matcher) for name, matcher in matchers().items()}
    plain = {name: Method(fit, n_iter(fit), LEARNING_RATES[0]) for name, fit in fits.items()}
    best = dict(plain)
    if arguments.tune:
        best = {
            TUNED[name]: method._replace(learning_rate=tune(method.fit, draw, method.n_iter))
            for name, method in plain.items()
        }
    if plain and arguments.free_plans:  # without its plans OT-CFM is flow matching
        paid, free = best.values()
        best[FREE] = paid._replace(n_iter=free.n_iter)
    return plain | best


# Measurement


def energy_distance(x: NDArray, y: NDArray) -> float:
    """Unbiased energy distance in the plane, in time n log n.

    A length is pi / 2 times its mean over directions, and in one dimension sorted points give
    the sum of their distances; 48 directions leave a relative error of 4e-4. Sampling noise at
    5000 against 100 000 points is a few 1e-4.
    """
    angles = np.pi * np.arange(N_DIRECTIONS) / N_DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)])
    a, b = (np.sort((rows @ directions).T, axis=1) for rows in (x, y))
    n, m = a.shape[1], b.shape[1]
    within_x, within_y = _sum_of_gaps(a), _sum_of_gaps(b)
    between = _sum_of_gaps(np.sort(np.concatenate([a, b], 1), axis=1)) - within_x - within_y
    distance = between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))
    return float(np.pi * distance.mean())


def _sum_of_gaps(ordered: NDArray) -> NDArray:
    """Sum over all pairs of a row of their distance."""
    n = ordered.shape[1]
    return ordered @ (2.0 * np.arange(n) - n + 1)


def evaluate(rows: NDArray, fresh: NDArray) -> Record:
    """Both distances; W2 as a mean over blocks, as its floor depends on their size."""
    blocks = [slice(i * N_W2, (i + 1) * N_W2) for i in range(N_W2_BLOCKS)]
    w2 = np.mean([w2_distance(rows[block], fresh[block]) for block in blocks])
    return {"w2": float(w2), "energy": energy_distance(rows, fresh)}


def run(task: str, methods: dict[str, Method], seed: int) -> Iterator[tuple[Record, NDArray]]:
    """Yield what was measured of every method on one draw of the data, and some points."""
    draw = Draw.of(task, seed)

    def judge(method: str, nfe: int, rows: NDArray, **cost: Any) -> tuple[Record, NDArray]:
        base = {"task": task, "seed": seed, "method": method, "nfe": nfe}
        return {**base, **evaluate(rows, draw.fresh), **cost}, rows[:N_DRAWN]

    again = np.random.default_rng(seed).integers(N_TRAIN, size=N_GENERATED)
    yield judge(FLOOR, 0, draw.other)
    yield judge(ROWS, 0, draw.target[again])
    particles = fit_particles(draw.source, draw.target, 0, seed)
    yield judge(PARTICLES, 10, particles.sample(draw.points, 10))
    measured: dict[Method, list[tuple[Record, NDArray]]] = {}
    for name, method in methods.items():
        if method not in measured:  # tuning may leave the rate as it is
            model, cost = fit_and_time(method, draw, seed)
            measured[method] = [
                judge(name, nfe, model.sample(draw.points, nfe), **cost) for nfe in NFES
            ]
        for record, points in measured[method]:
            yield {**record, "method": name}, points


def fit_and_time(method: Method, draw: Draw, seed: int) -> tuple[Model, Record]:
    """Fit, and say what it took."""
    rate = {"learning_rate": method.learning_rate} if method.learning_rate else {}
    start = time.process_time()
    model = method.fit(draw.source, draw.target, method.n_iter, seed, **rate)
    seconds = time.process_time() - start
    cost = {"fit_seconds": seconds, "pool_seconds": model.pool_seconds, "n_iter": method.n_iter}
    return model, {**cost, **rate}


def machine(arguments: argparse.Namespace) -> Record:
    """Where and when."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        **({"budget": arguments.budget} if "budget" in arguments else {}),
        "sknsgf": __version__,
        "torch": torch.__version__,
    }


# Report


def select(records: list[Record], **wanted: Any) -> list[Record]:
    """Records with these values, ordered by seed."""
    chosen = [r for r in records if all(r[key] == value for key, value in wanted.items())]
    return sorted(chosen, key=lambda r: r.get("seed", 0))


def unique(records: list[Record], *keys: str) -> list[Any]:
    """Distinct values of some keys, in order of appearance."""
    values = [tuple(r[key] for key in keys) if len(keys) > 1 else r[keys[0]] for r in records]
    return list(dict.fromkeys(values))


def interval(values: NDArray) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval."""
    n = len(values)
    if n < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(
        student_t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    )


def _column(records: list[Record], key: str) -> NDArray:
    factor = 1e3 if key == "energy" else 1.0
    return np.array([factor * r[key] for r in records])


def table(records: list[Record], key: str) -> str:
    """Mean and standard deviation over seeds of every cell, in Markdown."""
    tasks = unique(records, "task")
    digits = 2 if key == "energy" else 3
    lines = ["| | evaluations | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 2) + "|"]
    for method, nfe in unique(records, "method", "nfe"):
        cells = []
        for task in tasks:
            values = _column(select(records, task=task, method=method, nfe=nfe), key)
            spread = values.std(ddof=1) if len(values) > 1 else float("nan")
            cells.append(
                f"{values.mean():.{digits}f} ± {spread:.{digits}f}" if len(values) else ""
            )
        lines.append(f"| {method} | {nfe or '–'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(records: list[Record], key: str, ours: str = OURS) -> str:
    """Our figure minus theirs, paired over seeds, with its 95 % interval, in Markdown."""
    tasks = unique(records, "task")
    digits = 2 if key == "energy" else 3
    others = [pair for pair in unique(records, "method", "nfe") if pair[0] != ours]
    lines = [f"| {ours} minus | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method, nfe in others:
        cells = []
        for task in tasks:
            a = _column(select(records, task=task, method=ours, nfe=10), key)
            b = _column(select(records, task=task, method=method, nfe=nfe), key)
            mean, half = interval(a - b) if len(a) == len(b) else (float("nan"),) * 2
            cells.append(f"{mean:+.{digits}f} ± {half:.{digits}f}")
        label = f"{method}, {nfe} evaluations" if nfe else method
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def costs(records: list[Record]) -> str:
    """Seconds, iterations and learning rates, in Markdown."""
    lines = [
        "| | seconds | of them simulating | iterations | learning rates |",
        "|---|---|---|---|---|",
    ]
    for method in unique([r for r in records if "fit_seconds" in r], "method"):
        chosen = select(records, method=method, nfe=10)
        means = [np.mean([r[key] for r in chosen]) for key in ("fit_seconds", "pool_seconds")]
        iterations = [r["n_iter"] for r in chosen]
        rates = (
            ", ".join(f"{rate:g}" for rate in unique(chosen, "learning_rate"))
            if all("learning_rate" in r for r in chosen)
            else "default"
        )
        lines.append(
            f"| {method} | {means[0]:.1f} | {means[1]:.1f} | "
            f"{min(iterations)} to {max(iterations)} | {rates} |"
        )
    return "\n".join(lines)


def report(result: Record) -> None:
    """Print every table."""
    records = result["records"]
    print("\n" + costs(records))
    for key, title in (("energy", "Energy distance × 1000"), ("w2", "W2")):
        print(f"\n{title}, mean ± standard deviation over seeds\n\n{table(records, key)}")
        print(f"\n{title}, paired difference and 95 % interval\n\n{differences(records, key)}")


def draw_clouds(clouds: dict[str, NDArray], path: Path) -> None:
    """One row a task, one column a method: points after ten evaluations."""
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(key.split("/")[0] for key in clouds))
    names = [name for name in DRAWN if any(f"{task}/{name}" in clouds for task in tasks)]
    figure, axes = plt.subplots(
        len(tasks),
        len(names),
        figsize=(1.7 * len(names), 1.7 * len(tasks)),
        layout="constrained",
        squeeze=False,
    )
    for task, row in zip(tasks, axes, strict=True):
        limit = 1.15 * np.abs(clouds[f"{task}/{FLOOR}"]).max()
        for name, ax in zip(names, row, strict=True):
            x, y = clouds.get(f"{task}/{name}", np.empty((0, 2))).T
            ax.scatter(x, y, s=0.8, linewidths=0, color="0.35" if name == FLOOR else "C0")
            ax.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect=1)
        row[0].set_ylabel(task)
    for name, ax in zip(names, axes[0], strict=True):
        ax.set_title("target" if name == FLOOR else name.replace(", ", ",\n"), fontsize="small")
    figure.savefig(path, dpi=130)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", help="only these, by the names in the tables")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=15, help="seconds from data to model")
    parser.add_argument("--tune", action="store_true", help="tune the baselines' rates")
    parser.add_argument("--free-plans", action="store_true", help="OT-CFM without plan time, too")
    parser.add_argument("--new-points", action="store_true", help="NSGFSampler without rows, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures, kept up as it runs")
    parser.add_argument("--merge", nargs="+", type=Path, help="other such files, taken in first")
    parser.add_argument("--figure", type=Path, help="file for the picture")
    parser.add_argument("--report", action="store_true", help="only report what the files hold")
    return parser.parse_args()


def main() -> None:
    """Compare on each task, report, and write figures and picture."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    result, clouds = load(*filter(None, [arguments.json, *(arguments.merge or ())]))
    for task in () if arguments.report else arguments.tasks:
        methods = prepare(task, arguments)
        for seed in tqdm(range(arguments.seeds), task):
            measured, drawn = zip(*run(task, methods, seed), strict=True)
            result = replace(result, measured, ("task", "seed", "method"))
            result["machine"] = machine(arguments)
            if seed == 0:
                clouds |= shown(measured, drawn)
            save(arguments.json, result, clouds)
    if arguments.merge:
        save(arguments.json, result, clouds)
    report(result)
    if arguments.figure:
        draw_clouds(clouds, arguments.figure)


def replace(result: Record, measured: Iterable[Record], keys: tuple[str, ...]) -> Record:
    """Put records in the place of older ones of the same task, seed and method."""
    again = set(unique(list(measured), *keys))
    kept = [r for r in result["records"] if tuple(r[key] for key in keys) not in again]
    return {**result, "records": [*kept, *measured]}


def shown(measured: Iterable[Record], drawn: Iterable[NDArray]) -> dict[str, NDArray]:
    """The points after ten evaluations, by task and method, or those of no method."""
    return {
        f"{record['task']}/{record['method']}": points.astype(np.float32)
        for record, points in zip(measured, drawn, strict=True)
        if record["nfe"] in (0, 10)
    }


def load(*paths: Path) -> tuple[Record, dict[str, NDArray]]:
    """What earlier runs left in the files, and the points beside them, where they were kept."""
    result: Record = {"records": []}
    clouds: dict[str, NDArray] = {}
    for path in filter(Path.exists, paths):
        read = json.loads(path.read_text())
        result = {**read, **replace(result, read["records"], ("task", "seed", "method"))}
        if (points := path.with_suffix(".npz")).exists():
            with np.load(points) as archive:
                clouds |= archive
    return result, clouds


def save(path: Path | None, result: Record, clouds: dict[str, NDArray]) -> None:
    """Write the figures, and the points beside them."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1))
        np.savez(path.with_suffix(".npz"), **clouds)


if __name__ == "__main__":
    main()
