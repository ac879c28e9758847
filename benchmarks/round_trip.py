"""There and back: what `inverse_transform` reaches, and that what it does not is out of reach.

For every task an NSGFSampler from noise, its steps as they are simulated (10) and finer (20), in
both precisions. Rows that were moved, and target rows that were held out, are taken back:

- "missed": share of the rows that are said not to be reached;
- "error": how far from its row any of the others is carried, in units of the target's scale;
- "there and back": median and largest distance between rows that were moved and what they are
  taken back to. Where the flow folds another row may be found than the one that was moved.
- "nearest": how near any point is carried to five of the rows missed, as far as a search of 20 000
  starts, narrowed down, can tell; the least of the five.

    python benchmarks/round_trip.py --max-iter 1000
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFSampler
from sknsgf.datasets import make_8gaussians, make_checkerboard, make_moons, make_s_curve

N_ROWS, N_STARTS, N_BEST, N_ROUNDS = 400, 20_000, 100, 30


def blobs(n, d):
    generator = np.random.default_rng(d)
    centres = 2 * generator.normal(size=(5, d))
    return centres[generator.integers(5, size=n)] + 0.5 * generator.normal(size=(n, d))


def table(load):
    return np.random.default_rng(0).permutation(StandardScaler().fit_transform(load().data))


TASKS = {
    "moons": lambda: make_moons(2400, random_state=0),
    "8gaussians": lambda: make_8gaussians(2400, random_state=0),
    "checkerboard": lambda: make_checkerboard(2400, random_state=0),
    "s curve": lambda: make_s_curve(2400, random_state=0),
    "blobs": lambda: blobs(2400, 8),
    "more blobs": lambda: blobs(2400, 32),
    "diabetes": lambda: table(load_diabetes),
    "wine": lambda: table(load_wine),
    "breast cancer": lambda: table(load_breast_cancer),
    "digits": lambda: np.random.default_rng(0).permutation(load_digits().data),
}


def nearest(flow, row):
    """Search for what is carried to a row: many starts, the best of them narrowed down."""
    generator = torch.Generator().manual_seed(0)
    move = flow.learned_map(torch.float64).forward
    goal = torch.from_numpy((row - flow.mean_) / flow.scale_)

    def draw(n):
        return torch.randn(n, len(goal), generator=generator, dtype=torch.float64)

    trials, width = torch.cat([s * draw(N_STARTS // 4) for s in (1, 2, 4, 8)]), 1.0
    for _ in range(N_ROUNDS):
        missed = (move(trials) - goal).norm(dim=1)
        best = trials[missed.argsort()[:N_BEST]]
        trials, width = (
            torch.cat([best, best.repeat(10, 1) + width * draw(10 * N_BEST)]),
            width / 1.5,
        )
    return float(missed.min())


def take_back(flow, rows, moved_from=None):
    start = time.process_time()
    found, reached = flow.inverse_transform(rows, return_reached=True)
    seconds = time.process_time() - start
    error = np.linalg.norm(flow.transform(found) - rows, axis=1)[reached] / flow.scale_
    line = f"{1 - reached.mean():8.2%} {error.max():9.1e} {seconds:7.2f}"
    if moved_from is not None:
        distance = np.linalg.norm(found - moved_from, axis=1)[reached] / flow.scale_
        line += f" {np.median(distance):9.1e} {distance.max():9.1e}"
    elif not reached.all():
        line += f" {min(nearest(flow, row) for row in rows[~reached][:5].astype(float)):9.1e}"
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--max-iter", type=int, default=1000)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "task            d steps dtype   | moved:  missed     error seconds there and back, most ",
        end="",
    )
    print("| target: missed     error seconds nearest")
    for name in args.tasks:
        data = TASKS[name]()
        held_out = data[: min(N_ROWS, len(data) // 4)]
        flow = NSGFSampler(source="gaussian", max_iter=args.max_iter, random_state=0)
        flow.fit(data[len(held_out) :])
        d = data.shape[1]
        noise = np.random.default_rng(1).normal(size=(N_ROWS, d)) * flow.scale_ + flow.mean_
        for n_steps in (10, 20):
            flow.set_params(n_sampling_steps=n_steps)
            for dtype in (np.float64, np.float32):
                moved = take_back(flow, flow.transform(noise.astype(dtype)), noise)
                target = take_back(flow, held_out.astype(dtype))
                title = f"{name:13s} {d:3d} {n_steps:5d} {np.dtype(dtype).name}"
                print(f"{title} | {moved} | {target}", flush=True)


if __name__ == "__main__":
    main()
