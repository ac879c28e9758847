"""The estimator: its laws, and what it says to bad input."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_linnerud
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import make_moons, make_task
from sknsgf.flow import Dealt, Drawn
from sknsgf.metrics import energy_distance, sinkhorn_divergence
from sknsgf.networks import NetworkSpec

rng = np.random.default_rng(0)
X_SOURCE = rng.normal(size=(300, 2))
SHIFT = np.array([10, -5])
X_TARGET = rng.uniform(-1, 1, size=(400, 2)) * [3, 1] + [10, -5]


def quick(**parameters):
    return NSGFSampler(**{"max_iter": 30, "random_state": 0, **parameters})


@pytest.fixture
def simulations(monkeypatch):
    """Particles and targets drawn for the pools, a pair of arrays a pool."""
    drawn = {}  # rows by what draws them, in the order in which these were first called

    def recording(kind):
        draw = kind.__call__

        def draw_and_keep(self, n, number):
            cloud = draw(self, n, number)
            drawn.setdefault(self, []).append(cloud.x.numpy())
            return cloud

        monkeypatch.setattr(kind, "__call__", draw_and_keep)

    recording(Dealt)
    recording(Drawn)

    class Pools:
        def __iter__(self):
            clouds = [np.concatenate(rows) for rows in drawn.values()]
            return iter(list(zip(clouds[::2], clouds[1::2], strict=True)))

        def __getitem__(self, index):
            return list(self)[index]

    return Pools()


@pytest.fixture(scope="module")
def shifted():
    """A well-trained flow from a cloud to the same cloud shifted by (10, -5)."""
    source = np.random.default_rng(1).normal(size=(1000, 2))
    return NSGFSampler(max_iter=600, random_state=0).fit(source, source + SHIFT)


class TestFit:
    def test_every_call_form_is_the_same_fit(self):
        forms = [
            quick().fit(X_SOURCE, X_TARGET),
            quick().fit(X_SOURCE, X_target=X_TARGET),
            quick().fit(X_source=X_SOURCE, X_target=X_TARGET),
            quick().fit(X_SOURCE, np.zeros(300), X_target=X_TARGET),  # y is labels
            quick().fit(X_SOURCE.tolist(), X_TARGET.tolist()),
            quick().fit(torch.from_numpy(X_SOURCE), torch.from_numpy(X_TARGET)),
        ]
        first = forms[0].transform(X_SOURCE)
        for form in forms[1:]:
            np.testing.assert_array_equal(form.transform(X_SOURCE), first)

    def test_carries_the_source_to_the_target(self, shifted):
        fresh = np.random.default_rng(2).normal(size=(500, 2))
        error = shifted.transform(fresh) - (fresh + SHIFT)
        assert np.abs(np.median(error, axis=0)).max() < 0.05
        assert np.sqrt(np.mean(error**2)) < 0.15  # standard deviations of the data are 1

    def test_learns_moons_from_noise(self):
        X = make_moons(2000, random_state=0)
        flow = NSGFSampler(source="gaussian", max_iter=600, random_state=0).fit(X)
        fresh = make_moons(2000, random_state=1)
        noise = X.mean(0) + X.std() * np.random.default_rng(0).normal(size=(2000, 2))
        assert energy_distance(flow.sample(2000), fresh) < energy_distance(noise, fresh) / 10

    def test_fit_leaves_parameters_alone(self):
        flow = quick(hidden_layer_sizes=[32, 32])
        before = copy.deepcopy(flow.get_params())
        flow.fit(X_SOURCE, X_TARGET)
        assert flow.get_params() == before

    def test_clone_is_unfitted(self):
        with pytest.raises(NotFittedError):
            clone(quick().fit(X_SOURCE, X_TARGET)).sample(3)

    def test_attributes(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        np.testing.assert_allclose(flow.mean_, X_TARGET.mean(0))
        np.testing.assert_allclose(flow.scale_, np.sqrt(np.mean((X_TARGET - flow.mean_) ** 2)))
        pairs = ((X_TARGET[:, None] - X_TARGET) ** 2).sum(-1).mean()
        np.testing.assert_allclose(flow.blur_, 0.05 * np.sqrt(pairs) / flow.scale_)
        assert flow.n_iter_ == len(flow.history_.loss) == 30
        assert flow.history_.status == "completed"
        assert flow.n_features_in_ == 2

    @pytest.mark.parametrize(
        "parameters",
        [
            {"schedule": "constant"},
            {"schedule": "constant", "step_size": 0.2},
            {"t_end": 0.5},
            {"n_steps": 1},
            {"n_targets": 350, "n_particles": 100},
            {"n_particles": 5000},
            {"n_simulations": 3, "batch_size": 7, "ema_decay": 0},
            {"ode_method": "rk4", "n_sampling_steps": 3},
            {"hidden_layer_sizes": ()},
            {"early_stopping": True},
        ],
        ids=str,
    )
    def test_options_run(self, parameters):
        flow = quick(**parameters).fit(X_SOURCE, X_TARGET)
        assert np.isfinite(flow.transform(X_SOURCE)).all()

    def test_stopping_part_of_the_way(self):
        X = np.random.default_rng(0).normal(size=(500, 2))
        half = NSGFSampler(t_end=0.5, n_steps=5, max_iter=400, random_state=0).fit(X, X + 10)
        np.testing.assert_allclose(half.transform(X).mean(0), X.mean(0) + 5, atol=0.3)
        assert half.trajectory(X).times[-1] == 0.5

    def test_fits_may_share_a_pool_directory(self, tmp_path):
        alone = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        flows = [quick(pool_dir=tmp_path, random_state=seed) for seed in (1, 0)]
        with ThreadPoolExecutor() as threads:
            fitted = list(threads.map(lambda flow: flow.fit(X_SOURCE, X_TARGET), flows))
        np.testing.assert_array_equal(fitted[1].transform(X_SOURCE), alone)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_fits_under_any_gradient_mode(self, mode):
        expected = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        with mode():
            moved = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        np.testing.assert_array_equal(moved, expected)

    def test_fits_under_any_default_dtype(self):
        expected = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        torch.set_default_dtype(torch.float64)
        try:
            moved = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        finally:
            torch.set_default_dtype(torch.float32)
        np.testing.assert_array_equal(moved, expected)

    def test_threads_are_given_back_after_fits_in_parallel(self):
        before = torch.get_num_threads()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: quick().fit(X_SOURCE, X_TARGET), range(4)))
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(torch.get_num_threads).result() == before

    def test_one_simulated_step_is_one_step(self):
        flow = quick(n_steps=1, n_sampling_steps=5).fit(X_SOURCE, X_TARGET)
        assert flow.trajectory(X_SOURCE).nfe == 1

    def test_pool_on_disk_changes_nothing(self, tmp_path):
        in_memory = quick().fit(X_SOURCE, X_TARGET)
        on_disk = quick(pool_dir=tmp_path / "pool").fit(X_SOURCE, X_TARGET)
        np.testing.assert_array_equal(on_disk.transform(X_SOURCE), in_memory.transform(X_SOURCE))
        assert not list((tmp_path / "pool").iterdir())

    @pytest.mark.parametrize(
        ("n_rows", "max_iter", "early_stopping", "stops"),
        [
            (300, 500, "auto", True),
            (300, 499, "auto", False),
            (20, 500, "auto", True),
            (19, 500, "auto", False),
            (501, 500, "auto", False),
            (300, 500, False, False),
            (300, 20, True, True),
        ],
    )
    def test_rows_are_held_out_where_they_are_few_and_steps_many(
        self, n_rows, max_iter, early_stopping, stops
    ):
        X = np.random.default_rng(0).normal(size=(n_rows, 2))
        flow = quick(max_iter=max_iter, early_stopping=early_stopping, n_simulations=1)
        losses = flow.set_params(hidden_layer_sizes=(4,)).fit(X, X + 1).history_.validation_loss
        assert (len(losses) > 0) is stops
        assert torch.isfinite(losses).all()

    def test_simulations_grow_with_the_work_until_rows_have_taught_what_they_can(
        self, simulations
    ):
        X = np.random.default_rng(0).normal(size=(60, 2))
        for batch_size in (10, 1000, 50_000, 100_000):
            quick(max_iter=3, batch_size=batch_size, hidden_layer_sizes=(4,)).fit(X, X + 1)
        times_dealt = [len(ends) / len(X) for _, ends in simulations]
        assert times_dealt == [1, 3, 50, 50]  # ten steps each

    @pytest.mark.parametrize("source", [None, "gaussian"])
    def test_rows_held_out_are_never_trained_on(self, source, simulations):
        flow = quick(source=source, early_stopping=True, n_particles=40)
        flow.set_params(max_iter=200).fit(*(X_SOURCE, X_TARGET) if source is None else (X_SOURCE,))
        (starts, ends), (held_out_starts, held_out_ends) = simulations
        assert len(np.unique(ends, axis=0)) == 0.9 * (400 if source is None else 300)
        assert not set(map(tuple, ends)) & set(map(tuple, held_out_ends))
        assert not set(map(tuple, starts)) & set(map(tuple, held_out_starts))

    def test_the_same_rows_are_held_out_when_the_fit_goes_on(self, simulations):
        flow = quick(early_stopping=True, warm_start=True, n_particles=30, max_iter=200)
        flow.fit(X_SOURCE, X_TARGET).fit(X_SOURCE, X_TARGET)
        kept = [set(map(tuple, ends)) for _, ends in simulations[::2]]
        assert kept[0] == kept[1]

    def test_a_tenth_of_few_rows_cannot_be_held_out(self):
        with pytest.raises(ValueError, match="needs 20 in each array, got 19"):
            quick(early_stopping=True).fit(X_SOURCE[:19], X_TARGET)

    def test_progress_bars_on_request_only(self, capsys):
        quick().fit(X_SOURCE, X_TARGET)
        assert capsys.readouterr() == ("", "")
        quick(verbose=1, early_stopping=True).fit(X_SOURCE, X_TARGET)
        shown = capsys.readouterr().err
        for stage in ("simulate", "simulate held-out rows", "train"):
            assert f"NSGFSampler {stage}: " in shown


class TestReproducibility:
    def test_same_seed_same_bits(self):
        first, second = (quick().fit(X_SOURCE, X_TARGET) for _ in range(2))
        np.testing.assert_array_equal(first.transform(X_SOURCE), second.transform(X_SOURCE))
        np.testing.assert_array_equal(first.sample(50), second.sample(50))
        assert (
            first.transform(X_SOURCE)
            != quick(random_state=1).fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        ).any()

    def test_fit_twice_is_fit_once(self):
        once = quick().fit(X_SOURCE, X_TARGET)
        twice = quick().fit(X_TARGET[:, :1], X_SOURCE[:, :1]).fit(X_SOURCE, X_TARGET)
        np.testing.assert_array_equal(once.transform(X_SOURCE), twice.transform(X_SOURCE))

    def test_jobs_change_no_bit(self):
        one = quick(n_simulations=20).fit(X_SOURCE, X_TARGET)
        two = quick(n_simulations=20, n_jobs=2).fit(X_SOURCE, X_TARGET)
        np.testing.assert_array_equal(one.transform(X_SOURCE), two.transform(X_SOURCE))

    def test_global_seeds_are_untouched(self, untouched_global_seeds):
        flow = quick().fit(X_SOURCE, X_TARGET)
        flow.sample(10)
        flow.score(X_SOURCE, X_TARGET)

    def test_sampling_changes_nothing(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        before = pickle.dumps(flow)
        flow.sample(10), flow.score(X_SOURCE, X_TARGET), flow.trajectory(X_SOURCE)
        assert pickle.dumps(flow) == before

    def test_sample_follows_its_own_seed(self):
        flow = quick(source="gaussian").fit(X_TARGET)
        np.testing.assert_array_equal(
            flow.sample(9, random_state=3), flow.sample(9, random_state=3)
        )
        assert (flow.sample(9, random_state=3) != flow.sample(9, random_state=4)).any()

    def test_pickle_keeps_every_bit(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        loaded = pickle.loads(pickle.dumps(flow))
        np.testing.assert_array_equal(loaded.sample(20), flow.sample(20))


class TestUnits:
    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_units_of_the_data_do_not_matter(self, scale):
        plain = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        scaled = quick().fit(scale * X_SOURCE, scale * X_TARGET).transform(scale * X_SOURCE)
        np.testing.assert_allclose(scaled / scale, plain, rtol=1e-3, atol=1e-3)

    def test_origin_of_the_data_does_not_matter(self):
        plain = quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        moved = quick().fit(X_SOURCE + 1e3, X_TARGET + 1e3).transform(X_SOURCE + 1e3)
        np.testing.assert_allclose(moved - 1e3, plain, atol=1e-3)

    @pytest.mark.parametrize("schedule", ["straight", "constant"])
    def test_clouds_far_apart_keep_every_digit(self, schedule):
        """Transport commutes with translations; on the way they fade as the flow goes."""
        grid = 2.0**-20  # so that the shift does not round the data
        X, Y = (grid * np.round(rows / grid) for rows in (X_SOURCE, X_TARGET))
        far = np.array([2.0**27, -(2.0**25)])
        flow = quick(schedule=schedule).fit(X, Y + far)
        path = flow.trajectory(X)
        np.testing.assert_allclose(path.states[0], X, rtol=0, atol=1e-7)
        assert len(np.unique(path.states[-1], axis=0)) == len(X)
        done = 1 - flow._way_left(path.times)
        np.testing.assert_allclose(path.states.mean(1) - done[:, None] * far, 0, atol=12)
        if schedule == "straight":  # the other leaves a share of the way, and what it is off by
            near = quick().fit(X, Y).transform(X)
            np.testing.assert_allclose((path.states[-1] - far).std(0), near.std(0), rtol=0.4)
        (step,) = np.diff(path.times[3:5])
        after = path.states[3] + step * flow.velocity(path.times[3], path.states[3])
        np.testing.assert_allclose(after, path.states[4], rtol=0, atol=1e-6)
        back = flow.inverse_transform(path.states[-1])
        assert np.median(np.abs(back - X)) < 0.1

    def test_a_source_of_ones_own_may_be_far(self, tmp_path):
        mixture = GaussianMixture(1, random_state=0).fit(X_SOURCE + 1e9)
        flow = quick(source=FrozenEstimator(mixture)).fit(X_TARGET)
        drawn = flow.sample(300)
        assert len(np.unique(drawn, axis=0)) == 300
        np.testing.assert_allclose(drawn.mean(0), X_TARGET.mean(0), atol=0.5)
        back = flow.inverse_transform(drawn)
        np.testing.assert_allclose(back.mean(0), 1e9, atol=2)
        with pytest.warns(UserWarning, match="source"):
            flow.save(tmp_path / "flow.npz")
        loaded = NSGFSampler.load(tmp_path / "flow.npz", source=FrozenEstimator(mixture))
        np.testing.assert_array_equal(loaded.sample(300), drawn)

    def test_what_a_precision_cannot_hold_is_refused(self):
        flow = quick().fit(1e5 * X_SOURCE, 1e5 * X_TARGET)
        with pytest.raises(ValueError, match="float16"):
            flow.transform(torch.zeros(5, 2, dtype=torch.float16))
        units = flow._units._replace(scale=1e38)
        with pytest.raises(ValueError, match="float32"):
            units.outward(torch.full((1, 2), 9.0), np.dtype(np.float32))

    @pytest.mark.parametrize(("shift", "stretch"), [(1e3, 1), (-50, 100), (3, 1e-3)])
    def test_source_far_from_the_target(self, shift, stretch):
        generator = np.random.default_rng(0)
        X, Y = generator.normal(size=(800, 2)), generator.normal(size=(800, 2)) * stretch + shift
        moved = NSGFSampler(max_iter=300, random_state=0).fit(X, Y).transform(X)
        np.testing.assert_allclose(moved.mean(0), Y.mean(0), atol=0.2 * stretch)
        np.testing.assert_allclose(moved.std(0), Y.std(0), rtol=0.25)

    def test_constant_target(self):
        flow = quick(max_iter=300).fit(X_SOURCE, np.full((50, 2), 0.1))
        np.testing.assert_allclose(flow.transform(X_SOURCE), 0.1, atol=0.5)
        np.testing.assert_array_equal(flow.sample(100), 0.1)
        assert flow.scale_ == pytest.approx(np.std(X_SOURCE - X_SOURCE.mean(0)))

    def test_phases_to_a_constant_target(self):
        model = NSGFPlusPlus(max_iter=5, hidden_layer_sizes=(8,), random_state=0)
        np.testing.assert_array_equal(model.fit(X_SOURCE, np.full((50, 2), 0.1)).sample(9), 0.1)

    def test_units_beyond_single_precision(self):
        unit = 2.0**200  # a power of two, so that nothing rounds otherwise
        flow, same = (quick(source="gaussian").fit(c * X_TARGET) for c in (1, unit))
        np.testing.assert_allclose(same.sample(100) / unit, flow.sample(100), rtol=1e-6)

    def test_noise_is_as_wide_as_the_data(self):
        flow = quick(source="gaussian").fit(X_TARGET)
        start = flow.inverse_transform(flow.sample(2000))
        np.testing.assert_allclose(start.mean(0), flow.mean_, atol=0.15 * flow.scale_)
        np.testing.assert_allclose(start.std(0), flow.scale_, rtol=0.1)

    def test_constant_target_in_other_units(self):
        flow = quick(max_iter=300).fit(1e6 * X_SOURCE, np.full((50, 2), 7.0))
        assert flow.scale_ == pytest.approx(np.std(1e6 * (X_SOURCE - X_SOURCE.mean(0))), rel=1e-6)

    def test_outliers_that_set_the_scale_are_reported(self):
        far = np.vstack([X_TARGET, [[1e6, 1e6]]])
        with pytest.warns(UserWarning, match="QuantileTransformer"):
            quick().fit(X_SOURCE, far)


def told(X, *target, **settings):
    """What a short fit says about its data."""
    flow = NSGFSampler(max_iter=1, n_simulations=1, random_state=0, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flow.fit(X, *target)
    return "\n".join(str(warning.message) for warning in caught)


class TestWarningsOfData:
    rng = np.random.default_rng(0)
    WIDE = rng.normal(size=(300, 3)) * [1, 1000, 1]
    ONE_HOT = np.eye(3)[rng.integers(3, size=300)]

    def test_unequal_columns(self):
        named = pd.DataFrame(self.WIDE, columns=["a", "salary", "c"])
        assert "the widest, 'salary'" in told(named, source="gaussian")
        assert "the widest, column 1" in told(X_SOURCE @ np.ones((2, 3)), self.WIDE)
        assert told(self.WIDE / [1, 1000, 1], source="gaussian") == ""

    @pytest.mark.parametrize("load", [load_digits, load_iris, load_diabetes, load_linnerud])
    def test_like_columns(self, load):
        assert "range" not in told(load().data, source="gaussian")

    def test_images_are_never_told_to_be_scaled(self):
        assert "range" not in told(self.WIDE, source="gaussian", image_shape=(3, 1, 1))

    def test_atoms(self):
        X, Y = self.rng.normal(size=(2, 300, 2))
        flat = np.c_[X, np.ones(300)]
        assert "column 2 in 100% of them" in told(flat, np.c_[Y, Y[:, 0] + X[:, 0]])
        assert told(flat, np.c_[Y, np.full(300, 5)]) == ""  # which does not vary in the target
        assert "3 of 5 columns" in told(np.c_[X, self.ONE_HOT], self.rng.normal(size=(300, 5)))
        assert told(np.c_[X, self.ONE_HOT], np.c_[Y, self.ONE_HOT[::-1]]) == ""
        assert told(X.round(1), Y.round(1)) == ""

    def test_few_rows(self):
        assert "5 of the source: fewer than 20" in told(X_SOURCE[:5], X_TARGET)
        assert "19 rows of the target: fewer than 20" in told(X_TARGET[:19], source="gaussian")
        assert "fewer" not in told(X_SOURCE[:20], X_TARGET[:20])


class TestConstantColumns:
    """Where the target never varies, samples do not either: noise there would tell them apart."""

    TARGET = np.insert(X_TARGET, 1, 0.1, axis=1)
    SOURCE = rng.normal(size=(300, 3))

    @pytest.fixture(params=[NSGFSampler, NSGFPlusPlus])
    def sampler(self, request):
        return request.param(max_iter=10, hidden_layer_sizes=(16,), random_state=0)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("value", [0.1, -0.0, 1e8 + 0.1])
    def test_samples_are_constant_there(self, sampler, value, dtype):
        target = self.TARGET.astype(dtype)
        target[:, 1] = value
        rows = sampler.set_params(source="gaussian").fit(target).sample(200)
        assert rows[:, 1].tobytes() == np.full(200, target[0, 1]).tobytes()
        assert all(len(np.unique(column)) == 200 for column in rows[:, [0, 2]].T)

    def test_it_is_samples_that_are_judged(self, sampler):
        seen = []
        sampler.set_params(source="gaussian").fit(self.TARGET)
        sampler.evaluate(lambda rows, _: seen.append(rows) or 0, self.TARGET)
        assert (seen[0][:, 1] == 0.1).all()

    def test_rows_are_left_where_their_inverse_finds_them(self):
        flow = quick(max_iter=300).fit(self.SOURCE, self.TARGET)
        moved = flow.transform(self.SOURCE)
        assert (moved[:, 1] != 0.1).all() and (flow.sample(100)[:, 1] == 0.1).all()
        found = flow.inverse_transform(moved)[:, 1]
        assert np.corrcoef(found, self.SOURCE[:, 1])[0, 1] > 0.9

    def test_part_of_the_way_is_not_at_the_end(self):
        flow = quick().fit(self.SOURCE, self.TARGET)
        flow.set_params(t_end=0.5).fit(self.SOURCE, self.TARGET)
        assert flow.sample(100)[:, 1].std() > 0.1

    def test_a_column_that_has_varied_once_is_free(self, sampler):
        varied = self.TARGET + [0, 1, 0] * rng.normal(size=(400, 3))
        sampler.fit(self.SOURCE, self.TARGET).partial_fit(self.SOURCE, self.TARGET)
        assert (sampler.sample(100)[:, 1] == 0.1).all()
        for target in (varied, self.TARGET):
            sampler.partial_fit(self.SOURCE, target)
            assert not (sampler.sample(100)[:, 1] == 0.1).any()


class TestArraysInAndOut:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_dtype_is_kept(self, dtype):
        flow = quick().fit(X_SOURCE.astype(dtype), X_TARGET.astype(dtype))
        assert flow.transform(X_SOURCE.astype(dtype)).dtype == dtype
        assert flow.sample(3).dtype == dtype

    def test_tensor_in_tensor_out(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        moved = flow.transform(torch.from_numpy(X_SOURCE))
        assert isinstance(moved, torch.Tensor)
        np.testing.assert_array_equal(moved.numpy(), flow.transform(X_SOURCE))

    def test_dataframes(self):
        frame = pd.DataFrame(X_SOURCE, columns=["a", "b"])
        flow = quick().fit(frame, pd.DataFrame(X_TARGET, columns=["a", "b"]))
        moved = flow.set_output(transform="pandas").transform(frame)
        assert list(moved.columns) == ["a", "b"]
        with pytest.raises(ValueError, match="feature names"):
            flow.transform(frame[["b", "a"]])

    def test_columns_of_source_and_target_must_agree(self):
        frame = pd.DataFrame(X_SOURCE, columns=["a", "b"])
        flow = quick().fit(frame, frame + 1)
        for other in (frame[["b", "a"]], frame.rename(columns={"a": "z"})):
            with pytest.raises(ValueError, match="same order"):
                quick().fit(frame, other)
            with pytest.raises(ValueError, match="same order"):
                flow.score(frame, X_target=other)
        with pytest.raises(TypeError, match="string"):
            quick(max_iter=10**9).fit(frame.rename(columns={"a": 1}), X_TARGET)

    def test_half_precision_tensors(self):
        flow = quick().fit(torch.from_numpy(X_SOURCE).bfloat16(), X_TARGET)
        assert flow.transform(torch.from_numpy(X_SOURCE).bfloat16()).shape == X_SOURCE.shape

    def test_velocity_of_a_tensor_is_a_tensor(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        assert isinstance(flow.velocity(0.5, torch.from_numpy(X_SOURCE)), torch.Tensor)

    def test_chunks_do_not_show(self):
        flow = quick(hidden_layer_sizes=(8,)).fit(X_SOURCE, X_TARGET)
        whole, many = flow.transform(X_SOURCE), flow.transform(np.tile(X_SOURCE, (100, 1)))
        np.testing.assert_allclose(many, np.tile(whole, (100, 1)), rtol=1e-12)


class TestSources:
    def test_rows_run_out_with_a_warning(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            within = flow.sample(300)
        assert len(np.unique(within, axis=0)) == 300
        with pytest.warns(UserWarning, match="300 source rows"):
            assert flow.sample(301).shape == (301, 2)

    def test_noise_never_runs_out(self):
        flow = quick(source="gaussian").fit(X_TARGET)
        assert len(np.unique(flow.sample(2000), axis=0)) == 2000

    @pytest.mark.parametrize(
        "density",
        [KernelDensity(), GaussianMixture(random_state=0)],
        ids=lambda density: type(density).__name__,
    )
    def test_fitted_density(self, density, untouched_global_seeds):
        density.fit(X_SOURCE)
        first, second = (quick(source=density).fit(X_TARGET) for _ in range(2))
        np.testing.assert_array_equal(first.sample(500), second.sample(500))
        assert len(np.unique(first.sample(500), axis=0)) == 500

    def test_source_of_another_shape(self):
        with pytest.raises(ValueError, match=r"shape \(2, 2\), but it has shape \(2, 3\)"):
            quick(source=KernelDensity().fit(np.ones((5, 3)))).fit(X_TARGET)

    def test_frozen_estimator_survives_cloning_and_follows_the_seed(self):
        frozen = FrozenEstimator(GaussianMixture(random_state=0).fit(X_SOURCE))
        flow = clone(quick(source=frozen)).fit(X_TARGET)
        draws = flow.sample(5, random_state=1), flow.sample(5, random_state=2)
        assert (draws[0] != draws[1]).all()
        np.testing.assert_array_equal(flow.sample(5, random_state=1), draws[0])

    def test_an_ignored_second_array_is_reported(self):
        with pytest.warns(UserWarning, match="second array is ignored"):
            quick(source="gaussian").fit(X_SOURCE, X_TARGET)

    def test_target_beside_a_given_source(self):
        with pytest.raises(ValueError, match="source is set"):
            quick(source="gaussian").fit(X_SOURCE, X_target=X_TARGET)


class TestIntegration:
    def test_steps_are_read_at_every_call(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        for n_steps, method, stages in [(1, "euler", 1), (7, "euler", 1), (7, "heun", 2)]:
            flow.set_params(n_sampling_steps=n_steps, ode_method=method)
            path = flow.trajectory(X_SOURCE)
            # The last step is always a single Euler step onto the target.
            assert path.nfe == (n_steps - 1) * stages + 1
            assert len(path.states) == len(path.times) == n_steps + 1
            np.testing.assert_array_equal(path.states[-1], flow.transform(X_SOURCE))
            np.testing.assert_allclose(path.states[0], X_SOURCE, rtol=1e-12)
        with pytest.raises(ValueError, match="ode_method"):
            flow.set_params(ode_method="guess").transform(X_SOURCE)

    def test_nothing_is_evaluated_past_the_last_trained_time(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        network, seen = flow.velocity_network_, []
        network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].max()))
        for n_steps in (1, 3, 10, 40):
            flow.set_params(n_sampling_steps=n_steps, ode_method="rk4").transform(X_SOURCE)
        assert max(seen) == pytest.approx(0.9)

    def test_velocity_moves_the_trajectory(self, shifted):
        path = shifted.trajectory(X_SOURCE)
        step = path.states[1] - path.states[0]
        velocity = shifted.velocity(0.0, X_SOURCE)
        np.testing.assert_allclose(step, path.times[1] * velocity, rtol=1e-6)

    @pytest.mark.parametrize("n_steps", [10, 100])
    def test_inverse_undoes_transform(self, shifted, n_steps):
        flow = copy.deepcopy(shifted).set_params(n_sampling_steps=n_steps)
        back = flow.inverse_transform(flow.transform(X_SOURCE))
        np.testing.assert_allclose(back, X_SOURCE, atol=1e-4)


class TestScore:
    def test_is_the_divergence_of_moved_rows(self):
        flow = quick(score_blur=0.3).fit(X_SOURCE, X_TARGET)
        expected = sinkhorn_divergence(flow.transform(X_SOURCE), X_TARGET, blur=0.3 * flow.scale_)
        score = flow.score(X_SOURCE, X_target=X_TARGET)
        assert score == pytest.approx(-expected / flow.scale_**2, rel=1e-3)

    def test_does_not_depend_on_the_fitted_blur(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        sharp, blunt = (copy.deepcopy(flow).set_params(blur=blur) for blur in (0.01, 10.0))
        assert sharp.score(X_SOURCE, X_TARGET) == blunt.score(X_SOURCE, X_TARGET)

    def test_more_training_scores_higher(self):
        X_source, X_target = make_task("moons", 1000, random_state=0)
        short, long = (
            NSGFSampler(max_iter=n, random_state=0).fit(X_source, X_target) for n in (10, 400)
        )
        assert long.score(X_source, X_target) > short.score(X_source, X_target)

    def test_given_a_source_it_needs_only_target_rows(self):
        flow = quick(source="gaussian").fit(X_TARGET)
        assert flow.score(X_TARGET) == flow.score(X_TARGET)
        assert flow.score(X_TARGET) > flow.score(X_TARGET + 50)

    def test_grid_search(self):
        search = GridSearchCV(quick(), {"blur": [0.05, 0.2], "n_steps": [2, 5]}, cv=2)
        search.fit(X_SOURCE, X_TARGET[:300])
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.best_estimator_.transform(X_SOURCE).shape == X_SOURCE.shape


class TestPipelines:
    def test_domain_transport(self):
        generator = np.random.default_rng(0)
        y = np.arange(400) % 2
        source = generator.normal(size=(400, 2)) * 0.3 + np.stack([4 * y - 2, y], 1)
        labels = np.arange(300) % 2
        target = generator.normal(size=(300, 2)) * 0.3 + np.stack([4 * labels - 2, labels], 1)
        target = target * 100 + 1000
        with sklearn.config_context(enable_metadata_routing=True):
            pipe = make_pipeline(
                StandardScaler(),
                NSGFSampler(max_iter=500, random_state=0).set_fit_request(X_target=True),
                LogisticRegression(),
                transform_input=["X_target"],
            )
            pipe.fit(source, y, X_target=target)
            target_classifier = make_pipeline(pipe[0], pipe[-1])
        assert target_classifier.score(target, labels) > 0.95
        assert LogisticRegression().fit(source, y).score(target, labels) < 0.7

    def test_scaled_generation(self):
        pipe = make_pipeline(StandardScaler(), quick(source="gaussian"))
        assert pipe.fit(X_TARGET).transform(X_TARGET).shape == X_TARGET.shape


class Linear(torch.nn.Module):
    """A layer, with something done before it and something after."""

    def __init__(self, after=lambda u: u, before=lambda x: x):
        super().__init__()
        self.before, self.layer, self.after = before, torch.nn.Linear(2, 2), after

    def forward(self, t, x):
        return self.after(self.layer(self.before(x)))


class TestNetworks:
    def test_own_module_is_copied(self):
        class Still(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.shift = torch.nn.Parameter(torch.zeros(2))

            def forward(self, t, x):
                return self.shift.expand_as(x)

        module = Still()
        flow = quick(network=module).fit(X_SOURCE, X_TARGET)
        assert not module.shift.any() and flow.velocity_network_.network.shift.any()

    def test_factory_gets_the_shape_of_a_row(self, untouched_global_seeds):
        from sknsgf.networks import VelocityMLP

        flow = quick(network=lambda shape: VelocityMLP(*shape, [8])).fit(X_SOURCE, X_TARGET)
        again = quick(network=lambda shape: VelocityMLP(*shape, [8])).fit(X_SOURCE, X_TARGET)
        np.testing.assert_array_equal(flow.transform(X_SOURCE), again.transform(X_SOURCE))

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (lambda shape: "not a module", "network must be"),
            (lambda shape: torch.nn.Linear(2, 2), r"failed for t of shape \(2,\)"),
            (torch.nn.Bilinear(1, 2, 5), r"failed for t of shape|must return a tensor"),
            (Linear(lambda u: u.flatten()), r"shape of x, \(2, 2\).*got \(4,\)"),
            (Linear(lambda u: (u, u)), "must return a tensor.*got tuple"),
            (Linear(lambda u: u.double()), "dtype, float32; got .*float64"),
            (Linear(lambda u: u * 1j), "dtype, float32; got .*complex64"),
            (Linear(lambda u: u.detach()), "no gradient"),
            (Linear().requires_grad_(False), "no gradient"),
            (Linear(lambda u: u * torch.nan), "NaN"),
            (Linear(before=lambda x: x.float()), "float64: .*follow the dtype of x"),
        ],
    )
    def test_unusable_network(self, network, message):
        with pytest.raises(ValueError, match=message):
            quick(network=network).fit(X_SOURCE, X_TARGET)

    def test_to_try_a_network_leaves_no_trace(self, untouched_global_seeds):
        """Layers that draw, that count rows, and that are made when first called."""

        def made(shape):
            layers = torch.nn.LazyLinear(8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
            return Linear(before=torch.nn.Sequential(*layers, torch.nn.LazyLinear(2)))

        spec = NetworkSpec(2, made, (8,))
        first, second = (spec.make(seed) for seed in (0, 0))
        for name, value in first.state_dict().items():
            torch.testing.assert_close(value, second.state_dict()[name], rtol=0, atol=0)
        statistics = first.before[1]
        assert not statistics.running_mean.any() and int(statistics.num_batches_tracked) == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("source", "target", "error", "message"),
        [
            (X_SOURCE, np.where(X_TARGET > 12, np.nan, X_TARGET), ValueError, "NaN"),
            (np.where(X_SOURCE > 2, np.inf, X_SOURCE), X_TARGET, ValueError, "infinity"),
            (X_SOURCE[:, 0], X_TARGET, ValueError, "2D array"),
            (X_SOURCE.reshape(-1, 2, 1), X_TARGET, ValueError, "reshape"),
            (X_SOURCE.reshape(-1, 2, 1, 1), X_TARGET, ValueError, "reshape"),
            (np.empty((0, 2)), X_TARGET, ValueError, "0 sample"),
            (X_SOURCE[:1], X_TARGET, ValueError, "1 sample"),
            (X_SOURCE, X_TARGET[:1], ValueError, "1 sample"),
            (X_SOURCE[:, :0], X_TARGET, ValueError, "0 feature"),
            (np.array([["a", "b"]] * 9), X_TARGET, ValueError, "numeric|string"),
            (X_SOURCE + 1j, X_TARGET, ValueError, "[Cc]omplex"),
            (sparse.csr_array(X_SOURCE), X_TARGET, TypeError, "dense"),
            (np.ones((9, 3)), X_TARGET, ValueError, "3 features but X_target has 2"),
            (X_SOURCE, None, ValueError, 'target is missing.*source="gaussian"'),
            (X_SOURCE, np.zeros(300), ValueError, "labels"),
            (X_SOURCE, list(range(300)), ValueError, "labels"),
            (X_SOURCE.reshape(-1, 2, 1).tolist(), X_TARGET, ValueError, "reshape"),
        ],
    )
    def test_unusable_arrays(self, source, target, error, message):
        flow = quick().fit(X_SOURCE, X_TARGET)
        before = pickle.dumps(flow)
        with pytest.raises(error, match=message):
            flow.fit(source, target)
        assert pickle.dumps(flow) == before

    @pytest.mark.parametrize(
        "parameters",
        [
            {"source": "uniform"},
            {"blur": 0},
            {"blur": "sharp"},
            {"blur": float("nan")},
            {"step_size": -1, "schedule": "constant"},
            {"step_size": 0.1},
            {"step_size": 2, "schedule": "constant"},
            {"n_steps": 0},
            {"n_steps": 2.5},
            {"n_particles": 1},
            {"n_targets": 1},
            {"n_simulations": 0},
            {"schedule": "curved"},
            {"t_end": 0.0},
            {"t_end": 1.5},
            {"t_end": 0.5, "schedule": "constant"},
            {"network": "transformer"},
            {"hidden_layer_sizes": (64, 0)},
            {"hidden_layer_sizes": -64},
            {"max_iter": 0},
            {"learning_rate": 0},
            {"batch_size": 0},
            {"ema_decay": 1.0},
            {"early_stopping": "yes"},
            {"score_blur": -1},
            {"n_sampling_steps": 0},
            {"ode_method": "leapfrog"},
            {"device": "abacus"},
            {"device": "cuda:99"},
            {"n_jobs": "all"},
            {"random_state": "seed"},
        ],
        ids=str,
    )
    def test_impossible_parameters(self, parameters):
        flow = quick().fit(X_SOURCE, X_TARGET).set_params(**parameters)
        before = pickle.dumps(flow.__dict__)
        with pytest.raises(ValueError, match=next(iter(parameters))):
            flow.fit(X_SOURCE, X_TARGET)
        assert pickle.dumps(flow.__dict__) == before

    def test_other_arrays_than_fitted(self):
        flow = quick().fit(X_SOURCE, X_TARGET)
        for method in (flow.transform, flow.inverse_transform, flow.trajectory):
            with pytest.raises(ValueError, match="3 features"):
                method(np.ones((4, 3)))
            with pytest.raises(ValueError, match="NaN"):
                method([[np.nan, 0.0]])
        with pytest.raises(ValueError, match="positive integer"):
            flow.sample(0)
        with pytest.raises(ValueError, match="positive integer"):
            flow.sample(2.5)

    def test_unfitted(self):
        for call in (lambda f: f.transform(X_SOURCE), lambda f: f.sample(), lambda f: f.score(1)):
            with pytest.raises(NotFittedError):
                call(quick())

    @pytest.mark.parametrize("rate", [1e3, 1e30])
    def test_divergence_is_reported_with_the_remedy(self, rate):
        with pytest.warns(ConvergenceWarning, match="sinkhorn flow.*Lower learning_rate=1"):
            flow = quick(learning_rate=rate).fit(X_SOURCE, X_TARGET)
        assert flow.history_.status == "diverged"
        untrained = quick(max_iter=1, learning_rate=1e-30).fit(X_SOURCE, X_TARGET)
        assert flow.score(X_SOURCE, X_TARGET) > 1.5 * untrained.score(X_SOURCE, X_TARGET)
        for moved in (flow.transform(X_SOURCE), flow.inverse_transform(X_TARGET)):
            assert np.isfinite(moved).all()

    def test_unsolved_transport_is_reported_with_the_remedy(self):
        far = np.r_[X_TARGET, [[1e6, 1e6]]]
        with pytest.warns(ConvergenceWarning, match="sinkhorn flow stopped short.*Raise blur"):
            quick().fit(X_SOURCE, far)


# Rows for the simulations


def test_the_pool_uses_every_row_alike(simulations):
    flow = NSGFSampler(max_iter=1, n_particles=20, n_simulations=12, random_state=0)
    flow.fit(X_SOURCE[:70], X_TARGET[:90])
    (clouds,) = simulations
    for rows, n_rows in zip(clouds, (70, 90), strict=True):
        _, counts = np.unique(rows, axis=0, return_counts=True)
        assert len(counts) == n_rows
        assert counts.max() - counts.min() <= 1
