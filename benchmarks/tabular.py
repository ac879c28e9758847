"""Generated tables against held-out rows, beside scikit-learn's density estimators.

Three datasets of scikit-learn, standardised by column before every method, split at random into
training rows, test rows and other real rows; the other rows give the floor of every figure.

    python benchmarks/tabular.py --splits 10 --json result.json
    python benchmarks/tabular.py --report --json result.json

Columns: energy distance and two-sample AUC (0.5: cannot be told apart) against the test rows,
W2 beside its floor, and memorisation, the median distance of generated rows to their nearest
training row over that of test rows (1: as fresh as real data, near 0: copies).

The samplers have their defaults. OT-CFM stops early as they do, by the loss on a tenth of the
rows, so that it is not made to copy the rest; its steps at most are theirs. What the file holds
of other datasets, splits and methods is kept, so that a comparison can be made in turns, and
several files are reported as one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flow_matching import follow, matchers, train_on_lines
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm
from two_dimensional import FLOOR, Record, interval, machine, replace, select, unique

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.metrics import energy_distance, two_sample_auc, w2_distance
from sknsgf.networks import VelocityMLP

DATASETS = {
    "breast cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "digits": load_digits,
}
METRICS = ("energy", "auc", "w2", "memorisation")
KEYS = ("dataset", "seed", "method")
OURS = "NSGFSampler"
MAX_ITER = 3000  # the default of the samplers

Generate = Callable[[NDArray, int, int], NDArray]  # (training rows, number wanted, seed)


# Methods


def generate_nsgf(train_rows: NDArray, n: int, seed: int) -> NDArray:
    """NSGFSampler with its defaults."""
    return NSGFSampler(source="gaussian", random_state=seed).fit(train_rows).sample(n)


def generate_plus_plus(train_rows: NDArray, n: int, seed: int) -> NDArray:
    """NSGFPlusPlus with its defaults."""
    return NSGFPlusPlus(source="gaussian", random_state=seed).fit(train_rows).sample(n)


def generate_mixture(train_rows: NDArray, n: int, seed: int) -> NDArray:
    """A Gaussian mixture whose size and covariance the Bayesian information criterion chose."""
    candidates = [
        GaussianMixture(k, covariance_type=kind, reg_covar=1e-4, random_state=seed)
        for k in (1, 2, 4, 8, 16)
        for kind in ("full", "diag")
    ]
    fitted = [mixture.fit(train_rows) for mixture in candidates]
    return min(fitted, key=lambda mixture: mixture.bic(train_rows)).sample(n)[0]


def generate_kernel(train_rows: NDArray, n: int, seed: int) -> NDArray:
    """A kernel density whose bandwidth cross-validation chose."""
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.05, 2, 12)})
    return search.fit(train_rows).best_estimator_.sample(n, random_state=seed)


def generate_ot_cfm(matcher: Any, train_rows: NDArray, n: int, seed: int) -> NDArray:
    """OT-CFM from noise as wide as the rows, in 100 evaluations."""
    mean, scale = train_rows.mean(0), train_rows.std()
    y = torch.from_numpy((train_rows - mean) / scale).float()
    kept, held_out = y[len(y) // 10 :], y[: len(y) // 10]  # a random split shuffled them

    def draw(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
        ends = rows[torch.randint(len(rows), (size,))]
        return torch.randn_like(ends), ends

    network = train_on_lines(
        matcher,
        lambda: VelocityMLP(y.shape[1]),
        partial(draw, kept),
        seed=seed,
        max_iter=MAX_ITER,
        learning_rate=1e-2,
        draw_unseen=partial(draw, held_out),
    )
    return follow(network, torch.randn(n, y.shape[1]), nfe=100).numpy() * scale + mean


def methods() -> dict[str, Generate]:
    """Every method; without torchcfm all but OT-CFM."""
    chosen: dict[str, Generate] = {
        "NSGFSampler": generate_nsgf,
        "NSGFPlusPlus": generate_plus_plus,
        "GaussianMixture": generate_mixture,
        "KernelDensity": generate_kernel,
    }
    if available := matchers():
        chosen["OT-CFM"] = partial(generate_ot_cfm, available["OT-CFM"])
    return chosen


# Measurement


def split(X: NDArray, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    """Training rows, test rows and other rows, standardised by the first."""
    rows, rest = train_test_split(X, test_size=0.4, random_state=seed)
    scaler = StandardScaler().fit(rows)
    half = len(rest) // 2
    rows, test, other = map(scaler.transform, (rows, rest[:half], rest[half : 2 * half]))
    return rows, test, other


def evaluate(rows: NDArray, train_rows: NDArray, test: NDArray, seed: int) -> Record:
    """Every metric of as many generated rows as there are test rows."""
    nearest = NearestNeighbors(n_neighbors=1).fit(train_rows)
    generated, real = (np.median(nearest.kneighbors(some)[0]) for some in (rows, test))
    return {
        "energy": energy_distance(rows, test),
        "auc": two_sample_auc(rows, test, random_state=seed),
        "w2": w2_distance(rows, test),
        "memorisation": float(generated / real),
    }


def run(dataset: str, seed: int, chosen: dict[str, Generate]) -> Iterator[Record]:
    """Yield what was measured of every method on one split."""
    rows, test, other = split(DATASETS[dataset]().data, seed)
    base = {"dataset": dataset, "seed": seed}
    yield {**base, "method": FLOOR, **evaluate(other, rows, test, seed)}
    for method, generate in chosen.items():
        start = time.process_time()
        generated = generate(rows, len(test), seed)
        seconds = time.process_time() - start
        result = evaluate(generated, rows, test, seed)
        yield {**base, "method": method, "seconds": seconds, **result}


# Report


def report(result: Record) -> None:
    """Print two tables a dataset, in Markdown."""
    records = result["records"]
    print("\nmean and half-width of its 95 % interval over splits")
    for dataset in unique(records, "dataset"):
        print(f"\n| {dataset} | " + " | ".join(METRICS) + " | seconds |\n" + "|---" * 6 + "|")
        names = unique(select(records, dataset=dataset), "method")
        for method in names:
            print(_row(method, select(records, dataset=dataset, method=method)))
        ours = select(records, dataset=dataset, method=OURS)
        others = [
            theirs
            for method in names
            if (theirs := select(records, dataset=dataset, method=method)) != ours
            and unique(theirs, "seed") == unique(ours, "seed")
        ]
        if others:
            print(f"\n| {OURS} minus | " + " | ".join(METRICS) + " |\n" + "|---" * 5 + "|")
        for theirs in others:
            print(_difference(theirs[0]["method"], ours, theirs))


def _values(chosen: list[Record], metric: str) -> NDArray:
    return np.array([record[metric] for record in chosen])


def _row(method: str, chosen: list[Record]) -> str:
    cells = ["{:.3f} ± {:.3f}".format(*interval(_values(chosen, key))) for key in METRICS]
    seconds = np.mean([record.get("seconds", 0) for record in chosen])
    return f"| {method} | " + " | ".join(cells) + f" | {seconds:.1f} |"


def _difference(method: str, ours: list[Record], theirs: list[Record]) -> str:
    cells = [
        "{:+.3f} ± {:.3f}".format(*interval(_values(ours, key) - _values(theirs, key)))
        for key in METRICS
    ]
    return f"| {method} | " + " | ".join(cells) + " |"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--methods", nargs="+", help="only these, by the names in the tables")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures, kept up as it runs")
    parser.add_argument("--merge", nargs="+", type=Path, help="other such files, taken in first")
    parser.add_argument("--report", action="store_true", help="only report what the files hold")
    return parser.parse_args()


def main() -> None:
    """Compare on each dataset, report, and write the figures."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    result = load(*filter(None, [arguments.json, *(arguments.merge or ())]))
    chosen = {
        name: generate
        for name, generate in methods().items()
        if name in (arguments.methods or methods())
    }
    for dataset in () if arguments.report else arguments.datasets:
        for seed in tqdm(range(arguments.splits), dataset):
            result = replace(result, list(run(dataset, seed, chosen)), KEYS)
            result["machine"] = machine(arguments)
            save(arguments.json, result)
    if arguments.merge:
        save(arguments.json, result)
    report(result)


def load(*paths: Path) -> Record:
    """What earlier runs left in the files."""
    result: Record = {"records": []}
    for path in filter(Path.exists, paths):
        read = json.loads(path.read_text())
        result = {**read, **replace(result, read["records"], KEYS)}
    return result


def save(path: Path | None, result: Record) -> None:
    """Write the figures."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
