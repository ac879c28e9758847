"""What the package adds to the network itself: training steps and transforms, as ratios.

    python benchmarks/overhead.py [--d 2 64] [--rounds 15]

A *step* of training, with its batch, is set beside the bare forward pass, backward pass and Adam
step of the same network (`velocity_network_`) on one batch that is always there; a *transform* of
80 000 rows beside the bare forward passes of that network in batches of the same size. Both sides
are timed in turns, in processor time, and the ratio is that of the medians. One thread.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from sknsgf import NSGFSampler

N_STEPS, N_ROWS, CHUNK = 200, 80_000, 2**11


def timed(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def ratio(ours: Callable[[], object], bare: Callable[[], object], rounds: int) -> float:
    """Time both in turns; the first round does not count."""
    return median_ratio([(timed(ours), timed(bare)) for _ in range(rounds + 1)])


def median_ratio(pairs: list[tuple[float, float]]) -> float:
    ours, bare = zip(*pairs[1:], strict=True)
    return statistics.median(ours) / statistics.median(bare)


def bare_steps(network: nn.Module, d: int) -> Callable[[], None]:
    network = copy.deepcopy(network).requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    t, x, u = torch.rand(256), torch.randn(256, d), torch.randn(256, d)

    def steps() -> None:
        for _ in range(N_STEPS):
            optimizer.zero_grad(set_to_none=True)
            (network(t, x) - u).square().mean().backward()
            optimizer.step()

    return steps


def time_step(rows: np.ndarray) -> float:
    """Time a training step: what more of them add to a fit on one small simulation."""
    flow = NSGFSampler(
        source="gaussian", random_state=0, n_simulations=1, n_particles=2, early_stopping=False
    )
    few, many = (timed(lambda n=n: flow.set_params(max_iter=n).fit(rows)) for n in (50, 450))
    return (many - few) / 400


def bare_forwards(network: nn.Module, d: int, dtype: torch.dtype, n: int) -> Callable[[], None]:
    network = copy.deepcopy(network).to(dtype)
    x = torch.randn(N_ROWS, d, dtype=dtype)

    def forwards() -> None:
        with torch.no_grad():
            for _ in range(n):
                for part in x.split(CHUNK):
                    network(torch.zeros(len(part), dtype=dtype), part)

    return forwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d", type=int, nargs="+", default=[2, 64], help="columns")
    parser.add_argument("--rounds", type=int, default=15, help="times that both sides are run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'columns':>8} {'step':>6} {'transform, float32':>20} {'float64':>8}")
    for d in arguments.d:
        rows = np.random.default_rng(0).normal(size=(5000, d)).astype(np.float32)
        flow = NSGFSampler(source="gaussian", max_iter=50, random_state=0).fit(rows)
        network = flow.velocity_network_
        bare = bare_steps(network, d)
        pairs = [(time_step(rows), timed(bare) / N_STEPS) for _ in range(arguments.rounds + 1)]
        step = median_ratio(pairs)
        moved = []
        for dtype in (torch.float32, torch.float64):
            new = torch.randn(N_ROWS, d, dtype=dtype).numpy()
            bare = bare_forwards(network, d, dtype, n=10)
            moved.append(ratio(partial(flow.transform, new), bare, 3))
        print(f"{d:>8} {step:>6.3f} {moved[0]:>20.3f} {moved[1]:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
