"""Generated tables against held-out rows, beside scikit-learn's density estimators.

Three datasets of scikit-learn, standardised by column before every method, split at random into
training rows, test rows and other real rows; the other rows give the floor of every figure.

    python benchmarks/tabular.py --splits 10 --json result.json

Columns: energy distance and two-sample AUC (0.5: cannot be told apart) against the test rows,
W2 beside its floor, and memorisation, the median distance of generated rows to their nearest
training row over that of test rows (1: as fresh as real data, near 0: copies).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from two_dimensional import calibrate, fit_matching, machine

from sknsgf import NSGFSampler
from sknsgf.metrics import energy_distance, two_sample_auc, w2_distance

DATASETS = {
    "breast cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "digits": load_digits,
}


def generate_nsgf(train, n, seed, max_iter):
    flow = NSGFSampler(source="gaussian", max_iter=max_iter, random_state=seed).fit(train)
    return flow.sample(n)


def generate_mixture(train, n, seed, max_iter):
    """A Gaussian mixture whose size and covariance the Bayesian information criterion chose."""
    candidates = [
        GaussianMixture(k, covariance_type=kind, reg_covar=1e-4, random_state=seed).fit(train)
        for k in (1, 2, 4, 8, 16)
        for kind in ("full", "diag")
    ]
    return min(candidates, key=lambda mixture: mixture.bic(train)).sample(n)[0]


def generate_kernel(train, n, seed, max_iter):
    """A kernel density whose bandwidth cross-validation chose."""
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.05, 2, 12)})
    return search.fit(train).best_estimator_.sample(n, random_state=seed)


def generate_ot_cfm(train, n, seed, max_iter):
    from torchcfm.conditional_flow_matching import ExactOptimalTransportConditionalFlowMatcher

    noise = np.random.default_rng(seed).normal(size=(20 * len(train), train.shape[1]))
    scaled = train.mean(0) + train.std() * noise
    matcher = ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    sample = fit_matching(matcher)(scaled, train, max_iter, seed)
    fresh = np.random.default_rng(seed + 1).normal(size=(n, train.shape[1]))
    return sample(train.mean(0) + train.std() * fresh, 100)


def methods():
    chosen = {
        "NSGFSampler": generate_nsgf,
        "GaussianMixture": generate_mixture,
        "KernelDensity": generate_kernel,
    }
    try:
        import torchcfm  # noqa: F401
    except ImportError:
        print("torchcfm is not installed: OT-CFM is left out")
        return chosen
    return {**chosen, "OT-CFM": generate_ot_cfm}


def evaluate(rows, train, test, seed):
    nearest = NearestNeighbors(n_neighbors=1).fit(train)
    distances = [np.median(nearest.kneighbors(some)[0]) for some in (rows, test)]
    return {
        "energy": energy_distance(rows, test),
        "auc": two_sample_auc(rows, test, random_state=seed),
        "w2": w2_distance(rows, test),
        "memorisation": distances[0] / distances[1],
    }


def run(args):
    records = []
    everything = methods()
    bar = tqdm(total=len(args.datasets) * args.splits * len(everything))
    for dataset in args.datasets:
        X = DATASETS[dataset]().data
        iterations = {}
        for split in range(args.splits):
            train, rest = train_test_split(X, test_size=0.4, random_state=split)
            scaler = StandardScaler().fit(train)
            train, (test, other) = (
                scaler.transform(train),
                (scaler.transform(half) for half in np.array_split(rest, 2)),
            )
            base = {"dataset": dataset, "split": split}
            records.append(
                {**base, "method": "floor", **evaluate(other[: len(test)], train, test, split)}
            )
            for name, generate in everything.items():
                bar.set_description(f"{dataset}, {name}")
                if name in ("NSGFSampler", "OT-CFM") and name not in iterations:
                    iterations[name] = calibrate(
                        lambda train, _, max_iter, seed, generate=generate: generate(
                            train, 10, seed, max_iter
                        ),
                        train,
                        None,
                        args.budget,
                    )
                start = time.perf_counter()
                rows = generate(train, len(test), split, iterations.get(name))
                seconds = time.perf_counter() - start
                result = evaluate(rows, train, test, split)
                records.append({**base, "method": name, "seconds": seconds, **result})
                bar.update()
    bar.close()
    return {"machine": machine(args), "records": records}


def print_table(result):
    records = result["records"]
    print("\nmean and half-width of the 95 % interval over splits\n")
    for dataset in dict.fromkeys(r["dataset"] for r in records):
        print(f"{dataset:18s}{'energy':>16s}{'AUC':>16s}{'W2':>16s}{'memorisation':>16s}{'s':>7s}")
        for method in dict.fromkeys(r["method"] for r in records):
            chosen = [r for r in records if (r["dataset"], r["method"]) == (dataset, method)]
            cells = []
            for key in ("energy", "auc", "w2", "memorisation"):
                values = np.array([r[key] for r in chosen])
                half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
                cells.append(f"{values.mean():9.3f} ± {half:.3f}")
            seconds = np.mean([r.get("seconds", 0) for r in chosen])
            print(
                f"  {method:16s}" + "".join(f"{cell:>16s}" for cell in cells) + f"{seconds:7.1f}"
            )


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--budget", type=float, default=15, help="seconds from data to model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
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
