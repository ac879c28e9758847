"""Fits that go on where the last one ended, and who is told about them."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sknsgf import NSGFPlusPlus, NSGFSampler

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 2))
Y = rng.uniform(size=(200, 2)) * [1, 2] + 5
TINY = {"hidden_layer_sizes": (16,), "max_iter": 10, "random_state": 0}

BOTH = pytest.mark.parametrize("cls", [NSGFSampler, NSGFPlusPlus])
WAYS = pytest.mark.parametrize(
    "go_on",
    [
        lambda sampler, *arrays: sampler.partial_fit(*arrays),
        lambda sampler, *arrays: sampler.set_params(warm_start=True).fit(*arrays),
    ],
    ids=["partial_fit", "warm_start"],
)


def networks(sampler):
    """All fitted weights in one row."""
    if isinstance(sampler, NSGFSampler):
        modules = [sampler.velocity_network_]
    else:
        modules = [sampler.straight_network_, sampler.sinkhorn_flow_.velocity_network_]
        modules += [sampler.time_predictor_] if sampler.time_predictor_ is not None else []
    return torch.cat([p.flatten() for module in modules for p in module.parameters()])


@BOTH
@WAYS
def test_the_first_call_is_a_fit(cls, go_on):
    fitted, going_on = cls(**TINY).fit(X, Y), go_on(cls(**TINY), X, Y)
    assert torch.equal(networks(going_on), networks(fitted))
    np.testing.assert_array_equal(going_on.sample(20), fitted.sample(20))


@BOTH
def test_fit_starts_again_unless_told_otherwise(cls):
    fitted = cls(**TINY).fit(X, Y)
    assert torch.equal(networks(cls(**TINY).fit(Y, X).fit(X, Y)), networks(fitted))


@BOTH
@WAYS
def test_training_goes_on(cls, go_on):
    """Steps at a rate near zero keep what has been learned."""
    trained = cls(**TINY).fit(X, Y)
    before = networks(trained).clone()
    go_on(trained.set_params(learning_rate=1e-12), X, Y)
    torch.testing.assert_close(networks(trained), before, rtol=0, atol=1e-7)


@BOTH
@WAYS
def test_the_units_stay_and_histories_are_joined(cls, go_on):
    sampler = cls(**TINY).fit(X, Y)
    mean, scale, n_iter = sampler.mean_, sampler.scale_, sampler.n_iter_
    go_on(sampler, X + 1, 3 * Y)
    np.testing.assert_array_equal(sampler.mean_, mean)
    assert sampler.scale_ == scale
    assert sampler.n_iter_ == 2 * n_iter
    phases = sampler.history_ if cls is NSGFPlusPlus else {"": sampler.history_}
    for phase in phases.values():
        assert phase.iter.tolist() == list(range(1, 21))


@BOTH
def test_the_source_rows_are_the_last(cls):
    sampler = cls(**TINY).fit(X, Y).partial_fit(X[:50] + 100, Y)
    rows = sampler._units.outward(sampler.source_.x, np.dtype("float64"), left=1)
    np.testing.assert_allclose(rows, X[:50] + 100, rtol=1e-5)


def test_new_data_is_learned():
    """A target that has moved by two standard deviations is where samples end."""
    sampler = NSGFSampler(source="gaussian", max_iter=150, random_state=0).fit(X)
    moved = sampler.partial_fit(X + 2).sample(500)
    np.testing.assert_allclose(moved.mean(0), X.mean(0) + 2, atol=0.2)


@BOTH
def test_equal_seeds_go_on_equally_but_see_new_batches(cls):
    one, other = (cls(**TINY).partial_fit(X, Y).partial_fit(X, Y) for _ in range(2))
    assert torch.equal(networks(one), networks(other))
    histories = one.history_ if cls is NSGFPlusPlus else {"": one.history_}
    for phase in histories.values():
        assert not torch.equal(phase.loss[:10], phase.loss[10:])


@BOTH
def test_a_copy_goes_on_as_the_original_would(cls):
    sampler = cls(**TINY).fit(X, Y)
    copied = pickle.loads(pickle.dumps(sampler))
    assert torch.equal(networks(copied.partial_fit(X, Y)), networks(sampler.partial_fit(X, Y)))


@BOTH
def test_a_loaded_file_goes_on_as_the_original_would(cls, tmp_path):
    sampler = cls(**TINY).fit(X, Y)
    sampler.save(tmp_path / "model.npz")
    loaded = cls.load(tmp_path / "model.npz")
    assert torch.equal(networks(loaded.partial_fit(X, Y)), networks(sampler.partial_fit(X, Y)))


@BOTH
def test_a_clone_starts_again(cls):
    sampler = cls(warm_start=True, **TINY).fit(X, Y)
    assert torch.equal(networks(clone(sampler).fit(X, Y)), networks(sampler))


@BOTH
def test_the_fit_gone_on_from_is_not_touched(cls):
    sampler = cls(**TINY).fit(X, Y)
    before = copy.copy(sampler)  # shares the networks
    weights, n_iter = networks(before).clone(), before.n_iter_
    sampler.partial_fit(Y, X)
    assert torch.equal(networks(before), weights)
    assert not torch.equal(networks(sampler), weights)
    lengths = [len(h) for h in getattr(before.history_, "values", lambda: [before.history_])()]
    assert sum(lengths) == n_iter


@BOTH
@WAYS
@pytest.mark.parametrize(
    "changed, arrays, message",
    [
        ({}, (np.c_[X, X], np.c_[Y, Y]), "4 features.*2 features.*warm_start=False"),
        ({"hidden_layer_sizes": (8,)}, (X, Y), "another network.*VelocityMLP"),
        ({"network": torch.nn.Bilinear(1, 1, 1)}, (X, Y), "network"),
        ({"max_iter": 0}, (X, Y), "max_iter"),
        ({}, (X, np.full_like(Y, np.nan)), "NaN"),
    ],
)
def test_what_cannot_go_on_leaves_the_sampler_as_it_was(cls, go_on, changed, arrays, message):
    sampler = cls(**TINY).fit(X, Y)
    before, n_iter = sampler.transform(X), sampler.n_iter_
    with pytest.raises(ValueError, match=f"(?s){message}"):
        go_on(sampler.set_params(**changed), *arrays)
    sampler.set_params(**TINY, network="auto")
    assert sampler.n_iter_ == n_iter
    np.testing.assert_array_equal(sampler.transform(X), before)


@WAYS
def test_the_end_of_the_flow_cannot_be_moved(go_on):
    with pytest.raises(ValueError, match=r"t_end=1\.0 and cannot go on to t_end=0\.5"):
        go_on(NSGFSampler(**TINY).fit(X, Y).set_params(t_end=0.5), X, Y)


@BOTH
def test_column_names_stay_when_going_on_and_change_when_starting_again(cls):
    frame = pd.DataFrame(X, columns=["a", "b"])
    sampler = cls(**TINY).fit(frame, frame + 5)
    with pytest.warns(UserWarning, match="valid feature names"):
        sampler.partial_fit(X, Y)
    assert sampler.feature_names_in_.tolist() == ["a", "b"]
    assert not hasattr(sampler.fit(X, Y), "feature_names_in_")


def test_a_predictor_no_longer_wanted_goes_and_comes():
    sampler = NSGFPlusPlus(straight_from="source", **TINY).fit(X, Y)
    sampler.set_params(switch="fixed").partial_fit(X, Y)
    assert sampler.time_predictor_ is None
    assert sampler.history_.keys() == {"sinkhorn_flow", "straight_flow"}
    sampler.set_params(switch="predict").partial_fit(X, Y)
    assert len(sampler.history_["time_predictor"]) == 10
    assert len(sampler.history_["straight_flow"]) == 30


class Recorder:
    """A callback of scikit-learn's protocol that keeps what it is told."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def setup(self, estimator, context):
        self.told.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.told.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", *_path(context)))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        self.told.append(("end", *_path(context)))
        if fitted_estimator is not None:
            assert fitted_estimator.transform(X).shape == X.shape
            assert np.isfinite(fitted_estimator.score(X, y))
        return self.told[-1] == self.stop_at


def _path(context):
    return (*([] if context.parent is None else _path(context.parent)), _name(context))


def _name(context):
    return context.task_name or context.task_id


class TestCallbacks:
    @pytest.fixture(autouse=True)
    def callbacks(self):
        return pytest.importorskip("sklearn.callback")

    @BOTH
    def test_every_task_is_told_once_and_in_order(self, cls):
        recorder = Recorder()
        cls(**TINY).set_callbacks(recorder).fit(X, Y)
        told = recorder.told
        assert told[0] == ("setup", "fit") and told[-1] == ("teardown", "fit")
        begun = [path for kind, *path in told if kind == "begin"]
        ended = [path for kind, *path in told if kind == "end"]
        assert len(begun) == len({*map(tuple, begun)})
        assert sorted(map(str, begun)) == sorted(map(str, ended))
        for path in begun:  # and no task outside of the one that it is part of
            if len(path) > 1:
                outside = told.index(("begin", *path[:-1])), told.index(("end", *path[:-1]))
                assert outside[0] < told.index(("begin", *path)) < told.index(("end", *path))
                assert told.index(("end", *path)) < outside[1]
        stages = [path[1] for path in begun if len(path) == 2]
        one, two = ["simulate", "train"], ["sinkhorn_flow", "straight"]
        assert stages == (one if cls is NSGFSampler else two)
        assert sum(path[:2] == ["fit", stages[-1]] for path in begun) == 1 + TINY["max_iter"]

    def test_the_time_predictor_is_a_stage(self):
        recorder = Recorder()
        sampler = NSGFPlusPlus(straight_from="source", **TINY).set_callbacks(recorder).fit(X, Y)
        stages = [path[2] for path in recorder.told if path[0] == "begin" and len(path) == 3]
        assert stages == ["sinkhorn_flow", "straight", "predictor"]
        assert sampler.time_predictor_ is not None

    @BOTH
    def test_being_watched_changes_nothing(self, cls):
        watched = cls(**TINY).set_callbacks(Recorder()).fit(X, Y)
        assert torch.equal(networks(watched), networks(cls(**TINY).fit(X, Y)))

    @BOTH
    def test_a_callback_can_stop_training(self, cls):
        stage = "train" if cls is NSGFSampler else "straight"
        recorder = Recorder(stop_at=("end", "fit", stage, 3))
        history = cls(**TINY).set_callbacks(recorder).fit(X, Y).history_
        history = history if cls is NSGFSampler else history["straight_flow"]
        assert (len(history), history.status) == (4, "stopped early")

    @BOTH
    @pytest.mark.parametrize("n", range(1, 9))
    def test_a_callback_may_want_to_stop_at_any_time(self, cls, n):
        class Impatient(Recorder):
            def on_fit_task_end(self, estimator, context):
                self.told.append(context)
                return len(self.told) == n

        sampler = cls(**TINY).set_params(batch_size=512)
        sampler.set_callbacks(Impatient()).fit(X, Y)
        assert np.isfinite(sampler.transform(X)).all()

    @BOTH
    def test_a_callback_that_fails_leaves_the_sampler_as_it_was(self, cls):
        class Failing(Recorder):
            def on_fit_task_end(self, estimator, context):
                if context.task_name in ("train", "straight"):
                    raise RuntimeError("enough")

        sampler = cls(**TINY).fit(X, Y)
        before, weights = set(vars(sampler)), networks(sampler).clone()
        failing = Failing()
        with pytest.raises(RuntimeError, match="enough"):
            sampler.set_callbacks(failing).fit(X, Y)
        assert set(vars(sampler.set_callbacks())) == before
        assert torch.equal(networks(sampler), weights)
        assert failing.told[-1] == ("teardown", "fit")

    def test_scikit_learns_own_callbacks(self, callbacks, capsys):
        pytest.importorskip("rich")
        score = {"score": lambda sampler, X, y: sampler.score(X, y)}
        monitor = callbacks.ScoringMonitor(scoring=score)
        sampler = NSGFSampler(**TINY).set_callbacks(monitor, callbacks.ProgressBar())
        sampler.fit(X, Y)
        scores = [row["score"] for row in monitor.get_logs().data]
        assert len(scores) == TINY["max_iter"] + 1
        assert scores[0] == scores[-1] == sampler.score(X, Y)  # of the whole fit, of the last task
        assert "100%" in capsys.readouterr().out

    def test_a_search_shows_its_fits(self, callbacks, capsys):
        pytest.importorskip("rich")
        search = GridSearchCV(NSGFSampler(**TINY), {"blur": [0.1, 0.2]}, cv=2)
        if not hasattr(search, "set_callbacks"):
            pytest.skip("this scikit-learn has no callbacks in searches")
        search.set_callbacks(callbacks.ProgressBar(max_propagation_depth=None)).fit(X, Y)
        assert "NSGFSampler - fit" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", [NSGFSampler(**TINY), NSGFPlusPlus(**TINY)])
def test_warnings_point_at_the_line_of_the_user(sampler):
    far = np.r_[Y, [[1e6, 1e6]]]
    with pytest.warns(UserWarning) as caught:
        sampler.fit(X, far)
    with pytest.warns(UserWarning) as caught_again:
        make_pipeline(sampler).fit(X, far)
    for warning in [*caught, *caught_again]:
        assert warning.filename == __file__


@BOTH
@WAYS
def test_data_elsewhere_is_warned_of(cls, go_on):
    for X_, Y_, name in ((X, Y + 1000, "target"), (X + 1000, Y, "source"), (X, 100 * Y, "target")):
        sampler = cls(**TINY).fit(X, Y)
        with pytest.warns(UserWarning, match=f"The {name} lies .* Fit again"):
            go_on(sampler, X_, Y_)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*from where it was")
        go_on(cls(**TINY).fit(X, Y), X + 1, 3 * (Y - Y.mean(0)) + Y.mean(0))
