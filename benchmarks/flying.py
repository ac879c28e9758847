"""Whether single points fly: new points that end far from where any target row is.

    python benchmarks/flying.py [--points 200000] [--maps DIRECTORY] [--only plane] [--baseline]

Counts end points farther from the mean of the target than 1.2 times the 99.9 % quantile of its
rows, and prints the farthest beside, in units of that quantile: with the hull that holds flows,
without it, and with ``--baseline`` of OT-CFM (the same network, rate and training loop, first
seed of each task; needs ``pip install --no-deps torchcfm``). Tasks: *plane*, five tasks, 3000
and 12 000 steps, three draws; *maps* of the W2 benchmark (Korotin et al. 2021, files
``mix3to10_d*.npz`` in a directory), whose new points are drawn from a mixture of three Gaussians
fitted to all their source rows; *digits* with two phases; *few* source rows, of 2 to 19.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flow_matching import follow, matchers, train_on_lines
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import TASKS, make_task
from sknsgf.networks import VelocityMLP

TIMES, QUANTILE = 1.2, 0.999
CHUNK = 2**13
GROUPS = ("plane", "maps", "digits", "few")


class Task(NamedTuple):
    name: str
    seed: int
    flow: NSGFSampler | NSGFPlusPlus
    source: NDArray | None  # None: noise
    target: NDArray
    draw: Callable[[int], NDArray] | None  # new source points
    with_baseline: bool


def plane(_: Path | None) -> Iterator[Task]:
    for max_iter in (3000, 12000):
        for task in TASKS:
            for seed in range(3):
                x, y = make_task(task, 8000, random_state=seed)
                yield Task(
                    f"{task}, {max_iter} steps",
                    seed,
                    NSGFSampler(max_iter=max_iter, random_state=seed),
                    x,
                    y,
                    lambda n, task=task, seed=seed: make_task(task, n, random_state=99 + seed)[0],
                    seed == 0,
                )


def maps(directory: Path | None) -> Iterator[Task]:
    if directory is None:
        print("--maps is not given: the maps of the W2 benchmark are left out")
        return
    large = {"n_particles": 2048, "max_iter": 8000}
    for d in (2, 8, 16, 64):
        data = np.load(directory / f"mix3to10_d{d}.npz")
        x, y = (data[name].astype(np.float32) for name in ("X_train", "Y_train"))
        mixture = GaussianMixture(3, random_state=0).fit(x)
        for name, settings in (("defaults", {}), ("2048 particles, 8000 steps", large)):
            for seed in range(4 if d == 16 else 1):
                yield Task(
                    f"map, {d} columns, {name}",
                    seed,
                    NSGFSampler(random_state=seed, **settings),
                    x[:8192],
                    y[:8192],
                    partial(draw_from, mixture, seed),
                    seed == 0,
                )


def draw_from(mixture: GaussianMixture, seed: int, n: int) -> NDArray:
    return mixture.set_params(random_state=99 + seed).sample(n)[0].astype(np.float32)


def digits(_: Path | None) -> Iterator[Task]:
    rows = load_digits().data
    for seed in range(3):
        flow = NSGFPlusPlus(source="gaussian", random_state=seed)
        yield Task("digits, two phases", seed, flow, None, rows, None, seed == 0)


def few(_: Path | None) -> Iterator[Task]:
    for n in (2, 5, 10, 19):
        rng = np.random.default_rng(n)
        x, y = make_task("checkerboard", 2000, random_state=0)
        flow = NSGFSampler(random_state=0)
        draw = partial(lambda rng, n: rng.normal(size=(n, 2)), rng)
        yield Task(f"{n} source rows", 0, flow, x[:n], y, draw, False)


def count_far(task: Task, n: int, baseline: bool) -> dict[str, Any]:
    """Fit, move new points, and count."""
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = (task.target,) if task.source is None else (task.source, task.target)
        flow = task.flow.fit(*rows)
    mean, scale = flow.mean_, flow.scale_
    if task.draw is None:
        x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(1))
    else:
        x = torch.as_tensor((task.draw(n) - mean) / scale, dtype=torch.float32)
    y = torch.as_tensor((task.target - mean) / scale, dtype=torch.float32)
    radius = y.double().norm(dim=1).quantile(QUANTILE)
    held = flow.learned_map()
    free = (
        replace(held, hull=None)
        if isinstance(flow, NSGFSampler)
        else replace(held, first=replace(held.first, hull=None))
    )
    ways = {"hull": held.forward, "no hull": free.forward}
    if baseline and task.with_baseline and (available := matchers()):
        ways["OT-CFM"] = partial(
            follow, fit_ot_cfm(available["OT-CFM"], task, y, mean, scale), nfe=100
        )
    result: dict[str, Any] = {"task": task.name, "seed": task.seed, "points": n}
    for name, move in ways.items():
        share = torch.cat([move(part).norm(dim=1) for part in x.split(CHUNK)]).double() / radius
        finite = share.nan_to_num(torch.inf, torch.inf)
        result[name] = [int((finite > TIMES).sum()), float(finite.max())]
    return result | {"seconds": round(time.process_time() - began)}


def fit_ot_cfm(
    matcher: Any, task: Task, y: torch.Tensor, mean: NDArray, scale: float
) -> torch.nn.Module:
    d = y.shape[1]
    x = None if task.source is None else torch.as_tensor((task.source - mean) / scale).float()

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randn(n, d) if x is None else x[torch.randint(len(x), (n,))]
        return starts, y[torch.randint(len(y), (n,))]

    return train_on_lines(
        matcher,
        partial(VelocityMLP, d),
        draw,
        seed=task.seed,
        max_iter=task.flow.max_iter,
        learning_rate=1e-2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200_000, help="new points a fit")
    parser.add_argument("--maps", type=Path, help="directory of the W2 benchmark's maps")
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=GROUPS, help="groups of tasks"
    )
    parser.add_argument("--baseline", action="store_true", help="count those of OT-CFM, too")
    parser.add_argument("--json", type=Path, help="file to write all counts to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    print(f"{'task':<45} {'seed':>4} {'points':>8}   far, farthest: hull, no hull, OT-CFM")
    for group in arguments.only:
        for task in globals()[group](arguments.maps):
            result = count_far(task, arguments.points, arguments.baseline)
            results.append(result)
            shown = "   ".join(
                f"{far:>4} {most:>8.3g}" for far, most in list(result.values())[3:-1]
            )
            print(f"{task.name:<45} {task.seed:>4} {result['points']:>8}   {shown}", flush=True)
    for name in ("hull", "no hull", "OT-CFM"):
        counted = [r for r in results if name in r]
        points = sum(r["points"] for r in counted)
        print(f"{name}: {sum(r[name][0] for r in counted)} of {points} points")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
