"""Flow quality in two dimensions, side by side, at the same wall-clock budget.

Every method gets the same data, the same network, the same seconds from data to model and the
same evaluation draws. Beside every figure stands the floor: what a fresh sample of the target
scores. Iterations are calibrated to the budget by a short run; no method reads a clock.

    python benchmarks/two_dimensional.py --seeds 5 --budget 15 --tune --json result.json

The baselines are torchcfm's own matchers (``pip install --no-deps torchcfm``); without it they
are left out, and said to be. With ``--tune`` each baseline gets, task by task, the best of three
learning rates on another draw of the data, a favour NSGFSampler is not given. With
``--free-plans`` OT-CFM also runs as many iterations as flow matching, its plans not counted.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sknsgf import NSGFSampler, __version__
from sknsgf.datasets import TASKS, make_task
from sknsgf.flow import follow_sinkhorn_flow, straight_schedule
from sknsgf.metrics import energy_distance, w2_distance
from sknsgf.networks import VelocityMLP
from sknsgf.ode import integrate
from sknsgf.training import train, velocity_matching_loss

NFES = (5, 10, 100)
N_TRAIN = 5000
N_W2 = 1024
CALIBRATION_ITER = 150
LEARNING_RATES = (1e-2, 3e-3, 1e-3)
TUNING_SEED = 99

Sample = Callable[[np.ndarray, int], np.ndarray]


def fit_nsgf(source, target, max_iter, seed):
    flow = NSGFSampler(max_iter=max_iter, random_state=seed).fit(source, target)
    return lambda points, nfe: flow.set_params(n_sampling_steps=nfe).transform(points)


def fit_matching(matcher):
    """Flow matching by one of torchcfm's matchers, with our network and training loop."""

    def fit(source, target, max_iter, seed, learning_rate=LEARNING_RATES[0]):
        mean, scale = target.mean(0), target.std(0).mean()
        x, y = (torch.from_numpy((rows - mean) / scale).float() for rows in (source, target))
        torch.manual_seed(seed)
        network = VelocityMLP(x.shape[1])

        def loss(network):
            pairs = (rows[torch.randint(len(rows), (256,))] for rows in (x, y))
            t, x_t, u_t = matcher.sample_location_and_conditional_flow(*pairs)
            return velocity_matching_loss(network, t, x_t, u_t)

        network, _ = train(
            network, loss, max_iter=max_iter, learning_rate=learning_rate, ema_decay=0.995
        )

        @torch.no_grad()
        def sample(points, nfe):
            start = torch.from_numpy((points - mean) / scale).float()
            end = integrate(network, start, torch.linspace(0, 1, nfe + 1)).x[-1]
            return end.numpy() * scale + mean

        return sample

    return fit


def fit_particles(source, target, max_iter, seed):
    """The teacher itself: particles in minibatches of 256, no network."""
    mean, scale = target.mean(0), np.sqrt(np.mean((target - target.mean(0)) ** 2))
    y = torch.from_numpy((target - mean) / scale).float()

    def sample(points, nfe):
        generator = torch.Generator().manual_seed(seed)
        minibatches = torch.from_numpy((points - mean) / scale).float().split(256)
        step_sizes = straight_schedule(nfe).step_sizes
        ends = []
        for x in minibatches:
            chosen = y[torch.randperm(len(y), generator=generator)[: len(x)]]
            flow = follow_sinkhorn_flow(x[None], chosen[None], step_sizes, blur=0.1)
            ends.append(flow.positions[0, -1])
        return torch.cat(ends).numpy() * scale + mean

    return sample


def methods(free_plans=False):
    chosen = {"NSGFSampler": fit_nsgf, "particles": fit_particles}
    try:
        from torchcfm.conditional_flow_matching import (
            ConditionalFlowMatcher,
            ExactOptimalTransportConditionalFlowMatcher,
        )
    except ImportError:
        print("torchcfm is not installed: OT-CFM and flow matching are left out")
        return chosen
    chosen["OT-CFM"] = fit_matching(ExactOptimalTransportConditionalFlowMatcher(sigma=0.0))
    chosen["flow matching"] = fit_matching(ConditionalFlowMatcher(sigma=0.0))
    if free_plans:
        chosen["OT-CFM, free plans"] = chosen["OT-CFM"]
    return chosen


def calibrate(fit, source, target, budget):
    """Iterations that fill the budget, from the slope of two short runs."""
    seconds = []
    for factor in (1, 1, 2):  # the first warms up
        start = time.perf_counter()
        fit(source, target, factor * CALIBRATION_ITER, 0)
        seconds.append(time.perf_counter() - start)
    slope = max((seconds[2] - seconds[1]) / CALIBRATION_ITER, 1e-6)
    return max(1, int((budget - seconds[1]) / slope) + CALIBRATION_ITER)


def tune(fit, task, max_iter):
    """The learning rate that ends nearest to the target on data no result is taken on."""
    source, target = make_task(task, N_TRAIN, random_state=TUNING_SEED)
    points, fresh = make_task(task, N_TRAIN, random_state=1000 + TUNING_SEED)

    def distance(rate):
        sample = fit(source, target, max_iter, TUNING_SEED, learning_rate=rate)
        return energy_distance(sample(points, 10), fresh)

    return min(LEARNING_RATES, key=distance)


def evaluate(rows, fresh):
    return {"w2": w2_distance(rows[:N_W2], fresh[:N_W2]), "energy": energy_distance(rows, fresh)}


def run(args):
    records, iterations, rates = [], {}, {}
    everything = methods(args.free_plans)
    source, target = make_task(args.tasks[0], N_TRAIN, random_state=TUNING_SEED)
    for name, fit in everything.items():
        if name not in ("particles", "OT-CFM, free plans"):
            iterations[name] = calibrate(fit, source, target, args.budget)
    if args.free_plans:
        iterations["OT-CFM, free plans"] = iterations["flow matching"]
    bar = tqdm(total=len(args.tasks) * args.seeds * len(everything))
    for task in args.tasks:
        for name in everything if args.tune else ():
            if name in ("OT-CFM", "flow matching"):
                bar.set_description(f"{task}, {name}, learning rate")
                rates[f"{task}, {name}"] = tune(everything[name], task, iterations[name])
        for seed in range(args.seeds):
            source, target = make_task(task, N_TRAIN, random_state=seed)
            points, fresh = make_task(task, N_TRAIN, random_state=1000 + seed)
            _, other = make_task(task, N_TRAIN, random_state=2000 + seed)
            base = {"task": task, "seed": seed}
            records.append({**base, "method": "floor", "nfe": 0, **evaluate(other, fresh)})
            for name, fit in everything.items():
                bar.set_description(f"{task}, {name}")
                rate = rates.get(f"{task}, {name.split(',')[0]}")
                start = time.perf_counter()
                sample = fit(
                    source,
                    target,
                    iterations.get(name),
                    seed,
                    **({"learning_rate": rate} if rate else {}),
                )
                seconds = time.perf_counter() - start
                for nfe in NFES:
                    result = evaluate(sample(points, nfe), fresh)
                    records.append(
                        {**base, "method": name, "nfe": nfe, "fit_seconds": seconds, **result}
                    )
                bar.update()
    bar.close()
    return {
        "machine": machine(args),
        "iterations": iterations,
        "learning_rates": rates,
        "records": records,
    }


def machine(args):
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "threads": args.threads,
        "budget": args.budget,
        "sknsgf": __version__,
        "torch": torch.__version__,
    }


def draw(result, path):
    """Energy distance of every method, one panel a task."""
    import matplotlib.pyplot as plt

    records = result["records"]
    tasks = list(dict.fromkeys(r["task"] for r in records))
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(3 * len(tasks), 3), layout="constrained", squeeze=False
    )
    for task, ax in zip(tasks, axes[0], strict=True):
        for method in dict.fromkeys(r["method"] for r in records if r["nfe"]):
            means = [
                1e3
                * np.mean(
                    [
                        r["energy"]
                        for r in records
                        if (r["task"], r["method"], r["nfe"]) == (task, method, nfe)
                    ]
                )
                for nfe in NFES
            ]
            ax.plot(NFES, means, marker="o", label=method)
        floor = [1e3 * r["energy"] for r in records if (r["task"], r["nfe"]) == (task, 0)]
        ax.axhspan(min(floor), max(floor), color="0.85", label="floor")
        ax.set(title=task, xscale="log", yscale="symlog", xlabel="function evaluations")
    axes[0, 0].set_ylabel("energy distance x 1000")
    axes[0, -1].legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)


def print_table(result):
    records = result["records"]
    print(f"\niterations in the budget: {result['iterations']}")
    print(f"learning rates of the baselines: {result['learning_rates'] or LEARNING_RATES[0]}")
    print("W2 / energy distance x 1000, mean +- sd over seeds\n")
    names = list(dict.fromkeys((r["method"], r["nfe"]) for r in records))
    for task in dict.fromkeys(r["task"] for r in records):
        print(task)
        for method, nfe in names:
            cell = [
                r for r in records if (r["task"], r["method"], r["nfe"]) == (task, method, nfe)
            ]
            w2, energy = (np.array([r[key] for r in cell]) for key in ("w2", "energy"))
            seconds = np.mean([r.get("fit_seconds", math.nan) for r in cell])
            print(
                f"  {method:20s}{nfe or '':>4}  {w2.mean():.3f} +- {w2.std():.3f}   "
                f"{1e3 * energy.mean():6.1f} +- {1e3 * energy.std():4.1f}   fit {seconds:5.1f} s"
            )


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=15, help="seconds from data to model")
    parser.add_argument("--tune", action="store_true", help="tune the baselines' rates")
    parser.add_argument("--free-plans", action="store_true", help="OT-CFM without plan time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    result = run(args)
    print_table(result)
    if args.figure:
        draw(result, args.figure)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
