"""Saved files: what is saved comes back to the bit, and what was not saved is refused."""

import copy
import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from sknsgf import NSGFPlusPlus, NSGFSampler, PersistenceError, _persistence
from sknsgf._persistence import read_archive, write_archive
from sknsgf.networks import VelocityMLP

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
Y = rng.uniform(size=(50, 3)) * [1, 2, 3] + 5
TINY = {"hidden_layer_sizes": (4,), "max_iter": 4, "random_state": 0}
DATA = Path(__file__).parent / "data"


def flow(**parameters):
    return NSGFSampler(**{**TINY, **parameters})


def plusplus(**parameters):
    return NSGFPlusPlus(**{**TINY, **parameters})


class OwnNetwork(torch.nn.Module):
    def __init__(self, n_features=3):
        super().__init__()
        self.linear = torch.nn.Linear(n_features, n_features)
        self.norm = torch.nn.BatchNorm1d(n_features)  # has buffers, one of them an integer

    def forward(self, t, x):
        return self.norm(self.linear(x))


def own_network(shape):
    return OwnNetwork(*shape)


class OwnSource:
    def sample(self, n, random_state=None):
        return random_state.normal(size=(n, 3))


def assert_same(one, other):
    """Two fitted samplers agree in parameters, attributes and every number they give."""
    assert repr(one) == repr(other)
    assert vars(one).keys() == vars(other).keys()
    for name in ("mean_", "scale_", "n_iter_", "n_features_in_", "device_", "_dtype"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    histories = [h if isinstance(h, dict) else {"": h} for h in (one.history_, other.history_)]
    for name, history in histories[0].items():
        for field, value in vars(history).items():
            np.testing.assert_array_equal(value, getattr(histories[1][name], field))
    for rows in (X, X.astype(np.float32)):
        np.testing.assert_array_equal(one.transform(rows), other.transform(rows))
        np.testing.assert_array_equal(one.inverse_transform(rows), other.inverse_transform(rows))
    np.testing.assert_array_equal(one.sample(40), other.sample(40))
    second = () if one.source is not None else (Y,)
    assert one.score(X, *second) == other.score(X, *second)


FITTED = {
    "rows": lambda: flow().fit(X, Y),
    "gaussian": lambda: flow(source="gaussian").fit(X),
    "float32": lambda: flow().fit(X.astype("f"), Y.astype("f")),
    "part of the way": lambda: flow(t_end=0.5, n_steps=3, n_sampling_steps=7).fit(X, Y),
    "constant": lambda: flow(schedule="constant", ode_method="heun", n_steps=3).fit(X, Y),
    "stopped early": lambda: flow(max_iter=10, early_stopping=True).fit(X, Y),
    "numpy parameters": lambda: flow(
        blur=np.float32(0.1), n_steps=np.int64(3), hidden_layer_sizes=np.array([4])
    ).fit(X, Y),
    "phases of images": lambda: plusplus(
        straight_from="source", source="gaussian", image_shape=(3, 1, 1)
    ).fit(X),
    "phases": lambda: plusplus(straight_from="source").fit(X, Y),
    "phases from noise": lambda: plusplus(source="gaussian").fit(X),
    "phases and a constant column": lambda: plusplus(source="gaussian").fit(X * [1, 0, 1]),
    "phases of a fixed switch": lambda: plusplus(straight_from="source", switch="fixed").fit(X, Y),
    "phases from the flow": lambda: plusplus(
        straight_from="flow", coupling="minibatch", sinkhorn_flow=flow(n_steps=2, t_end=0.7)
    ).fit(X, Y),
}


@pytest.mark.parametrize("name", FITTED)
def test_what_is_saved_comes_back_to_the_bit(name, tmp_path):
    fitted = FITTED[name]()
    fitted.save(tmp_path / "model.npz")
    loaded = type(fitted).load(tmp_path / "model.npz")
    if name == "numpy parameters":  # come back as Python's
        loaded.set_params(**{key: fitted.get_params()[key] for key in ("blur", "n_steps")})
        loaded.hidden_layer_sizes = fitted.hidden_layer_sizes
    assert_same(fitted, loaded)
    loaded.save(tmp_path / "again.npz")
    again = type(fitted).load(tmp_path / "again.npz")
    again.fit(X) if again.source else again.fit(X, Y)  # a loaded sampler can be fitted


@pytest.fixture(scope="module", params=["rows", "phases"])
def fitted(request):
    return FITTED[request.param]()


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def test_a_new_process_draws_the_same(tmp_path):
    code = (
        "import sys, torch, sknsgf; torch.set_num_threads(int(sys.argv[2]));"
        "classes = (sknsgf.NSGFSampler, sknsgf.NSGFPlusPlus);"
        "loaded = [cls.load(f'{sys.argv[1]}/{cls.__name__}') for cls in classes];"
        "sys.stdout.buffer.write(b''.join(model.sample(40).tobytes() for model in loaded))"
    )
    both = [FITTED["rows"](), FITTED["phases"]()]
    for fitted in both:
        fitted.save(tmp_path / type(fitted).__name__)
    arguments = [str(tmp_path), str(torch.get_num_threads())]
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=-1, check=True)
    assert done.stdout == b"".join(fitted.sample(40).tobytes() for fitted in both)


def _through_joblib(fitted):
    stream = io.BytesIO()
    joblib.dump(fitted, stream)
    stream.seek(0)
    return joblib.load(stream)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)), _through_joblib]
)
def test_python_own_copies_draw_the_same(fitted, copied):
    assert_same(fitted, copied(fitted))


class Odd(torch.nn.Module):
    """Tensors of many kinds: shared, constant, with no value, of types that numpy lacks."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(3, 3, dtype=torch.bfloat16)
        self.same = self.one
        self.fixed = torch.nn.Parameter(torch.ones(()), requires_grad=False)
        self.later = torch.nn.LazyLinear(2)
        self.register_buffer("nowhere", torch.empty(2, device="meta"))
        self.register_buffer("parts", torch.ones(2, dtype=torch.complex64), persistent=False)
        self.kept = torch.arange(3)


MODULES = {
    "perceptron": lambda: VelocityMLP(3, (5,)),
    "with buffers": OwnNetwork,
    "recurrent": lambda: torch.nn.LSTM(3, 2),
    "odd": Odd,
}


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)), _through_joblib]
)
def test_copies_have_the_network_that_was_passed(make, copied):
    network = make()
    came = copied(flow(network=network)).network
    assert type(came) is type(network)
    pairs = zip(_tensors(network), _tensors(came), strict=True)
    for (name, a), (name_too, b) in pairs:
        assert (name, type(a), a.requires_grad) == (name_too, type(b), b.requires_grad)
        if name.startswith(("later", "nowhere")):
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(a, b)
    if make is Odd:
        assert came.same is came.one and torch.equal(came.kept, network.kept)


@pytest.mark.parametrize("name", ["perceptron", "with buffers", "recurrent"])
def test_clones_have_one_hash(name):
    sampler = flow(network=MODULES[name]())
    for whole in (sampler, NSGFPlusPlus(sinkhorn_flow=sampler)):
        assert joblib.hash(clone(whole)) == joblib.hash(whole)
    other = flow(network=MODULES[name]())  # of other weights
    assert joblib.hash(other) != joblib.hash(sampler)


def _tensors(network):
    return [*network.named_parameters(), *network.named_buffers()]


def test_a_process_pool_draws_the_same():
    both = [FITTED["rows"](), FITTED["phases"]()]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        drawn = [pool.submit(fitted.sample, 40).result() for fitted in both]
    for fitted, rows in zip(both, drawn, strict=True):
        np.testing.assert_array_equal(rows, fitted.sample(40))


def test_equal_models_make_equal_files(fitted, saved, tmp_path):
    fitted.save(tmp_path / "again.npz")
    assert saved.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_the_file_is_an_npz_without_pickles(saved):
    with np.load(saved, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        assert {archive[name].dtype.kind for name in archive.files} <= set("biuf")
    assert header["format"] == "sknsgf"
    assert header["version"] == 2


def test_column_names_output_and_requests_are_kept(tmp_path):
    frame = pd.DataFrame(X, columns=["a", "ß", "with space"])
    with sklearn.config_context(enable_metadata_routing=True):
        fitted = flow().set_fit_request(X_target=True).set_output(transform="pandas")
    fitted.fit(frame, Y).save(tmp_path / "model.npz")
    loaded = NSGFSampler.load(tmp_path / "model.npz")
    pd.testing.assert_frame_equal(loaded.transform(frame), fitted.transform(frame))
    assert loaded.get_metadata_routing().fit.requests == {"X_target": True}
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame.rename(columns={"a": "b"}))


def test_an_unfitted_sampler_is_not_saved(tmp_path):
    with pytest.raises(NotFittedError):
        flow().save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


class TestWhatAFileCannotHold:
    @pytest.mark.parametrize("network", [OwnNetwork(), own_network])
    def test_a_network_of_ones_own_is_asked_for(self, network, tmp_path):
        path = tmp_path / "model.npz"
        fitted = flow(network=network).fit(X, Y)
        with pytest.warns(UserWarning, match=r"load\(path, network=\.\.\.\)"):
            fitted.save(path)
        with pytest.raises(PersistenceError, match=r"NSGFSampler\.load\(path, network=\.\.\.\)"):
            NSGFSampler.load(path)
        loaded = NSGFSampler.load(path, network=network)
        np.testing.assert_array_equal(loaded.sample(9), fitted.sample(9))
        assert loaded.network is network
        with pytest.raises(PersistenceError, match="weights are not those of"):
            NSGFSampler.load(path, network=VelocityMLP(3, (4,)))

    def test_networks_of_both_phases(self, tmp_path):
        path = tmp_path / "model.npz"
        first = flow(network=own_network, n_steps=2, t_end=0.5)
        fitted = plusplus(sinkhorn_flow=first, network=OwnNetwork()).fit(X, Y)
        with pytest.warns(UserWarning, match="network, sinkhorn_flow__network"):
            fitted.save(path)
        with pytest.raises(PersistenceError, match="sinkhorn_flow__network"):
            NSGFPlusPlus.load(path, network=OwnNetwork())
        given = {"network": OwnNetwork(), "sinkhorn_flow__network": own_network}
        loaded = NSGFPlusPlus.load(path, **given)
        np.testing.assert_array_equal(loaded.sample(9), fitted.sample(9))

    @pytest.mark.parametrize("make", [flow, plusplus])
    @pytest.mark.parametrize("source", [OwnSource(), FrozenEstimator(GaussianMixture(2).fit(X))])
    def test_a_source_of_ones_own_is_asked_for(self, make, source, tmp_path):
        path = tmp_path / "model.npz"
        fitted = make(source=source).fit(Y)
        with pytest.warns(UserWarning, match="source"):
            fitted.save(path)
        with pytest.raises(PersistenceError, match="source of your own"):
            type(fitted).load(path)
        loaded = type(fitted).load(path, source=source)
        np.testing.assert_array_equal(loaded.sample(9), fitted.sample(9))

    def test_a_random_state_is_asked_for(self, tmp_path):
        path = tmp_path / "model.npz"
        fitted = flow(random_state=np.random.RandomState(0)).fit(X, Y)
        with pytest.warns(UserWarning, match="random_state"):
            fitted.save(path)
        NSGFSampler.load(path, random_state=3).sample(3)

    def test_the_work_of_a_subclass_is_its_own(self, tmp_path):
        class Mine(NSGFSampler):
            pass

        fitted = Mine(**TINY).fit(X, Y)
        fitted.save(tmp_path / "model.npz")
        np.testing.assert_array_equal(
            Mine.load(tmp_path / "model.npz").sample(9), fitted.sample(9)
        )
        with pytest.raises(PersistenceError, match=r"it holds a Mine: use Mine\.load"):
            NSGFSampler.load(tmp_path / "model.npz")


def test_parameters_given_take_the_place_of_those_saved(tmp_path):
    flow().fit(X, Y).save(tmp_path / "model.npz")
    loaded = NSGFSampler.load(tmp_path / "model.npz", n_sampling_steps=3, device="cpu")
    assert loaded.trajectory(X).nfe == 3
    with pytest.raises(PersistenceError, match="Invalid parameter 'steps'"):
        NSGFSampler.load(tmp_path / "model.npz", steps=3)


def test_a_model_of_a_device_that_is_not_here_loads_on_the_cpu(tmp_path):
    fitted = flow().fit(X, Y)
    absent = f"cuda:{torch.cuda.device_count()}"
    fitted.set_params(device=absent).save(tmp_path / "model.npz")
    loaded = NSGFSampler.load(tmp_path / "model.npz")
    assert loaded.device_ == torch.device("cpu")
    np.testing.assert_array_equal(loaded.sample(9), fitted.sample(9))


def test_a_device_asked_for_must_be_here(tmp_path):
    flow().fit(X, Y).save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="cannot be used here"):
        NSGFSampler.load(tmp_path / "model.npz", device=f"cuda:{torch.cuda.device_count()}")


def test_another_class_is_refused(tmp_path):
    plusplus().fit(X, Y).save(tmp_path / "model.npz")
    with pytest.raises(PersistenceError, match=r"it holds a NSGFPlusPlus: use NSGFPlusPlus\.load"):
        NSGFSampler.load(tmp_path / "model.npz")


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        NSGFSampler.load(tmp_path / "model.npz")


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_save_that_fails_leaves_the_old_file(fails, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, fails, fail)
    with pytest.raises(OSError, match="disk full"):
        flow(random_state=1).fit(X, Y).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


class TestDamage:
    def test_any_byte(self, fitted, saved):
        content, expected = saved.read_bytes(), fitted.sample(9)
        generator = np.random.default_rng(0)
        for position in generator.integers(len(content), size=300):
            damaged = bytearray(content)
            damaged[position] ^= generator.integers(1, 256)
            saved.write_bytes(damaged)
            try:
                loaded = type(fitted).load(saved)
            except PersistenceError:
                continue
            np.testing.assert_array_equal(loaded.sample(9), expected)

    def test_any_truncation(self, fitted, saved):
        content = saved.read_bytes()
        for length in np.linspace(0, len(content) - 1, 100, dtype=int):
            saved.write_bytes(content[:length])
            with pytest.raises(PersistenceError, match="cannot be loaded"):
                type(fitted).load(saved)


def leaves(value, path=()):
    """Paths to every number, text and list of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, key))


def planted(value, path, junk):
    """The value with junk at a path; None for it to be left out."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if junk is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = junk
    return changed


JUNK = [None, -1, 10**12, 10**40, 1e308, True, "", "evil", [], {}, [10**9] * 3, {"array": "mean_"}]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("cls", [NSGFSampler, NSGFPlusPlus])
def test_an_old_file_can_be_saved_again(cls, version, tmp_path):
    old = cls.load(Path(__file__).parent / "data" / f"{cls.__name__}-{version}.npz")
    old.save(tmp_path / "again.npz")
    again = cls.load(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.sample(20), old.sample(20))


class TestHostileFiles:
    """Their checksums are right: an attacker can compute them too."""

    def test_any_word_of_the_header(self, fitted, saved):
        header, arrays = read_archive(saved)
        for path, junk in zip(leaves(header), itertools.cycle(JUNK), strict=False):
            write_archive(saved, planted(header, path, junk), arrays)
            try:
                loaded = type(fitted).load(saved)
            except PersistenceError:
                continue
            assert loaded.n_features_in_ == 3

    def test_nothing_that_was_learned_may_be_missing(self, fitted, saved):
        """The names of columns may, and what files of the first format did not have, in those."""
        header, arrays = read_archive(saved)
        known = {path[-1]: path for path in leaves(header) if path[-2:-1] == ("fitted",)}
        for name, path in known.items():
            if name in ("feature_names_in_", "source_origin_", "_source_ball"):
                continue
            used = {n: a for n, a in arrays.items() if not n.split(".")[0] == name}
            write_archive(saved, planted(header, path, None), used)
            with pytest.raises(PersistenceError):
                type(fitted).load(saved)

    @pytest.mark.parametrize("damage", ["shape", "dtype", "nan", "missing", "more"])
    def test_any_array(self, fitted, saved, damage):
        header, arrays = read_archive(saved)
        for name in arrays.keys() - {"switch_time_"}:
            history = "history_" in name
            changed = dict(arrays)
            if damage == "shape":
                changed[name] = np.zeros((*arrays[name].shape, 2), arrays[name].dtype)
            elif damage == "dtype":
                if history:
                    continue
                changed[name] = arrays[name].astype(np.float16)
            elif damage == "nan":
                if history or name.endswith("_constant"):  # integers, which have none
                    continue
                changed[name] = np.full_like(arrays[name], np.nan)
            elif damage == "missing":
                del changed[name]
            else:
                changed["extra"] = arrays[name]
            write_archive(saved, header, changed)
            with pytest.raises(PersistenceError):
                type(fitted).load(saved)

    @pytest.mark.parametrize("sizes", [[10**6, 10**6], [10**12], [2] * 10**5, [-1], [1.5]])
    def test_a_network_larger_than_the_file_is_never_made(self, sizes, tmp_path):
        FITTED["rows"]().save(tmp_path / "model.npz")
        header, arrays = read_archive(tmp_path / "model.npz")
        description = header["fitted"]["velocity_network_"]["network"][0]["network"]
        description["hidden_layer_sizes"] = sizes
        write_archive(tmp_path / "model.npz", header, arrays)
        with pytest.raises(PersistenceError):
            NSGFSampler.load(tmp_path / "model.npz")

    def test_other_formats_and_versions(self, saved):
        header, arrays = read_archive(saved)
        changes = [{"format": "other"}, *({"version": v} for v in (3, 0, "1", None))]
        for change in changes:
            write_archive(saved, header | change, arrays)
            with pytest.raises(PersistenceError, match=r"not saved by sknsgf|up to 2"):
                NSGFSampler.load(saved)

    def test_not_an_archive(self, tmp_path):
        path = tmp_path / "model.npz"
        arrays = {"x": np.zeros(3)}
        for write in (
            lambda: path.write_bytes(b""),
            lambda: path.write_bytes(b"PK" + os.urandom(1000)),
            lambda: path.write_bytes(pickle.dumps(print)),
            lambda: np.save(path.open("wb"), np.zeros(3)),
            lambda: np.savez(path, **arrays),
            lambda: np.savez_compressed(path, **arrays),
            lambda: np.savez(path, header=np.array([print], dtype=object)),
            lambda: torch.save(OwnNetwork(), path),
            lambda: joblib.dump(OwnSource(), path),
        ):
            write()
            with pytest.raises(PersistenceError, match="cannot be loaded"):
                NSGFSampler.load(path)

    @pytest.mark.parametrize(
        "name", ["../evil.npy", "/tmp/evil.npy", "a/b.npy", "x", "x\0.npy", "header\n.npy", ".npy"]
    )
    def test_names_that_lead_elsewhere(self, saved, name):
        members = read_members(saved)
        write_members(saved, [*members.items(), (name, members["mean_.npy"])])
        with pytest.raises(PersistenceError, match="unexpected name"):
            NSGFSampler.load(saved)

    def test_a_name_twice(self, saved):
        members = [*read_members(saved).items()]
        with pytest.warns(UserWarning, match="Duplicate"):
            write_members(saved, [*members, members[1]])
        with pytest.raises(PersistenceError, match="names an array twice"):
            NSGFSampler.load(saved)

    def test_a_compressed_bomb(self, saved):
        members = read_members(saved) | {"mean_.npy": bytes(10**8)}
        write_members(saved, members.items(), zipfile.ZIP_DEFLATED)
        with pytest.raises(PersistenceError, match="compressed"):
            NSGFSampler.load(saved)

    @pytest.mark.parametrize(
        "described",
        [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (3,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
            "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<U6', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '|V24', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').abort(),)}",
            "[" * 5000,
        ],
    )
    def test_arrays_that_are_not_what_they_say(self, saved, described):
        start = b"\x93NUMPY\x01\x00" + (len(described) + 1).to_bytes(2, "little")
        member = start + described.encode() + b"\n" + bytes(24)
        write_members(saved, (read_members(saved) | {"mean_.npy": member}).items())
        with pytest.raises(PersistenceError):
            NSGFSampler.load(saved)

    @pytest.mark.parametrize("text", ["[" * 10**5, "1" * 10**5, '{"a": NaN}', "{", "\xff", "[]"])
    def test_headers_that_are_no_header(self, saved, text):
        members = read_members(saved)
        stream = io.BytesIO()
        np.save(stream, np.frombuffer(text.encode("latin1"), np.uint8))
        write_members(saved, (members | {"header.npy": stream.getvalue()}).items())
        with pytest.raises(PersistenceError):
            NSGFSampler.load(saved)


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, compression=zipfile.ZIP_STORED):
    """Write an archive member by member, with the checksum it should have."""
    members = [(name, content) for name, content in members if name != "sha256.npy"]
    contents = {name.removesuffix(".npy"): content for name, content in members}
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(_persistence._digest(contents.items()), np.uint8))
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in [*members, ("sha256.npy", stream.getvalue())]:
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "cls, version, moved",
    [
        (NSGFSampler, 1, [[3.00407488, 4.51623016], [6.85936755, 1.53688438]]),
        (NSGFPlusPlus, 1, [[0.28341636, -0.01523142], [4.07283342, -2.37237336]]),
        (NSGFSampler, 2, [[5.66442613, 6.7545163], [6.08416463, 5.83760575]]),
        (NSGFPlusPlus, 2, [[5.29825958, 5.78472362], [5.51035284, 5.54474646]]),
    ],
)
def test_files_of_every_version_load_for_ever(cls, version, moved):
    """The files are never written again: a new format gets a new version and new files."""
    loaded = cls.load(DATA / f"{cls.__name__}-{version}.npz", device="cpu")
    np.testing.assert_allclose(loaded.transform([[0.0, 1.0], [4.0, -2.0]]), moved, atol=1e-5)
    assert loaded.sample(5).shape == (5, 2)
    arrays = (Y[:, :2],) if loaded.source else (X[:, :2], Y[:, :2])
    n_iter = loaded.n_iter_
    assert loaded.partial_fit(*arrays).n_iter_ == 2 * n_iter
