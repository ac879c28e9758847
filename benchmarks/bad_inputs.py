"""What becomes of bad input: thousands of calls, each with one argument that cannot be used.

    python benchmarks/bad_inputs.py [--every 1] [--show 20]

Every call should be refused by an error that its docstring lists and that names the argument, and
leave the estimator as it was, to the byte of its pickle. Printed are the number of calls, the
share refused so, how many are accepted, how many change the estimator, and examples of each. Half
a minute on one core; `tests/test_bad_inputs.py` makes some two hundred of these calls.
"""

from __future__ import annotations

import argparse
import datetime
import pickle
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

import sknsgf
from sknsgf import (
    NSGFPlusPlus,
    NSGFSampler,
    algorithms,
    datasets,
    flow,
    metrics,
    networks,
    ode,
    plotting,
    sinkhorn,
    training,
)

matplotlib.use("Agg")

TINY = {"max_iter": 2, "hidden_layer_sizes": (4,), "random_state": 0}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 2)), RNG.normal(size=(25, 2)) + 5
T = torch.from_numpy(X).float()


class World:
    """What calls are made on: fitted once, a folder, a file."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    @cached_property
    def flow(self) -> Any:
        return NSGFSampler(**TINY).fit(X, Y)

    @cached_property
    def generator(self) -> Any:
        return NSGFSampler(source="gaussian", **TINY).fit(Y)

    @cached_property
    def phases(self) -> Any:
        return NSGFPlusPlus(**TINY).fit(X, Y)

    @cached_property
    def named(self) -> Any:
        return NSGFSampler(**TINY).fit(frame(X), frame(Y))

    @cached_property
    def pool(self) -> Any:
        return flow.simulate_sinkhorn_flow(**SIMULATION)

    @cached_property
    def path(self) -> Path:
        self.flow.save(self.folder / "flow.npz")
        return self.folder / "flow.npz"


@dataclass(frozen=True)
class Case:
    """One call: of what, which argument is bad and how, and on whose behalf."""

    of: str  # dotted name below sknsgf; its docstring lists the errors
    argument: str
    how: str
    call: Callable[[World], Any]
    names: str = ""  # pattern of what the message may call the argument
    owner: Callable[[World], Any] = field(default=lambda world: None)

    @property
    def title(self) -> str:
        return f"{self.of}({self.argument}: {self.how})"


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    case: Case
    error: BaseException | None
    unchanged: bool

    @property
    def documented(self) -> bool:
        return isinstance(self.error, documented_errors(self.case.of))

    @property
    def named(self) -> bool:
        pattern = self.case.names or rf"(?<![\w]){re.escape(self.case.argument)}(?![\w])"
        return self.error is not None and bool(re.search(pattern, str(self.error)))

    @property
    def good(self) -> bool:
        return self.documented and self.named and self.unchanged


def run(case: Case, world: World) -> Outcome:
    """Make a call and look at what is left."""
    owner = case.owner(world)
    before = snapshot(owner)
    error = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.call(world)
    except Exception as raised:
        error = raised
    finally:
        plt.close("all")
    return Outcome(case, error, snapshot(owner) == before)


def snapshot(owner: Any) -> dict[str, Any]:
    """Everything an object holds, as bytes where it can be pickled."""
    return (
        {name: _bytes(value) for name, value in vars(owner).items()} if owner is not None else {}
    )


def _bytes(value: Any) -> Any:
    try:
        return pickle.dumps(value)
    except Exception:
        return id(value)


def documented_errors(name: str) -> tuple[type[BaseException], ...]:
    """Return the errors that a docstring lists under Raises; a class's include its fit's."""
    item: Any = sknsgf
    for part in name.split("."):
        item = getattr(item, part)
    text = re.search(r"\n *Raises\n *-+\n(.*?)(\n\n *\w[^\n]*\n *-{3,}|\Z)", item.__doc__, re.S)
    words = re.findall(r"^ *([A-Z]\w+(?:, [A-Z]\w+)*)$", text[1] if text else "", re.M)
    kinds = {word for line in words for word in line.split(", ")}
    known = {"NotFittedError": ValueError, "PersistenceError": ValueError}
    return tuple(known.get(kind) or _builtin(kind) for kind in kinds)


def _builtin(kind: str) -> type[BaseException]:
    return getattr(__import__("builtins"), kind)


# What rows may not be


class Odd(Exception):
    """An error that needs more than a message."""

    def __init__(self, one: Any, two: Any):
        super().__init__(one, two)


class Unconvertible:
    """An array whose own conversion fails."""

    shape = (30, 2)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise Odd("no", "way")


def spoilt(rows: Any, value: Any) -> Any:
    rows = np.array(rows, dtype=np.asarray(value).dtype if not np.isscalar(value) else object)
    rows[1, 0] = value
    return rows


def frame(rows: Any, library: Any = pd, **columns: Any) -> Any:
    return library.DataFrame({"a": rows[:, 0], "b": rows[:, 1]} | columns)


def days(n: int) -> Any:
    return pd.date_range("2020-01-01", periods=n)


NUMBERLESS: dict[str, Callable[[Any], Any]] = {
    "NaN": lambda x: np.where(x == x.max(), np.nan, x),
    "infinity": lambda x: np.where(x == x.max(), np.inf, x),
    "minus infinity": lambda x: np.where(x == x.max(), -np.inf, x),
    "beyond float64": lambda x: np.where(x == x.max(), np.longdouble(10) ** 400, x),
    "an integer of 400 digits": lambda x: spoilt(x, 10**400),
    "None among numbers": lambda x: spoilt(x, None),
    "pandas.NA among numbers": lambda x: spoilt(x, pd.NA),
    "NaT among numbers": lambda x: spoilt(x, pd.NaT),
    "a dict among numbers": lambda x: spoilt(x, {}),
    "a timestamp among numbers": lambda x: spoilt(x, pd.Timestamp("2020-01-01")),
    "a date among numbers": lambda x: spoilt(x, datetime.date(2020, 1, 1)),
    "text among numbers": lambda x: spoilt(x, "1"),
    "a complex among numbers": lambda x: spoilt(x, 1j),
    "masked": lambda x: np.ma.masked_greater(x, 0),
    "text": lambda x: x.astype(str),
    "bytes": lambda x: x.astype(bytes),
    "complex": lambda x: x * 1j,
    "dates": lambda x: (x * 1e9).astype("datetime64[s]"),
    "durations": lambda x: (x * 1e9).astype("timedelta64[s]"),
    "records": lambda x: np.zeros(len(x), dtype=[("a", float), ("b", float)]),
    "sparse matrix": lambda x: sparse.csr_matrix(x),
    "sparse array": lambda x: sparse.coo_array(x),
    "sparse tensor": lambda x: torch.from_numpy(x).to_sparse(),
    "meta tensor": lambda x: torch.empty(x.shape, device="meta"),
    "complex tensor": lambda x: torch.from_numpy(x * 1j),
    "tensor with NaN": lambda x: torch.full(x.shape, torch.nan, requires_grad=True),
    "nested tensor": lambda x: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "ragged list": lambda x: [[1.0, 2.0], [3.0]],
    "list of None": lambda x: [None] * len(x),
    "list of masked rows": lambda x: list(np.ma.masked_greater(x, 0)),
    "an array that cannot be made": lambda x: Unconvertible(),
    "None": lambda x: None,
    "a word": lambda x: "rows",
    "a number": lambda x: 7.0,
    "a dict": lambda x: {"a": 1},
    "a set": lambda x: {1, 2},
    "a generator": lambda x: (row for row in x),
    "an object": lambda x: object(),
    "a class": lambda x: np.ndarray,
    "nothing": lambda x: [],
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[:, :0],
    "one dimension": lambda x: x[:, 0],
    "three dimensions": lambda x: x[:, :, None],
}
FRAMES: dict[str, Callable[[Any], Any]] = {
    "pandas, dates": lambda x: frame(x, b=days(len(x))),
    "pandas, dates with a zone": lambda x: frame(x, b=days(len(x)).tz_localize("UTC")),
    "pandas, durations": lambda x: frame(x, b=days(len(x)) - days(1)[0]),
    "pandas, periods": lambda x: frame(x, b=days(len(x)).to_period("D")),
    "pandas, numeric text": lambda x: frame(x, b=["1.5"] * len(x)),
    "pandas, categories": lambda x: frame(x, b=pd.Categorical([1] * len(x))),
    "pandas, NA": lambda x: frame(x, b=pd.array([1, *[None] * (len(x) - 1)], dtype="Int64")),
    "pandas, boolean NA": lambda x: frame(x, b=pd.array([None] * len(x), dtype="boolean")),
    "pandas, NaN": lambda x: frame(x, b=np.nan),
    "pandas, None": lambda x: frame(x, b=[None] * len(x)),
    "pandas, mixed names": lambda x: pd.DataFrame(x, columns=["a", 1]),
    "pandas, complex": lambda x: frame(x, b=1j),
    "polars, dates": lambda x: frame(x, pl, b=days(len(x)).date.tolist()),
    "polars, durations": lambda x: frame(x, pl, b=[datetime.timedelta(1)] * len(x)),
    "polars, text": lambda x: frame(x, pl, b=["1.5"] * len(x)),
    "polars, categories": lambda x: frame(x, pl, b=pl.Series(["u"] * len(x)).cast(pl.Categorical)),
    "polars, null": lambda x: frame(x, pl, b=[1.0, *[None] * (len(x) - 1)]),
    "polars, lists": lambda x: frame(x, pl, b=[[1.0]] * len(x)),
    "polars, lazy": lambda x: frame(x, pl).lazy(),
    "pandas, no rows": lambda x: frame(x)[:0],
}
ROWS = NUMBERLESS | FRAMES
OTHER_COLUMNS: dict[str, Callable[[Any], Any]] = {
    "another width": lambda x: np.hstack([x, x]),
    "another width, tensor": lambda x: torch.ones(5, 3),
    "another width, list": lambda x: [[1.0], [2.0]],
}
OTHER_NAMES: dict[str, Callable[[Any], Any]] = {
    "columns reordered": lambda x: frame(x)[["b", "a"]],
    "columns renamed": lambda x: frame(x).rename(columns={"a": "z"}),
    "polars, columns reordered": lambda x: frame(x, pl)[["b", "a"]],
}

# What numbers may not be

NO_NUMBER = {
    "None": None,
    "text": "1",
    "bytes": b"1",
    "complex": 1j,
    "True": True,
    "numpy's True": np.True_,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "-1": -1,
    "a list": [1],
    "an array": np.array([1.0, 2.0]),
    "an object": object(),
    "a dict": {},
    "an integer of 400 digits": 10**400,
}
NO_SIZE = NO_NUMBER | {"0": 0, "1.5": 1.5, "2.0": 2.0}
NO_POSITIVE = NO_NUMBER | {"0": 0.0}
NO_SHARE = NO_NUMBER | {"1.5": 1.5, "-0.1": -0.1}
NO_CHOICE = {"an unknown word": "unknown", "None": None, "1": 1, "a list": ["euler"], "True": True}
NO_SEED = {
    "text": "seed",
    "-1": -1,
    "1.5": 1.5,
    "True": True,
    "NaN": float("nan"),
    "too large": 2**32,
    "an object": object(),
    "a Generator": np.random.default_rng(0),
}
NO_PATH = {
    "None": None,
    "a number": 5,
    "bytes": b"x",
    "a zero": "a\0b",
    "nothing": "",
    "a list": [],
}
NO_TENSOR: dict[str, Callable[[Any], Any]] = {
    "an array": lambda x: x.numpy(),
    "a list": lambda x: x.tolist(),
    "None": lambda x: None,
    "integers": lambda x: x.long(),
    "half": lambda x: x.half(),
    "complex": lambda x: x * 1j,
    "sparse": lambda x: x.to_sparse(),
    "on the meta device": lambda x: x.to("meta"),
    "one dimension": lambda x: x[..., 0].flatten(),
    "no rows": lambda x: x[:0],
    "NaN": lambda x: x.index_fill(0, torch.tensor(1), torch.nan),
    "infinity": lambda x: x.index_fill(0, torch.tensor(1), torch.inf),
    "another width": lambda x: torch.cat([x, x], -1),
}


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


# The surface


def rows_of_samplers() -> Iterator[Case]:
    """Rows for every method of every sampler."""
    for attribute, cls in (("flow", "NSGFSampler"), ("phases", "NSGFPlusPlus")):

        def owner(world: World, attribute: str = attribute) -> Any:
            return getattr(world, attribute)

        fits: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
            ("fit", "X_source"): lambda m, x: m.fit(x, Y),
            ("fit", "X_target"): lambda m, x: m.fit(X, X_target=x),
            ("fit", "y"): lambda m, x: m.fit(X, x),
            ("partial_fit", "X_source"): lambda m, x: m.partial_fit(x, Y),
            ("partial_fit", "X_target"): lambda m, x: m.partial_fit(X, X_target=x),
            ("fit_transform", "X_source"): lambda m, x: m.fit_transform(x, X_target=Y),
            ("score", "X_source"): lambda m, x: m.score(x, Y),
            ("score", "X_target"): lambda m, x: m.score(X, X_target=x),
            ("evaluate", "X_source"): lambda m, x: m.evaluate(metrics.energy_distance, x, Y),
            ("evaluate", "X_target"): lambda m, x: m.evaluate(
                metrics.energy_distance, X, X_target=x
            ),
        }
        for (method, argument), call in fits.items():
            kinds = ROWS if argument == "X_source" and "fit" in method else ROWS | OTHER_COLUMNS
            for how, spoil in kinds.items():
                yield Case(
                    f"{cls}.{method}",
                    argument,
                    how,
                    lambda w, call=call, spoil=spoil, owner=owner: call(owner(w), spoil(X)),
                    names=r"[Tt]arget" if argument != "X_source" else "X_source",
                    owner=owner,
                )
        moves = ["transform", "inverse_transform", "trajectory", "round_trip_error"]
        moves += ["velocity"] * (cls == "NSGFSampler")
        for method in moves:
            for how, spoil in (ROWS | OTHER_COLUMNS).items():
                before = (0.5,) if method == "velocity" else ()

                def move(
                    w: World, o: Any = owner, m: str = method, s: Any = spoil, b: Any = before
                ) -> Any:
                    return getattr(o(w), m)(*b, s(X))

                yield Case(f"{cls}.{method}", "X", how, move, owner=owner)
    for how, spoil in ROWS.items():
        one = {"owner": lambda w: w.generator, "argument": "X", "how": how}
        yield Case("NSGFSampler.fit", call=lambda w, s=spoil: w.generator.fit(s(X)), **one)
        yield Case("NSGFSampler.score", call=lambda w, s=spoil: w.generator.score(s(X)), **one)
        yield Case(
            "NSGFSampler.score_samples",
            call=lambda w, s=spoil: w.generator.score_samples(s(X)),
            **one,
        )
    for how, spoil in OTHER_NAMES.items():
        named = {"owner": lambda w: w.named, "how": how}
        for method in ("transform", "inverse_transform", "trajectory"):
            yield Case(
                f"NSGFSampler.{method}",
                "X",
                call=lambda w, s=spoil, m=method: getattr(w.named, m)(s(X)),
                **named,
            )
        for method in ("fit", "score"):
            yield Case(
                f"NSGFSampler.{method}",
                "X_target",
                call=lambda w, s=spoil, m=method: getattr(w.named, m)(frame(X), X_target=s(Y)),
                **named,
            )


SIZES = ["n_steps", "n_particles", "max_iter", "batch_size"]
OPTIONAL_SIZES = ["n_targets", "n_simulations", "n_sampling_steps"]
REALS = {
    "blur": NO_POSITIVE,
    "step_size": without(NO_POSITIVE, "None"),
    "learning_rate": NO_POSITIVE,
    "score_blur": NO_POSITIVE,
    "t_end": NO_SHARE | {"0": 0.0},
    "ema_decay": NO_SHARE | {"1": 1.0},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "schedule": NO_CHOICE,
    "ode_method": NO_CHOICE,
    "early_stopping": without(NO_CHOICE, "True", "1"),
    "device": {"gpu": "gpu", "a word": "abacus", "meta": "meta", "99": "cuda:99", "None": None},
    "n_jobs": {"text": "all", "1.5": 1.5, "True": True, "0": 0},
    "random_state": without(NO_SEED, "a Generator") | {"a list": []},
    "warm_start": {"text": "yes", "None": None},
    "verbose": {"text": "loud", "-1": -1, "None": None},
    "hidden_layer_sizes": {
        "text": "64",
        "0": 0,
        "-64": -64,
        "True": True,
        "1.5": 1.5,
        "None": None,
        "a zero": (64, 0),
        "floats": (64.0,),
        "booleans": (True,),
        "nested": ((64,),),
    },
    "image_shape": {"text": "abc", "two": (1, 2), "another": (1, 28, 28), "0": (0, 1, 2), "7": 7},
    "network": {
        "a word": "transformer",
        "a number": 3,
        "None": None,
        "a class": torch.nn.Linear,
        "no weights": torch.nn.Identity(),
        "of another width": torch.nn.Linear(3, 3),
        "a function that fails": lambda shape: 1 / 0,
        "unet without images": "unet",
    },
    "pool_dir": {"a number": 5, "a list": []},
    "source": {
        "a word": "uniform",
        "an array": X,
        "a frame": frame(X),
        "a polars frame": frame(X, pl),
        "a class": StandardScaler,
        "without sample": StandardScaler(),
        "torch's normal": torch.distributions.Normal(0.0, 1.0),
        "torch's gaussian": torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)),
        "an unfitted flow": NSGFSampler(),
    },
}


class Wrong:
    """A source that returns what it should not."""

    def __init__(self, rows: Callable[[int], Any]):
        self.rows = rows

    def sample(self, n: int) -> Any:
        return self.rows(n)


OBJECTS["source"] |= {
    "of another width": Wrong(lambda n: np.zeros((n, 3))),
    "of one dimension": Wrong(lambda n: np.zeros(n)),
    "of too few rows": Wrong(lambda n: np.zeros((1, 2))),
    "of NaN": Wrong(lambda n: np.full((n, 2), np.nan)),
    "of text": Wrong(lambda n: np.full((n, 2), "1")),
    "of nothing": Wrong(lambda n: None),
    "that fails": Wrong(lambda n: 1 / 0),
}


def parameters_of_samplers() -> Iterator[Case]:
    """Parameters, one at a time, given to a fitted sampler that is fitted again."""
    values: dict[str, dict[str, Any]] = {name: NO_SIZE for name in SIZES}
    values |= {name: without(NO_SIZE, "None") for name in OPTIONAL_SIZES}
    values |= REALS | OBJECTS
    for attribute, cls in (("flow", NSGFSampler), ("phases", NSGFPlusPlus)):
        known = cls().get_params(deep=False)
        own = {name: kinds for name, kinds in values.items() if name in known}
        if cls is NSGFPlusPlus:
            own |= {
                "straight_from": NO_CHOICE,
                "coupling": NO_CHOICE,
                "switch": NO_CHOICE,
                "n_straight_steps": NO_SIZE,
                "straight_step_size": without(NO_SHARE, "None") | {"0": 0.0},
                "sinkhorn_flow": {
                    "a word": "fast",
                    "a class": NSGFSampler,
                    "another": StandardScaler(),
                    "of two phases": NSGFPlusPlus(),
                },
            }
        for name, kinds in own.items():
            for how, value in kinds.items():
                yield from _with_parameter(cls.__name__, attribute, name, how, value)


def _with_parameter(cls: str, attribute: str, name: str, how: str, value: Any) -> Iterator[Case]:
    made: dict[int, Any] = {}

    def owner(world: World) -> Any:
        if 0 not in made:
            fitted = getattr(world, attribute)
            made[0] = clone(fitted)
            vars(made[0]).update(vars(fitted))
            setattr(made[0], name, value)
        return made[0]

    def fit(world: World) -> Any:
        return owner(world).fit(Y) if name == "source" else owner(world).fit(X, Y)

    if name == "step_size":
        base = owner

        def owner(world: World) -> Any:
            base(world).schedule = "constant"
            return base(world)

    yield Case(f"{cls}.fit", name, how, fit, owner=owner)


def calls_of_samplers() -> Iterator[Case]:
    """All other arguments of methods."""
    for attribute, cls in (("flow", "NSGFSampler"), ("phases", "NSGFPlusPlus")):

        def owner(world: World, attribute: str = attribute) -> Any:
            return getattr(world, attribute)

        def case(
            method: str, argument: str, how: str, call: Any, cls: str = cls, owner: Any = owner
        ) -> Case:
            return Case(f"{cls}.{method}", argument, how, lambda w: call(owner(w)), owner=owner)

        for how, value in NO_SIZE.items():
            yield case("sample", "n_samples", how, lambda m, v=value: m.sample(v))
        for how, value in NO_SEED.items():
            yield case("sample", "random_state", how, lambda m, v=value: m.sample(random_state=v))
        for how, value in NO_CHOICE.items():
            yield case("transform", "domain", how, lambda m, v=value: m.transform(X, domain=v))
            yield case(
                "fit_transform", "domain", how, lambda m, v=value: m.fit_transform(X, Y, domain=v)
            )
        for how, value in {"text": "w2", "None": None, "a number": 1.0}.items():
            yield case("evaluate", "metric", how, lambda m, v=value: m.evaluate(v, X, Y))
        for method in ("fit", "score"):
            yield case(method, "target", "missing", lambda m, method=method: getattr(m, method)(X))
            yield case(
                method,
                "target",
                "labels",
                lambda m, method=method: getattr(m, method)(X, np.arange(30)),
            )
        if cls == "NSGFSampler":
            for how, value in NO_SHARE.items():
                yield case("velocity", "t", how, lambda m, v=value: m.velocity(v, X))
        unfitted = getattr(sknsgf, cls)()
        for method, before in {"sample": (), "transform": (X,), "score": (X, Y)}.items():
            yield Case(
                f"{cls}.{method}",
                "fitted",
                "not at all",
                lambda w, u=unfitted, m=method, b=before: getattr(u, m)(*b),
            )
        for how, value in NO_PATH.items():
            yield case("save", "path", how, lambda m, v=value: m.save(v))
            yield case("load", "path", how, lambda m, v=value: type(m).load(v))
        for how, value in {"None": None, "half": torch.float16, "text": "float32"}.items():
            yield case("learned_map", "dtype", how, lambda m, v=value: m.learned_map(v))
    yield from files()


def files() -> Iterator[Case]:
    def written(content: Callable[[bytes], bytes]) -> Callable[[World], Any]:
        def call(world: World) -> Any:
            path = world.folder / "spoilt.npz"
            path.write_bytes(content(world.path.read_bytes()))
            return NSGFSampler.load(path)

        return call

    contents: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda b: b"",
        "text": lambda b: b"no archive",
        "cut off": lambda b: b[: len(b) // 2],
        "a byte changed": lambda b: b[:500] + bytes([b[500] ^ 255]) + b[501:],
        "its end changed": lambda b: b[:-30] + bytes(30),
        "a magic number alone": lambda b: b"PK\x03\x04",
        "an empty archive": lambda b: b"PK\x05\x06" + bytes(18),
        "a pickle": lambda b: pickle.dumps([1, 2]),
    }
    for how, content in contents.items():
        yield Case("NSGFSampler.load", "spoilt.npz", how, written(content))
    yield Case(
        "NSGFSampler.load", "nowhere", "missing", lambda w: NSGFSampler.load(w.folder / "nowhere")
    )
    yield Case("NSGFSampler.load", "folder", "a folder", lambda w: NSGFSampler.load(w.folder), ".")
    yield Case(
        "NSGFPlusPlus.load", "NSGFSampler", "of another class", lambda w: NSGFPlusPlus.load(w.path)
    )
    given = {"device": {"gpu": "gpu", "None": None, "a number": 5}, "blur": {"-1": -1}}
    given["nonsense"] = {"unknown": 1}
    for name, kinds in given.items():
        for how, value in kinds.items():
            yield Case(
                "NSGFSampler.load",
                name,
                how,
                lambda w, n=name, v=value: NSGFSampler.load(w.path, **{n: v}),
            )
    for how, folder in {"in no folder": "no/such/folder/flow.npz", "a folder": "."}.items():
        yield Case(
            "NSGFSampler.save",
            "path",
            how,
            lambda w, f=folder: w.flow.save(w.folder / f),
            names=".",
            owner=lambda w: w.flow,
        )


def calls_of_metrics() -> Iterator[Case]:
    functions: dict[str, Callable[..., float]] = {
        "w2_distance": metrics.w2_distance,
        "energy_distance": metrics.energy_distance,
        "sinkhorn_divergence": lambda x, y: metrics.sinkhorn_divergence(x, y, blur=1.0),
        "two_sample_auc": lambda x, y: metrics.two_sample_auc(x, y, random_state=0),
    }
    for name, function in functions.items():
        for how, spoil in (ROWS | OTHER_COLUMNS).items():
            yield Case(f"metrics.{name}", "X", how, lambda w, f=function, s=spoil: f(s(X), Y))
            yield Case(f"metrics.{name}", "Y", how, lambda w, f=function, s=spoil: f(X, s(Y)))
        for how, spoil in OTHER_NAMES.items():
            yield Case(
                f"metrics.{name}", "Y", how, lambda w, f=function, s=spoil: f(frame(X), s(Y))
            )
    divergence, auc = metrics.sinkhorn_divergence, metrics.two_sample_auc
    for how, value in NO_POSITIVE.items():
        of = "metrics.sinkhorn_divergence"
        yield Case(of, "blur", how, lambda w, v=value: divergence(X, Y, blur=v))
        yield Case(of, "tol", how, lambda w, v=value: divergence(X, Y, blur=1.0, tol=v))
    of = "metrics.two_sample_auc"
    for how, value in (NO_SIZE | {"1": 1}).items():
        yield Case(of, "n_splits", how, lambda w, v=value: auc(X, Y, n_splits=v))
    for how, value in NO_SEED.items():
        yield Case(of, "random_state", how, lambda w, v=value: auc(X, Y, random_state=v))
    for how, value in {"a word": "svm", "no classifier": StandardScaler(), "3": 3}.items():
        yield Case(of, "classifier", how, lambda w, v=value: auc(X, Y, classifier=v))
    make, of = metrics.make_transport_scorer, "metrics.make_transport_scorer"
    for how, value in {"a word": "w2", "None": None, "a number": 1.0}.items():
        yield Case(of, "metric", how, lambda w, v=value: make(v))
    for how, value in without(NO_NUMBER, "None", "-1").items():
        yield Case(of, "optimum", how, lambda w, v=value: make(auc, optimum=v))
    for how, value in {"a word": "yes", "None": None, "1": 1}.items():
        yield Case(of, "greater_is_better", how, lambda w, v=value: make(auc, greater_is_better=v))
    scorer = make(metrics.energy_distance)
    for how, spoil in ROWS.items():
        shared = {"how": how, "owner": lambda w: w.flow}
        yield Case(of, "X_source", call=lambda w, s=spoil: scorer(w.flow, s(X), Y), **shared)
        yield Case(
            of,
            "X_target",
            call=lambda w, s=spoil: scorer(w.flow, X, X_target=s(Y)),
            names="[Tt]arget",
            **shared,
        )
    yield Case(of, "StandardScaler", "no sampler", lambda w: scorer(StandardScaler().fit(X), X, Y))


def calls_of_plots() -> Iterator[Case]:
    field, box = plotting.plot_velocity_field, {"xlim": (0, 1), "ylim": (0, 1)}
    flows, fields = plotting.FlowDisplay, plotting.VelocityFieldDisplay
    switches = plotting.SwitchTimeDisplay
    kinds = ROWS | OTHER_COLUMNS
    arrays: dict[tuple[str, str], Callable[[World, Any], Any]] = {
        ("plot_particles", "X"): lambda w, x: plotting.plot_particles(x),
        ("plot_trajectories", "states"): lambda w, x: plotting.plot_trajectories([x, x]),
        ("plot_images", "X"): lambda w, x: plotting.plot_images(x, (1, 1, 2)),
        ("plot_velocity_field", "velocity"): lambda w, x: field(lambda t, at: x, **box),
        ("FlowDisplay.from_estimator", "X"): lambda w, x: flows.from_estimator(w.flow, x),
        ("FlowDisplay.from_predictions", "states"): lambda w, x: flows.from_predictions([x, x]),
        ("VelocityFieldDisplay.from_estimator", "X"): lambda w, x: fields.from_estimator(
            w.flow, x
        ),
        ("VelocityFieldDisplay.from_predictions", "points"): lambda w, x: fields.from_predictions(
            x, X
        ),
        (
            "VelocityFieldDisplay.from_predictions",
            "velocities",
        ): lambda w, x: fields.from_predictions(X, x),
    }
    for (name, argument), call in arrays.items():
        for how, spoil in kinds.items():
            yield Case(f"plotting.{name}", argument, how, lambda w, c=call, s=spoil: c(w, s(X)))
    times = {
        "text": ["a"],
        "NaN": [np.nan],
        "above 1": [1.5],
        "below 0": [-0.1],
        "none": [],
        "two dimensions": X,
        "a number": 0.5,
        "None": None,
        "masked": np.ma.array([0.1, 0.2], mask=[0, 1]),
        "dates": days(3),
        "complex": [0.1j],
    }
    of = "plotting.SwitchTimeDisplay.from_predictions"
    for how, value in times.items():
        yield Case(of, "switch_times", how, lambda w, v=value: switches.from_predictions(v))
    for how, value in {"a word": "axes", "a number": 3, "a list": []}.items():
        draw: dict[str, Callable[[World, Any], Any]] = {
            "plot_particles": lambda w, v: plotting.plot_particles(X, ax=v),
            "plot_trajectories": lambda w, v: plotting.plot_trajectories([X, Y[:30]], ax=v),
            "plot_images": lambda w, v: plotting.plot_images(X, (1, 1, 2), ax=v),
            "plot_velocity_field": lambda w, v: field(lambda t, x: x, ax=v, **box),
            "plot_history": lambda w, v: plotting.plot_history(w.flow.history_, ax=v),
            "FlowDisplay.from_estimator": lambda w, v: flows.from_estimator(w.flow, X, ax=v),
            "FlowDisplay.from_predictions": lambda w, v: flows.from_predictions([X, X], ax=v),
            "SwitchTimeDisplay.from_predictions": lambda w, v: switches.from_predictions(
                [0.5], ax=v
            ),
        }
        draw.pop("plot_trajectories")
        for name, call in draw.items():
            yield Case(f"plotting.{name}", "ax", how, lambda w, c=call, v=value: c(w, v))
    estimators = {"None": None, "a class": NSGFSampler, "another": StandardScaler().fit(X)}
    for how, value in (estimators | {"not fitted": NSGFSampler()}).items():
        for display in (flows, fields):
            yield Case(
                f"plotting.{display.__name__}.from_estimator",
                "estimator",
                how,
                lambda w, d=display, v=value: d.from_estimator(v, X),
                names="estimator|NSGFSampler|StandardScaler",
            )
        yield Case(
            "plotting.SwitchTimeDisplay.from_estimator",
            "estimator",
            how,
            lambda w, v=value: switches.from_estimator(v),
            names="NSGFPlusPlus",
        )
    features = {
        "one": (0,),
        "three": (0, 1, 1),
        "the same": (1, 1),
        "beyond": (0, 2),
        "below": (0, -1),
        "unknown": ("a", "b"),
        "a word": "ab",
        "a number": 1,
        "booleans": (True, False),
        "floats": (0.0, 1.0),
        "None": (None, None),
    }
    for how, value in features.items():
        for display in (flows, fields):
            yield Case(
                f"plotting.{display.__name__}.from_estimator",
                "features",
                how,
                lambda w, d=display, v=value: d.from_estimator(w.flow, X, features=v),
            )
    for how, value in NO_SHARE.items():
        yield Case(
            "plotting.VelocityFieldDisplay.from_estimator",
            "t",
            how,
            lambda w, v=value: fields.from_estimator(w.flow, X, t=v),
        )
    for how, value in NO_SIZE.items():
        yield Case(
            "plotting.VelocityFieldDisplay.from_estimator",
            "n_grid",
            how,
            lambda w, v=value: fields.from_estimator(w.flow, X, n_grid=v),
        )
        yield Case(
            "plotting.plot_velocity_field",
            "n_grid",
            how,
            lambda w, v=value: field(lambda t, x: x, n_grid=v, **box),
        )
        if how != "None":
            yield Case(
                "plotting.plot_images",
                "n_columns",
                how,
                lambda w, v=value: plotting.plot_images(X, (1, 1, 2), n_columns=v),
            )
    for how, value in without(NO_NUMBER, "-1").items():
        yield Case(
            "plotting.plot_velocity_field",
            "t",
            how,
            lambda w, v=value: field(lambda t, x: x, t=v, **box),
        )
    ranges = {
        "reversed": (1, 0),
        "empty": (0, 0),
        "NaN": (0, float("nan")),
        "infinite": (0, float("inf")),
        "text": "12",
        "of text": ("0", "1"),
        "one": (1,),
        "three": (0, 1, 2),
        "a number": 1,
        "booleans": (False, True),
        "complex": (0, 1j),
    }
    for how, value in ranges.items():
        for side in box:
            yield Case(
                "plotting.plot_velocity_field",
                side,
                how,
                lambda w, v=value, side=side: field(lambda t, x: x, **box | {side: v}),
            )
        yield Case(
            "plotting.plot_images",
            "value_range",
            how,
            lambda w, v=value: plotting.plot_images(X, (1, 1, 2), value_range=v),
        )
    for how, value in {"a word": "u", "None": None, "3": 3}.items():
        yield Case(
            "plotting.plot_velocity_field", "velocity", how, lambda w, v=value: field(v, **box)
        )
    for how, value in {"two": (1, 2), "text": "112", "None": None, "4": 4, "0": (1, 0, 2)}.items():
        yield Case(
            "plotting.plot_images",
            "image_shape",
            how,
            lambda w, v=value: plotting.plot_images(X, v),
        )
    histories = {"None": None, "a list": [1.0], "an empty dict": {}, "a dict": {"a": 1}}
    for how, value in histories.items():
        yield Case(
            "plotting.plot_history", "history", how, lambda w, v=value: plotting.plot_history(v)
        )
    draw_history, of = plotting.plot_history, "plotting.plot_history"
    yield Case(of, "history", "empty", lambda w: draw_history(w.flow.history_[:0]))
    yield Case(
        "plotting.plot_history",
        "history",
        "of NaN",
        lambda w: plotting.plot_history(
            replace(w.flow.history_, loss=w.flow.history_.loss * torch.nan)
        ),
    )
    for how, value in {"text": "ab", "one": ("a",), "numbers": (1, 2), "None": None}.items():
        yield Case(
            "plotting.FlowDisplay",
            "feature_names",
            how,
            lambda w, v=value: flows([X, X], feature_names=v),
        )


def calls_of_datasets() -> Iterator[Case]:
    makers = ["gaussian", "8gaussians", "moons", "s_curve", "checkerboard"]
    for name in makers:
        make = getattr(datasets, f"make_{name}")
        of = f"datasets.make_{name}"
        for how, value in NO_SIZE.items():
            yield Case(of, "n_samples", how, lambda w, m=make, v=value: m(v))
        for how, value in NO_SEED.items():
            yield Case(of, "random_state", how, lambda w, m=make, v=value: m(5, random_state=v))
    make, of = datasets.make_task, "datasets.make_task"
    for how, value in NO_SIZE.items():
        yield Case(
            "datasets.make_gaussian",
            "n_features",
            how,
            lambda w, v=value: datasets.make_gaussian(5, n_features=v),
        )
        yield Case(of, "n_samples", how, lambda w, v=value: make("moons", v))
    for how, value in NO_CHOICE.items():
        yield Case(of, "name", how, lambda w, v=value: make(v))
    for how, value in NO_SEED.items():
        yield Case(of, "random_state", how, lambda w, v=value: make("moons", 5, random_state=v))
    load, of = datasets.load_images, "datasets.load_images"
    for how, value in NO_PATH.items():
        yield Case(of, "path", how, lambda w, v=value: load(v))

    def images(world: World, **changes: Any) -> Path:
        arrays = {"x_train": np.zeros((4, 2, 2), np.uint8), "y_train": np.arange(4)} | changes
        path = world.folder / "images.npz"
        np.savez(path, **arrays)
        return path

    for how, value in without(NO_SIZE, "None").items():
        yield Case(of, "n_samples", how, lambda w, v=value: load(images(w), n_samples=v))
    yield Case(of, "n_samples", "too many", lambda w: load(images(w), n_samples=5))
    for how, value in NO_CHOICE.items():
        yield Case(of, "split", how, lambda w, v=value: load(images(w), split=v))

    def damaged(world: World) -> Any:
        path = images(world)
        content = path.read_bytes()
        path.write_bytes(content[:40] + bytes(60) + content[100:])
        return load(path)

    yield Case(of, "images.npz", "damaged", damaged)


def calls_of_networks() -> Iterator[Case]:
    mlp, predictor, unet = networks.VelocityMLP, networks.TimePredictor, networks.VelocityUNet
    image = networks.ConvolutionalTimePredictor
    for how, value in NO_SIZE.items():
        yield Case("networks.VelocityMLP", "n_features", how, lambda w, v=value: mlp(v))
        yield Case("networks.TimePredictor", "n_features", how, lambda w, v=value: predictor(v))
        of = "networks.NetworkSpec"
        yield Case(of, "n_features", how, lambda w, v=value: spec(n_features=v))
        yield Case("networks.VelocityUNet", "width", how, lambda w, v=value: unet((1, 4, 4), v))
        yield Case(
            "networks.VelocityUNet",
            "patch_size",
            how,
            lambda w, v=value: unet((1, 4, 4), patch_size=v),
        )
        if how != "0":
            yield Case(
                "networks.TimeEmbedding",
                "n_frequencies",
                how,
                lambda w, v=value: networks.TimeEmbedding(v),
            )
    for how, value in OBJECTS["hidden_layer_sizes"].items():
        shared = {"argument": "hidden_layer_sizes", "how": how}
        yield Case("networks.VelocityMLP", call=lambda w, v=value: mlp(2, v), **shared)
        yield Case("networks.TimePredictor", call=lambda w, v=value: predictor(2, v), **shared)
        yield Case(
            "networks.NetworkSpec", call=lambda w, v=value: spec(hidden_layer_sizes=v), **shared
        )
    for how, value in OBJECTS["image_shape"].items():
        if how != "another":
            yield Case("networks.VelocityUNet", "image_shape", how, lambda w, v=value: unet(v))
            yield Case(
                "networks.ConvolutionalTimePredictor",
                "image_shape",
                how,
                lambda w, v=value: image(v),
            )
        yield Case(
            "networks.NetworkSpec", "image_shape", how, lambda w, v=value: spec(image_shape=v)
        )
    for how, value in OBJECTS["network"].items():
        yield Case(
            "networks.NetworkSpec", "network", how, lambda w, v=value: spec(network=v).make(0)
        )
    for how, value in without(OBJECTS["hidden_layer_sizes"], "0").items():
        yield Case(
            "networks.ConvolutionalTimePredictor",
            "widths",
            how,
            lambda w, v=value: image((1, 4, 4), v),
        )


def spec(**changes: Any) -> Any:
    return networks.NetworkSpec(**{"n_features": 2, "hidden_layer_sizes": (4,)} | changes)


def calls_of_sinkhorn() -> Iterator[Case]:
    solved = sinkhorn.transport(T, T + 1, epsilon=1.0)
    functions: dict[str, Callable[..., Any]] = {
        "sinkhorn.transport": lambda x, y: sinkhorn.transport(x, y, epsilon=1.0),
        "sinkhorn.sinkhorn_divergence": lambda x, y: sinkhorn.sinkhorn_divergence(x, y, blur=1.0),
        "sinkhorn.coupling": lambda x, y: sinkhorn.coupling(x, y, solved.potentials),
        "sinkhorn.barycentric_projection": lambda x, y: sinkhorn.barycentric_projection(
            x, y, torch.zeros(30), 1.0
        ),
        "sinkhorn.squared_cost": sinkhorn.squared_cost,
        "flow.sinkhorn_velocity": lambda x, y: flow.sinkhorn_velocity(x, y, blur=1.0),
    }
    for of, function in functions.items():
        for how, spoil in NO_TENSOR.items():
            yield Case(of, "x", how, lambda w, f=function, s=spoil: f(s(T), T))
            yield Case(of, "y", how, lambda w, f=function, s=spoil: f(T, s(T)))
    numbers: dict[str, Callable[..., Any]] = {
        "sinkhorn.transport": lambda **k: sinkhorn.transport(T, T, **{"epsilon": 1.0} | k),
        "sinkhorn.self_transport": lambda **k: sinkhorn.self_transport(T, **{"epsilon": 1.0} | k),
        "sinkhorn.sinkhorn_divergence": lambda **k: sinkhorn.sinkhorn_divergence(
            T, T, **{"blur": 1.0} | k
        ),
        "flow.sinkhorn_velocity": lambda **k: flow.sinkhorn_velocity(T, T, **{"blur": 1.0} | k),
    }
    for of, function in numbers.items():
        length = "epsilon" if "transport" in of else "blur"
        for how, value in NO_POSITIVE.items():
            for name in (length, "tol"):
                yield Case(of, name, how, lambda w, f=function, n=name, v=value: f(**{n: v}))
        for how, value in without(NO_SIZE, "0").items():
            yield Case(of, "max_iter", how, lambda w, f=function, v=value: f(max_iter=v))
    guesses = {
        "of another size": torch.zeros(3),
        "an array": np.zeros(30),
        "NaN": torch.full((30,), torch.nan),
        "complex": torch.zeros(30) * 1j,
        "on the meta device": torch.zeros(30, device="meta"),
        "sparse": torch.ones(30).to_sparse(),
        "text": "zero",
    }
    for how, value in guesses.items():
        for of in ("sinkhorn.transport", "sinkhorn.self_transport"):
            if how == "NaN":  # a hopeless guess costs time, and never the result
                continue
            given = lambda w, f=numbers[of], v=value: f(g=v)  # noqa: E731
            yield Case(of, "g", how, given, names=r"\bg\b|potential")
        yield Case(
            "sinkhorn.barycentric_projection",
            "g",
            how,
            lambda w, v=value: sinkhorn.barycentric_projection(T, T, v, 1.0),
            names=r"\bg\b|potential",
        )
    for how, value in NO_POSITIVE.items():
        yield Case(
            "sinkhorn.barycentric_projection",
            "epsilon",
            how,
            lambda w, v=value: sinkhorn.barycentric_projection(T, T, torch.zeros(30), v),
        )
    for how, value in {"None": None, "a tuple": (1, 2), "a dict": {}}.items():
        yield Case(
            "sinkhorn.coupling",
            "potentials",
            how,
            lambda w, v=value: sinkhorn.coupling(T, T, v),
        )
        if how != "None":
            yield Case(
                "flow.sinkhorn_velocity",
                "state",
                how,
                lambda w, v=value: flow.sinkhorn_velocity(T, T, blur=1.0, state=v),
            )
    for how, value in without(NO_NUMBER, "None", "-1").items():
        yield Case(
            "flow.sinkhorn_velocity",
            "step_size",
            how,
            lambda w, v=value: flow.sinkhorn_velocity(T, T, blur=1.0, step_size=v),
        )


def noise(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 2, generator=generator)


SIMULATION: dict[str, Any] = {
    "draw_source": noise,
    "draw_target": noise,
    "make_schedule": lambda generator: flow.straight_schedule(2),
    "n_particles": 4,
    "n_targets": 4,
    "n_simulations": 2,
    "blur": 1.0,
}


def calls_of_flow() -> Iterator[Case]:
    straight, constant = flow.straight_schedule, flow.constant_schedule
    for how, value in NO_SIZE.items():
        yield Case("flow.straight_schedule", "n_steps", how, lambda w, v=value: straight(v))
        yield Case("flow.constant_schedule", "n_steps", how, lambda w, v=value: constant(v, 0.1))
        for name in ("n_particles", "n_targets", "n_simulations"):
            yield Case(
                "flow.simulate_sinkhorn_flow",
                name,
                how,
                lambda w, n=name, v=value: flow.simulate_sinkhorn_flow(**SIMULATION | {n: v}),
            )
        for name in ("batch_size", "n_source", "n_target"):
            yield Case("flow.large_pairs", name, how, lambda w, n=name, v=value: large(**{n: v}))
        yield Case(
            "flow.TrajectoryPool.allocate",
            "shape",
            how,
            lambda w, v=value: flow.TrajectoryPool.allocate((2, 3, v, 2)),
        )
        of = "flow.GaussianNoise"
        yield Case(of, "n_features", how, lambda w, v=value: flow.GaussianNoise(v))
        yield Case(
            "flow.PoolTeacher",
            "batch_size",
            how,
            lambda w, v=value: flow.PoolTeacher(w.pool, v, 0, 1e-3),
        )
    for how, value in (NO_SHARE | {"0": 0.0}).items():
        yield Case("flow.straight_schedule", "t_end", how, lambda w, v=value: straight(2, v))
    for how, value in NO_POSITIVE.items():
        yield Case("flow.constant_schedule", "step_size", how, lambda w, v=value: constant(2, v))
        for name in ("blur", "tol"):
            yield Case(
                "flow.simulate_sinkhorn_flow",
                name,
                how,
                lambda w, n=name, v=value: flow.simulate_sinkhorn_flow(**SIMULATION | {n: v}),
            )
            of = "flow.coupled_pairs"
            yield Case(of, name, how, lambda w, n=name, v=value: coupled(**{n: v}))
        yield Case("flow.large_pairs", "tol", how, lambda w, v=value: large(tol=v))
    for name in ("draw_source", "draw_target", "make_schedule"):
        for how, value in {"None": None, "a word": "noise", "a tensor": T}.items():
            yield Case(
                "flow.simulate_sinkhorn_flow",
                name,
                how,
                lambda w, n=name, v=value: flow.simulate_sinkhorn_flow(**SIMULATION | {n: v}),
            )
    results = {
        "None": lambda n, g: None,
        "an array": lambda n, g: np.zeros((n, 2)),
        "of another size": lambda n, g: torch.zeros(n + 1, 2),
        "of one dimension": lambda n, g: torch.zeros(n),
        "NaN": lambda n, g: torch.full((n, 2), torch.nan),
        "integers": lambda n, g: torch.zeros(n, 2, dtype=torch.long),
        "of another width": lambda n, g: torch.zeros(n, 3),
    }
    for how, value in results.items():
        yield Case(
            "flow.simulate_sinkhorn_flow",
            "draw_source",
            f"returns {how}",
            lambda w, v=value: flow.simulate_sinkhorn_flow(**SIMULATION | {"draw_source": v}),
            names=r"draw_source|\bx\b",
        )
    records, generator = flow.straight_records, torch.Generator()
    for how, spoil in without(NO_TENSOR, "NaN", "infinity").items():  # which stay what they are
        of = "flow.straight_records"
        yield Case(of, "x", how, lambda w, s=spoil: records(s(T), T, generator))
        yield Case(of, "y", how, lambda w, s=spoil: records(T, s(T), generator))
    for how, spoil in NO_TENSOR.items():
        if how != "another width":
            yield Case("flow.Hull.of", "points", how, lambda w, s=spoil: flow.Hull.of(s(T)))
            yield Case("flow.Ends", "source", how, lambda w, s=spoil: ends_of(s(T), T))
        yield Case("flow.Ends", "target", how, lambda w, s=spoil: ends_of(T, s(T)))
    yield Case("flow.straight_records", "y", "one row", lambda w: records(T, T[:1], generator))
    step, particles = flow.follow_sinkhorn_flow, T[None]
    sizes = {
        "NaN": torch.tensor([torch.nan]),
        "of two dimensions too many": torch.ones(1, 1, 1),
        "a number": 0.5,
        "an array": np.ones(2),
        "None": None,
        "of another batch": torch.ones(3, 2),
        "none": torch.ones(0),
    }
    for how, value in sizes.items():
        yield Case(
            "flow.follow_sinkhorn_flow",
            "step_sizes",
            how,
            lambda w, v=value: step(particles, particles, v, blur=1.0),
        )


def ends_of(x: Any, y: Any) -> Any:
    return flow.Ends(flow.Rows(x), y)


def large(**changes: Any) -> Any:
    sizes = {"batch_size": 2, "n_source": 8, "n_target": 8}
    return next(flow.large_pairs(noise, noise, torch.Generator(), **sizes | changes))


def coupled(**changes: Any) -> Any:
    def draw(generator: torch.Generator) -> torch.Tensor:
        return noise(4, generator)

    return next(flow.coupled_pairs(draw, draw, torch.Generator(), **{"blur": 1.0} | changes))


def calls_of_ode() -> Iterator[Case]:
    times = {
        "a list": [0.0, 1.0],
        "None": None,
        "an array": np.linspace(0, 1, 3),
        "a number": 1.0,
        "of no dimension": torch.tensor(1.0),
        "of three dimensions": torch.zeros(2, 30, 1),
        "NaN": torch.tensor([0.0, torch.nan]),
        "infinite": torch.tensor([0.0, torch.inf]),
        "of other states": torch.zeros(3, 7),
        "none": torch.zeros(0),
        "complex": torch.zeros(2) * 1j,
    }
    grid = torch.linspace(0, 1, 3)
    for name in ("integrate", "invert"):
        function = getattr(ode, name)
        of = f"ode.{name}"
        for how, value in times.items():
            yield Case(of, "t", how, lambda w, f=function, v=value: f(still, T, v))
        fine = ("another width", "no rows", "NaN", "infinity")  # which stay what they are
        for how, spoil in without(NO_TENSOR, *fine).items():
            yield Case(of, "x", how, lambda w, f=function, s=spoil: f(still, s(T), grid))
        for how, value in NO_CHOICE.items():
            yield Case(
                of, "method", how, lambda w, f=function, v=value: f(still, T, grid, method=v)
            )
        for how, value in {"None": None, "a word": "u", "a tensor": T}.items():
            yield Case(of, "velocity", how, lambda w, f=function, v=value: f(v, T, grid))
        returned = {"None": None, "a number": 1.0, "of another shape": torch.zeros(3, 3)}
        for how, value in (returned | {"of one column": torch.zeros(30, 1)}).items():
            yield Case(
                of,
                "velocity",
                f"returns {how}",
                lambda w, f=function, v=value: f(lambda t, x: v, T, grid),
            )
    for how, value in {"too few": ["euler"], "too many": ["euler"] * 100}.items():
        yield Case(
            "ode.invert", "method", how, lambda w, v=value: ode.invert(still, T, grid, method=v)
        )
    for how, value in without(NO_POSITIVE, "None").items():
        yield Case("ode.invert", "tol", how, lambda w, v=value: ode.invert(still, T, grid, tol=v))


def still(t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def calls_of_training() -> Iterator[Case]:
    def train(**changes: Any) -> Any:
        settings = {"max_iter": 1, "learning_rate": 0.1, "ema_decay": 0.9}
        line = torch.nn.Linear(1, 1)
        given = {"network": line, "loss": lambda f: f(torch.ones(1, 1)).sum()} | settings | changes
        return training.train(given.pop("network"), given.pop("loss"), **given)

    of = "training.train"
    for how, value in without(NO_SIZE, "0").items():
        yield Case(of, "max_iter", how, lambda w, v=value: train(max_iter=v))
    for how, value in NO_POSITIVE.items():
        yield Case(of, "learning_rate", how, lambda w, v=value: train(learning_rate=v))
    for how, value in (NO_SHARE | {"1": 1.0}).items():
        yield Case(of, "ema_decay", how, lambda w, v=value: train(ema_decay=v))
    for how, value in {"None": None, "a word": "mlp", "no weights": torch.nn.Identity()}.items():
        yield Case(of, "network", how, lambda w, v=value: train(network=v))
    losses = {
        "None": None,
        "a word": "mse",
        "that returns None": lambda f: None,
        "that returns a number": lambda f: 1.0,
        "that returns a vector": lambda f: f(torch.ones(3, 1)).flatten(),
        "without a gradient": lambda f: torch.zeros(()),
    }
    for how, value in losses.items():
        yield Case(of, "loss", how, lambda w, v=value: train(loss=v))
    match, time_loss = training.velocity_matching_loss, training.time_prediction_loss
    others = {"of one column": T[:, :1], "of one row": T[:1], "of one dimension": T[:, 0]}
    for how, value in others.items():
        yield Case(
            "training.velocity_matching_loss",
            "u",
            how,
            lambda w, v=value: match(still, torch.zeros(30), T, v),
        )
    for how, value in {"of two dimensions": T, "of one column": T[:, :1]}.items():
        yield Case(
            "training.time_prediction_loss",
            "t",
            how,
            lambda w, v=value: time_loss(lambda x: x[:, 0], v, T),
        )


def calls_of_algorithms() -> Iterator[Case]:
    first = {"network": spec(), "blur": 0.5, "max_iter": 2, "n_steps": 2, "n_particles": 8}
    sizes = {name: NO_SIZE for name in SIZES}
    sizes |= {name: without(NO_SIZE, "None") for name in ("n_targets", "n_simulations")}
    reals = {name: REALS[name] for name in ("blur", "step_size", "t_end", "ema_decay")}
    choices = {"schedule": NO_CHOICE, "early_stopping": OBJECTS["early_stopping"]}
    other = {"learning_rate": NO_POSITIVE, "network": {"None": None, "a word": "mlp"}}
    for name, kinds in (sizes | reals | choices | other).items():
        for how, value in kinds.items():
            yield Case(
                "algorithms.SinkhornFlow",
                name,
                how,
                lambda w, n=name, v=value: algorithms.SinkhornFlow(**first | {n: v}),
            )
    flow_ = algorithms.SinkhornFlow(**first)
    both = {"first": flow_, "network": spec(), "max_iter": 2}
    own = {name: NO_CHOICE for name in ("straight_from", "coupling", "switch")}
    own |= {name: NO_SIZE for name in ("n_straight_steps", "max_iter", "batch_size")}
    own |= {"straight_step_size": without(NO_SHARE, "None") | {"0": 0.0}}
    own |= other | {"first": {"None": None, "a word": "nsgf"}}
    for name, kinds in own.items():
        for how, value in kinds.items():
            yield Case(
                "algorithms.TwoPhases",
                name,
                how,
                lambda w, n=name, v=value: algorithms.TwoPhases(**both | {n: v}),
            )
    ends, run_ = flow.Ends(flow.Rows(T), T + 1), algorithms.Run()
    for how, value in {"None": None, "a tensor": T}.items():
        for name in ("ends", "run"):
            yield Case(
                "algorithms.SinkhornFlow.learn",
                name,
                how,
                lambda w, n=name, v=value: flow_.learn(**{"ends": ends, "run": run_} | {n: v}),
            )
    wide = flow.Ends(flow.Rows(torch.zeros(30, 3)), torch.zeros(30, 3))
    yield Case(
        "algorithms.SinkhornFlow.learn", "network", "narrower", lambda w: flow_.learn(wide, run_)
    )
    for how, value in without(NO_SEED, "too large", "-1").items():
        yield Case("algorithms.Run", "seed", how, lambda w, v=value: algorithms.Run(seed=v))


SURFACE = [
    rows_of_samplers,
    parameters_of_samplers,
    calls_of_samplers,
    calls_of_metrics,
    calls_of_plots,
    calls_of_datasets,
    calls_of_networks,
    calls_of_sinkhorn,
    calls_of_flow,
    calls_of_ode,
    calls_of_training,
    calls_of_algorithms,
]


def cases() -> list[Case]:
    """Every call."""
    return [case for part in SURFACE for case in part()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="make one call in so many")
    parser.add_argument("--show", type=int, default=20, help="how many of each failure to print")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        outcomes = [run(case, world) for case in cases()[:: options.every]]
    accepted = [o for o in outcomes if o.error is None]
    failures = {
        "accepted": accepted,
        "of a kind that is not documented": [
            o for o in outcomes if o.error is not None and not o.documented
        ],
        "without the argument's name": [
            o for o in outcomes if o.error is not None and not o.named
        ],
        "that changed the estimator": [o for o in outcomes if not o.unchanged],
    }
    good = sum(outcome.good for outcome in outcomes)
    print(f"{len(outcomes)} calls in {time.perf_counter() - began:.0f} s")
    print(f"{good / len(outcomes):.2%} refused by a documented error that names the argument")
    for what, found in failures.items():
        print(f"{len(found)} {what}")
        for outcome in found[: options.show]:
            error = outcome.error
            print(f"    {outcome.case.title}: {type(error).__name__}: {str(error)[:160]!r}")


if __name__ == "__main__":
    main()
