"""Generated images against held-out ones, every method with the same network and budget.

The budget is processor time from data to model; that of NSGFPlusPlus covers all its parts.
Iterations are calibrated to it by short runs; no method reads a clock.

    python benchmarks/images.py --network mlp --batch 256 --splits 10 --json result.json
    python benchmarks/images.py --dataset mnist14 --data mnist.npz --budget 720
    python benchmarks/images.py --splits 0 --merge one.json other.json --json result.json

With the perceptron, which learns faster than the U-Net on images of 64 pixels and one core. What
the files hold of other datasets, methods and splits is kept, so that a comparison can be made in
turns, or by several processes that each write their own.

Datasets: scikit-learn's digits; MNIST, and MNIST averaged over 2 x 2 pixels, from an archive as
read by `sknsgf.datasets.load_images`; CIFAR-10 from one like it. Values run from -1 to 1.

Figures against held-out images, means over batches of as many generated ones, each beside those of
the training set itself, dealt once and drawn with replacement: unbiased energy distance; AUC of a
classifier that tells them apart; in the last hidden layer of a classifier of the labels that is
trained here on the training set, the Fréchet distance of Gaussians ("classifier-FID", which is not
FID) and k-nearest-neighbour precision and recall; half the L1 distance of the histograms of
predicted labels; mean probability of the top label; W2; and the median distance to the nearest
training image over that of held-out images (near 0: copies).

The baselines are torchcfm's matchers (``pip install --no-deps torchcfm``) with our network and
training loop; ``--tune`` gives each the best of the learning rates, with and without stopping
early by a tenth of the images, on a split of its own: a favour ours are not given.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from flow_matching import BASELINES, follow, matchers, train_on_lines
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer
from torch import Tensor
from tqdm import tqdm

from sknsgf import NSGFPlusPlus, NSGFSampler, __version__
from sknsgf.datasets import load_images
from sknsgf.metrics import energy_distance, two_sample_auc, w2_distance
from sknsgf.networks import VelocityMLP, VelocityUNet
from sknsgf.ode import integrate

TUNING_SPLIT = 99
N_NEIGHBOURS = 3
HIDDEN = (128, 32)
FIRST_PHASE = 5  # steps of it
TO_THE_END = "NSGFPlusPlus, not stopped"
OURS = ("NSGFPlusPlus", TO_THE_END, "NSGFSampler")
PHASES = ("first phase alone", "second phase alone")
REDRAWN = "training set, redrawn"
METHODS = ("training set", REDRAWN, "NSGFPlusPlus", *PHASES, TO_THE_END, "NSGFSampler", *BASELINES)
CHOICES = ("max_iter", "learning_rate", "stops_early")
ASKED = ("dataset", "budget", "network", "width", "patch", "batch", "share", "t_end")  # recorded

Record = dict[str, Any]
Sample = Callable[[int, int], NDArray]


class Model(NamedTuple):
    """A fitted method: samples in so many evaluations, and its phases one by one."""

    sample: Sample
    phases: dict[str, Callable[[int], NDArray]]
    least: int = 1  # evaluations it needs


class Images:
    """One split of a dataset: training and held-out rows with labels."""

    def __init__(self, args: argparse.Namespace, split: int):
        rows, labels, self.shape = read(args)
        self.train, rest, self.labels, self.test_labels = train_test_split(
            rows, labels, test_size=args.test, random_state=split, stratify=labels
        )
        self.test = rest


def read(args: argparse.Namespace) -> tuple[NDArray, NDArray, tuple[int, int, int]]:
    """Read rows from -1 to 1, labels and the shape of an image."""
    if args.dataset == "digits":
        digits = load_digits()
        return (digits.data / 8 - 1).astype(np.float32), digits.target, (1, 8, 8)
    images = load_images(args.data, n_samples=args.limit)
    rows, shape = 2 * images.data - 1, images.image_shape
    if args.dataset == "mnist14":
        rows = rows.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(rows), -1)
        shape = (1, 14, 14)
    return rows, images.target, shape


# Methods


def network_of(args: argparse.Namespace) -> Callable[[tuple[int, ...]], torch.nn.Module]:
    """Make the network that every method gets."""
    if args.network == "mlp":
        return lambda shape: VelocityMLP(int(np.prod(shape)))
    return partial(VelocityUNet, width=args.width, patch_size=args.patch)


def fit_nsgf(args: argparse.Namespace, images: Images, max_iter: int, seed: int) -> Model:
    """NSGFSampler, to t = 1."""
    flow = NSGFSampler(
        source="gaussian",
        network="mlp" if args.network == "mlp" else network_of(args),
        image_shape=images.shape,
        max_iter=max_iter,
        learning_rate=args.rate or "auto",
        batch_size=args.batch,
        random_state=seed,
    ).fit(images.train)
    return Model(lambda n, nfe: flow.set_params(n_sampling_steps=nfe).sample(n), {})


def fit_plus_plus(
    args: argparse.Namespace,
    images: Images,
    max_iter: int,
    seed: int,
    *,
    early_stopping: bool | str = "auto",
) -> Model:
    """NSGFPlusPlus; a first phase of fewer training steps."""
    network = "mlp" if args.network == "mlp" else network_of(args)
    model = NSGFPlusPlus(
        sinkhorn_flow=NSGFSampler(
            n_steps=FIRST_PHASE,
            t_end=args.t_end,
            network=network,
            max_iter=max(1, int(args.share * max_iter)),
            learning_rate=args.rate or "auto",
            batch_size=args.batch,
            early_stopping=early_stopping,
        ),
        straight_from=args.straight_from,
        coupling=args.coupling,
        switch=args.switch,
        source="gaussian",
        network=network,
        image_shape=images.shape,
        max_iter=max_iter,
        learning_rate=args.rate or "auto",
        batch_size=args.batch,
        random_state=seed,
    ).fit(images.train)
    spent = FIRST_PHASE + (model.time_predictor_ is not None)

    def sample(n: int, nfe: int) -> NDArray:
        return model.set_params(n_straight_steps=nfe - spent).sample(n)

    phases = {"first phase alone": model.sinkhorn_flow_.sample} if early_stopping else {}
    if model.straight_from == "source":
        phases["second phase alone"] = partial(straight_alone, model)
    return Model(sample, phases, spent + 1)


@torch.no_grad()
def straight_alone(model: NSGFPlusPlus, n: int) -> NDArray:
    """Points that the straight flow carries all the way from the source."""
    x = model.source_.draw(n, torch.Generator().manual_seed(0))
    end = integrate(model.straight_network_, x, torch.linspace(0, 1, 26)).x[-1]
    return end.numpy() * model.scale_ + model.mean_


def fit_matching(
    matcher: Any,
    args: argparse.Namespace,
    images: Images,
    max_iter: int,
    seed: int,
    *,
    learning_rate: float | None = None,
    stops_early: bool = False,
) -> Model:
    """Flow matching by one of torchcfm's matchers."""
    mean, scale = images.train.mean(0), float((images.train - images.train.mean(0)).std())
    y = torch.from_numpy((images.train - mean) / scale).float()
    n_held_out = len(y) // 10 if stops_early else 0

    def draw(rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, y.shape[1]), rows[torch.randint(len(rows), (n,))]

    network = train_on_lines(
        matcher,
        lambda: network_of(args)(images.shape),
        partial(draw, y[n_held_out:]),
        seed=seed,
        max_iter=max_iter,
        learning_rate=learning_rate or args.rates[0],
        batch_size=args.batch,
        draw_unseen=partial(draw, y[:n_held_out]) if stops_early else None,
    )

    def sample(n: int, nfe: int) -> NDArray:
        start = torch.randn(n, y.shape[1], generator=torch.Generator().manual_seed(seed))
        ends = torch.cat([follow(network, x, nfe) for x in start.split(1000)])
        return ends.numpy() * scale + mean

    return Model(sample, {})


def methods(args: argparse.Namespace) -> dict[str, Callable[..., Model]]:
    """Fits, by name: called with images, iterations and a seed."""
    chosen: dict[str, Callable[..., Any]] = {
        "NSGFPlusPlus": fit_plus_plus,
        TO_THE_END: partial(fit_plus_plus, early_stopping=False),
        "NSGFSampler": fit_nsgf,
    }
    chosen |= {name: partial(fit_matching, matcher) for name, matcher in matchers().items()}
    return {name: partial(fit, args) for name, fit in chosen.items() if name in args.methods}


def calibrate(fit: Callable[..., Model], images: Images, args: argparse.Namespace) -> int:
    """Iterations that fill the budget, from the slope of two runs long enough to tell it."""

    def seconds(max_iter: int) -> float:
        start = time.process_time()
        fit(images, max_iter=max_iter, seed=0)
        return time.process_time() - start

    n = args.calibration
    seconds(n)  # warms up
    short, long = seconds(n), seconds(2 * n)
    while long < 1.2 * short:
        n, short, long = 2 * n, long, seconds(4 * n)
    return max(1, int((args.budget - short) / (long - short) * n) + n)


def tune(fit: Callable[..., Model], max_iter: int, args: argparse.Namespace) -> Record:
    """What ends nearest to held-out images of a split of its own."""
    images = Images(args, TUNING_SPLIT)

    def distance(options: Record) -> float:
        model = fit(images, max_iter=max_iter, seed=TUNING_SPLIT, **options)
        return energy_distance(model.sample(args.generate, max(args.nfes)), images.test)

    choices = product(args.rates, (False, True))
    return min(
        ({"learning_rate": rate, "stops_early": stops} for rate, stops in choices), key=distance
    )


# Figures


class Judge:
    """A classifier of the labels and what follows from it."""

    def __init__(self, images: Images, seed: int):
        self.images, self.seed = images, seed
        with warnings.catch_warnings(action="ignore"):
            self.classifier = MLPClassifier(
                HIDDEN, early_stopping=len(images.train) > 5000, random_state=seed
            ).fit(images.train, images.labels)
        self.nearest = NearestNeighbors(n_neighbors=1).fit(images.train)
        self.fresh = np.median(self.nearest.kneighbors(images.test)[0])

    def features(self, rows: NDArray) -> NDArray:
        """Last hidden layer."""
        layers = zip(self.classifier.coefs_[:-1], self.classifier.intercepts_, strict=False)
        for weights, bias in layers:
            rows = np.maximum(rows @ weights + bias, 0)
        return rows

    def histogram(self, rows: NDArray) -> NDArray:
        """Share of each predicted label."""
        labels = LabelBinarizer().fit(self.classifier.classes_)
        return labels.transform(self.classifier.predict(rows)).mean(0)

    def __call__(self, rows: NDArray) -> Record:
        """Every figure of generated rows, a mean over batches of as many as are held out."""
        n = min(len(self.images.test), len(rows))
        figures = [self._judge(rows[i : i + n]) for i in range(0, len(rows) - n + 1, n)]
        return {name: float(np.mean([each[name] for each in figures])) for name in figures[0]}

    def _judge(self, rows: NDArray) -> Record:
        test = self.images.test
        ours, real = self.features(rows), self.features(test)
        histograms = self.histogram(rows), self.histogram(test)
        return {
            "energy": energy_distance(rows, test),
            "classifier_fid": frechet_distance(ours, real),
            "auc": two_sample_auc(rows[:2000], test[:2000], random_state=self.seed),
            "precision": coverage(ours, real),
            "recall": coverage(real, ours),
            "histogram": float(np.abs(histograms[0] - histograms[1]).sum() / 2),
            "top_probability": float(self.classifier.predict_proba(rows).max(1).mean()),
            "w2": w2_distance(rows[:1000], test[:1000]),
            "memorisation": float(np.median(self.nearest.kneighbors(rows)[0]) / self.fresh),
            "variance": float(rows.var(0).sum() / test.var(0).sum()),
        }


def frechet_distance(x: NDArray, y: NDArray) -> float:
    """Squared Fréchet distance between Gaussians fitted to two clouds."""
    a, b = np.cov(x.T), np.cov(y.T)
    roots = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b) - 2 * roots.sum())


def coverage(x: NDArray, y: NDArray) -> float:
    """Share of x within the distance of some y to its k-th neighbour (Kynkäänniemi 2019)."""
    neighbours = NearestNeighbors(n_neighbors=N_NEIGHBOURS + 1).fit(y)
    radii = neighbours.kneighbors(y)[0][:, -1]
    distances = np.linalg.norm(x[:, None] - y[None], axis=-1) if len(x) * len(y) < 2e6 else None
    if distances is not None:
        return float((distances <= radii).any(1).mean())
    return float(np.mean([(np.linalg.norm(row - y, axis=1) <= radii).any() for row in x]))


def run(args: argparse.Namespace, earlier: list[Record]) -> Iterator[Record]:
    """Every method on every split, one record after the other."""
    fits = methods(args)
    choices = {name: settle(name, fit, args, earlier) for name, fit in fits.items()}
    print("in the budget:", choices, flush=True)
    for split in tqdm(range(args.first, args.first + args.splits), disable=None):
        judge = Judge(Images(args, split), split)
        yield from judge_training_set(judge, args)
        for name, fit in fits.items():
            yield from judge_method(name, fit, choices[name], judge, args)


def settle(
    name: str, fit: Callable[..., Model], args: argparse.Namespace, earlier: list[Record]
) -> Record:
    """Iterations and, for a baseline, what it was tuned to: as on earlier splits, or anew."""
    for record in earlier:
        if (record["dataset"], record["method"]) == (args.dataset, name):
            return {key: record[key] for key in CHOICES if key in record}
    max_iter = calibrate(fit, Images(args, TUNING_SPLIT), args)
    tuned = tune(fit, max_iter, args) if args.tune and name in BASELINES else {}
    return {"max_iter": max_iter, **tuned}


def judge_training_set(judge: Judge, args: argparse.Namespace) -> Iterator[Record]:
    """What the training set scores, dealt once and drawn at random: a perfect memory of it."""
    images, rng = judge.images, np.random.default_rng(judge.seed)
    own = images.train[rng.permutation(len(images.train))[: args.generate]]
    redrawn = images.train[rng.integers(len(images.train), size=args.generate)]
    real = judge.classifier.predict_proba(images.test).max(1).mean()
    yield {
        "split": judge.seed,
        "method": "training set",
        "nfe": 0,
        **judge(own),
        "top_probability_test": float(real),
        "accuracy_test": judge.classifier.score(images.test, images.test_labels),
    }
    yield {"split": judge.seed, "method": REDRAWN, "nfe": 0, **judge(redrawn)}


def judge_method(
    name: str,
    fit: Callable[..., Model],
    choices: Record,
    judge: Judge,
    args: argparse.Namespace,
) -> Iterator[Record]:
    """Fit once, judge at every number of evaluations, and the phases alone."""
    start = time.process_time()
    model = fit(judge.images, seed=judge.seed, **choices)
    seconds = time.process_time() - start
    base = {"split": judge.seed, "seconds": seconds, **choices}
    for nfe in (nfe for nfe in args.nfes if nfe >= model.least):
        yield {**base, "method": name, "nfe": nfe, **judge(model.sample(args.generate, nfe))}
    for phase, alone in model.phases.items():
        yield {**base, "method": phase, "nfe": 0, **judge(alone(args.generate))}
    if args.figure and judge.seed == args.first and name == "NSGFPlusPlus":
        draw(model.sample(100, args.nfes[0]), judge.images, args.figure)


def machine() -> Record:
    """Where and when."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": platform.processor() or platform.machine(),
        "sknsgf": __version__,
        "torch": torch.__version__,
    }


def draw(rows: NDArray, images: Images, path: Path) -> None:
    """A hundred generated images beside a hundred held-out ones."""
    import matplotlib.pyplot as plt

    from sknsgf.plotting import plot_images

    figure, axes = plt.subplots(1, 2, figsize=(10, 5.2), layout="constrained")
    plot_images(rows, images.shape, value_range=(-1, 1), ax=axes[0]).set_title("NSGFPlusPlus")
    plot_images(images.test[:100], images.shape, value_range=(-1, 1), ax=axes[1])
    axes[1].set_title("held-out images")
    figure.savefig(path, dpi=150, bbox_inches="tight")


COLUMNS = {
    "energy": 1e3,
    "classifier_fid": 1,
    "auc": 1,
    "precision": 1,
    "recall": 1,
    "histogram": 1,
    "top_probability": 1,
    "w2": 1,
    "memorisation": 1,
    "variance": 1,
    "seconds": 1,
}


def print_table(records: list[Record]) -> None:
    """Mean and standard deviation over splits."""
    print(f"{'':26s}{'nfe':>4}" + "".join(f"{name[:13]:>15s}" for name in COLUMNS))
    for method, nfe in dict.fromkeys((r["method"], r["nfe"]) for r in records):
        chosen = [r for r in records if (r["method"], r["nfe"]) == (method, nfe)]
        cells = []
        for name, factor in COLUMNS.items():
            values = factor * np.array([r.get(name, 0) for r in chosen])
            cells.append(f"{values.mean():8.3f} ±{values.std():5.3f}")
        print(f"{method:26s}{nfe or '':>4}" + "".join(f"{cell:>15s}" for cell in cells))
    real = np.mean([r["top_probability_test"] for r in records if r["method"] == "training set"])
    print(f"mean top probability of held-out images: {real:.3f}")


def merged(old: list[Record], new: list[Record]) -> list[Record]:
    """Records by dataset, split, method and evaluations, in that order; the later ones hold."""
    names = ("dataset", "split", "method", "nfe")
    together = {tuple(record[name] for name in names): record for record in [*old, *new]}
    order = {method: i for i, method in enumerate(METHODS)}
    ranks = lambda key: (key[0], order.get(key[2], len(order)), key[3], key[1])  # noqa: E731
    return [together[key] for key in sorted(together, key=ranks)]


def load(path: Path) -> list[Record]:
    """Records of an earlier run."""
    return json.loads(path.read_text())["records"] if path.exists() else []


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", type=Path, help="npz archive of the images, but for digits")
    parser.add_argument("--limit", type=int, help="use this many images only")
    parser.add_argument("--test", type=int, default=597, help="images held out")
    parser.add_argument("--generate", type=int, default=2400, help="images a method")
    parser.add_argument("--budget", type=float, default=60, help="processor seconds a method")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first split")
    parser.add_argument("--nfes", type=int, nargs="+", default=[25, 100])
    names = [*OURS, *BASELINES]
    parser.add_argument("--methods", nargs="*", default=names, choices=names)
    parser.add_argument("--merge", type=Path, nargs="+", default=(), help="take these files, too")
    parser.add_argument("--network", default="unet", choices=["mlp", "unet"])
    parser.add_argument("--width", type=int, default=32, help="of the U-Net")
    parser.add_argument("--patch", type=int, default=1, help="patch size of the U-Net")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.3, help="first phase's training steps")
    parser.add_argument("--straight-from", default="flow", choices=["flow", "source"])
    parser.add_argument("--t-end", type=float, default=0.5, help="of the first phase")
    parser.add_argument("--coupling", default="auto")
    parser.add_argument("--switch", default="predict", choices=["predict", "fixed"])
    parser.add_argument("--rate", type=float, help="learning rate of ours, else their default")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[2e-3], help="learning rates for the baselines"
    )
    parser.add_argument("--tune", action="store_true", help="choose among them, else the first")
    parser.add_argument("--calibration", type=int, default=20, help="iterations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run, report, and keep the file up as it goes."""
    args = parse()
    torch.set_num_threads(1)
    records = load(args.json) if args.json else []
    for path in args.merge:
        records = merged(records, load(path))
    for record in run(args, records) if args.splits else ():
        records = merged(records, [{**{name: vars(args)[name] for name in ASKED}, **record}])
        if args.json:
            save(records, args.json)
    if args.json:
        save(records, args.json)
    for dataset in dict.fromkeys(record["dataset"] for record in records):
        print(dataset)
        print_table([record for record in records if record["dataset"] == dataset])


def save(records: list[Record], path: Path) -> None:
    """Write the records beside where and when the last were made."""
    path.write_text(json.dumps({"machine": machine(), "records": records}, indent=1))


if __name__ == "__main__":
    main()
