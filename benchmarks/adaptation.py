"""Domain adaptation on digits: a classifier for images that come without labels.

Labelled digits as they are, unlabelled digits as another instrument would see them; the accuracy
on further digits of that instrument. Classifiers (logistic regression on standardised columns)
learn from

- the labelled rows as they are ("none"),
- the same after both domains are standardised by themselves ("standardised"),
- the labelled rows carried to the target by exact optimal transport, each to the mean of what it
  is coupled to ("exact OT", which moves no new rows), or by NSGFSampler (--max-iter steps),
- target rows with their labels ("oracle").

    python benchmarks/adaptation.py --json docs/benchmarks/adaptation.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import ot
import torch
from scipy.ndimage import gaussian_filter, shift
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from two_dimensional import machine

from sknsgf import NSGFSampler

N_SOURCE, N_TARGET = 700, 700


def on_images(change):
    return lambda X: np.stack([change(x.reshape(8, 8)).ravel() for x in X])


SHIFTS = {
    "0.4 x + 8": lambda X: 0.4 * X + 8,
    "blurred": on_images(lambda image: gaussian_filter(image, 1)),
    "one pixel to the right": on_images(lambda image: shift(image, (0, 1))),
    "inverted": lambda X: 16 - X,
}


def carry_nothing(source, target, seed, args):
    return source


def carry_exactly(source, target, seed, args):
    plan = ot.emd([], [], ot.dist(source, target))
    return len(source) * plan @ target


def carry_by_flow(source, target, seed, args):
    flow = NSGFSampler(max_iter=args.max_iter, random_state=seed)
    return flow.fit_transform(source, X_target=target)


def carry_standardised(source, target, seed, args):
    own, other = StandardScaler().fit(source), StandardScaler().fit(target)
    return other.inverse_transform(own.transform(source))


METHODS = {
    "none": carry_nothing,
    "standardised": carry_standardised,
    "exact OT": carry_exactly,
    "NSGFSampler": carry_by_flow,
}


def score(rows, labels, fresh, fresh_labels):
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return classifier.fit(rows, labels).score(fresh, fresh_labels)


def run(args):
    X, y = load_digits(return_X_y=True)
    records = []
    bar = tqdm(total=len(args.shifts) * args.seeds * len(METHODS))
    for name in args.shifts:
        for seed in range(args.seeds):
            order = np.random.default_rng(seed).permutation(len(X))
            source, target, fresh = np.split(order, [N_SOURCE, N_SOURCE + N_TARGET])
            X_target, X_fresh = (SHIFTS[name](X[some]) for some in (target, fresh))
            base = {"shift": name, "seed": seed}
            for method, carry in METHODS.items():
                bar.set_description(f"{name}, {method}")
                start = time.process_time()
                moved = carry(X[source], X_target, seed, args)
                seconds = time.process_time() - start
                accuracy = score(moved, y[source], X_fresh, y[fresh])
                records.append(
                    {**base, "method": method, "accuracy": accuracy, "seconds": seconds}
                )
                bar.update()
            accuracy = score(X_target, y[target], X_fresh, y[fresh])
            records.append({**base, "method": "oracle", "accuracy": accuracy})
    bar.close()
    return {"machine": {**machine(args), "max_iter": args.max_iter}, "records": records}


def print_table(result):
    records = result["records"]
    methods = list(dict.fromkeys(r["method"] for r in records))
    print(f"\n{'accuracy':24s}" + "".join(f"{method:>18s}" for method in methods))
    for name in dict.fromkeys(r["shift"] for r in records):
        cells = []
        for method in methods:
            chosen = [
                r["accuracy"] for r in records if (r["shift"], r["method"]) == (name, method)
            ]
            cells.append(f"{np.mean(chosen):.3f} ± {np.std(chosen):.3f}")
        print(f"{name:24s}" + "".join(f"{cell:>18s}" for cell in cells))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shifts", nargs="+", default=list(SHIFTS), choices=SHIFTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-iter", type=int, default=600, help="training steps of the flow")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.set_defaults(budget=None)
    return parser.parse_args()


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    result = run(args)
    print_table(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
