"""NSGF++: its phases and what it says to bad input."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.flow import LineTeacher, coupled_pairs, large_pairs, straight_records
from sknsgf.metrics import energy_distance

rng = np.random.default_rng(0)
X_SOURCE = rng.normal(size=(300, 3))
X_TARGET = rng.uniform(-1, 1, size=(400, 3)) * [3, 1, 1] + [10, -5, 0]
PAPER = {"straight_from": "source"}
FORMS = [
    {},
    {"coupling": "independent"},
    {"coupling": "minibatch"},
    PAPER,
    {**PAPER, "switch": "fixed"},
    {**PAPER, "coupling": "minibatch"},
    {**PAPER, "coupling": "large"},
]


def quick(**parameters):
    return NSGFPlusPlus(**{"max_iter": 20, "random_state": 0, **parameters})


@pytest.fixture(scope="module", params=[{}, PAPER], ids=str)
def trained(request):
    """A well-trained model from a cloud to the same cloud shifted by 10."""
    source = np.random.default_rng(1).normal(size=(1000, 3))
    return NSGFPlusPlus(**request.param, max_iter=500, random_state=0).fit(source, source + 10)


@pytest.mark.parametrize("form", FORMS, ids=str)
class TestEveryForm:
    def test_there_and_back(self, form):
        model = quick(**form).fit(X_SOURCE, X_TARGET)
        moved = model.transform(X_SOURCE)
        back = model.inverse_transform(moved)
        assert moved.shape == back.shape == X_SOURCE.shape
        assert np.isfinite(moved).all() and np.isfinite(back).all()

    def test_same_seed_same_bits(self, form, untouched_global_seeds):
        first, second = (quick(**form).fit(X_SOURCE, X_TARGET) for _ in range(2))
        np.testing.assert_array_equal(first.sample(50), second.sample(50))

    def test_evaluations_are_counted(self, form):
        model = quick(n_straight_steps=7, **form).fit(X_SOURCE, X_TARGET)
        seen = []
        for network in (model.sinkhorn_flow_.velocity_network_, model.straight_network_):
            network.register_forward_hook(lambda *_: seen.append(1))
        path = model.trajectory(X_SOURCE.astype(np.float32))
        predictions = int(model.time_predictor_ is not None)
        assert path.nfe == len(seen) + predictions == 5 + 7 + predictions

    def test_times_run_to_one_in_equal_steps_from_the_switch(self, form):
        model = quick(n_straight_steps=7, **form).fit(X_SOURCE, X_TARGET)
        path = model.trajectory(X_SOURCE)
        straight = path.times[-8:]
        np.testing.assert_allclose(straight[-1], 1)
        steps = np.diff(straight, axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-7)
        if "straight_from" not in form:
            np.testing.assert_array_equal(straight[0], 0)
        elif form.get("switch") == "fixed":
            np.testing.assert_allclose(straight[0], 0.5)
        else:
            assert len(np.unique(straight[0])) > 100

    def test_phases_join(self, form):
        model = quick(**form).fit(X_SOURCE, X_TARGET)
        states = model.trajectory(X_SOURCE).states
        near = model.sinkhorn_flow_.transform(X_SOURCE)
        np.testing.assert_allclose(states[5], near, rtol=1e-9)
        np.testing.assert_array_equal(states[6], states[5])
        np.testing.assert_array_equal(states[-1], model.transform(X_SOURCE))


class TestPhases:
    def test_carries_the_source_to_the_target(self, trained):
        fresh = np.random.default_rng(2).normal(size=(500, 3))
        moved = trained.transform(fresh)
        np.testing.assert_allclose(moved.mean(0), fresh.mean(0) + 10, atol=0.2)
        np.testing.assert_allclose(moved.std(0), 1, atol=0.2)

    def test_the_second_phase_improves_the_first(self, trained):
        fresh = np.random.default_rng(2).normal(size=(500, 3))
        first = trained.sinkhorn_flow_.transform(fresh)
        target = np.random.default_rng(3).normal(size=(500, 3)) + 10
        assert energy_distance(trained.transform(fresh), target) < 0.1 * energy_distance(
            first, target
        )

    @pytest.mark.parametrize("trained", [PAPER], ids=str, indirect=True)
    def test_switch_times_are_about_where_the_first_phase_ends(self, trained):
        # A shift by ten standard deviations: any point shows how far along it is.
        assert trained.switch_time_.shape == (100,)
        np.testing.assert_allclose(np.median(trained.switch_time_), 0.5, atol=0.05)

    @pytest.mark.parametrize("form", [{}, {**PAPER, "switch": "fixed"}], ids=str)
    def test_inverse_undoes_transform_unless_switches_are_predicted(self, form):
        source = np.random.default_rng(1).normal(size=(500, 3))
        model = quick(max_iter=200, **form).fit(source, source + 10)
        back = model.inverse_transform(model.transform(source))
        np.testing.assert_allclose(back, source, atol=1e-3)

    def test_a_first_phase_that_leaves_nothing_to_do_is_reported(self):
        flow = NSGFSampler(max_iter=200)
        with pytest.warns(UserWarning, match="t_end=0.5"):
            quick(sinkhorn_flow=flow, max_iter=200, **PAPER).fit(X_SOURCE, X_SOURCE + 10)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick(max_iter=200, **PAPER).fit(X_SOURCE, X_SOURCE + 10)

    def test_the_given_flow_is_cloned(self):
        flow = NSGFSampler(n_steps=3, t_end=0.4, max_iter=10)
        model = quick(sinkhorn_flow=flow, source="gaussian").fit(X_TARGET)
        assert not hasattr(flow, "velocity_network_") and flow.source is None
        assert model.sinkhorn_flow_.n_steps == 3 and model.sinkhorn_flow_.source == "gaussian"

    def test_many_steps_of_the_first_phase_are_warned_of(self):
        with pytest.warns(UserWarning, match="n_steps=6") as caught:
            quick(sinkhorn_flow=NSGFSampler(n_steps=6, t_end=0.5, max_iter=5), max_iter=5).fit(
                X_SOURCE, X_TARGET
            )
        assert caught[0].filename == __file__

    def test_switch_times_are_of_rows_that_nothing_was_fitted_to(self):
        model = quick(max_iter=2, **PAPER).fit(X_SOURCE, X_TARGET)
        seen = model.sinkhorn_flow_.source_.x
        assert len(seen) == 270 and len(model.switch_time_) == 30
        assert len(model.source_.x) == 300  # to sample from
        model.set_params(random_state=1).partial_fit(X_SOURCE, X_TARGET)
        assert torch.equal(model.sinkhorn_flow_.source_.x, seen)
        assert len(quick(max_iter=2, **PAPER).fit(X_SOURCE[:20], X_TARGET).switch_time_) == 20

    def test_no_row_is_spared_for_switch_times_that_nothing_predicts(self):
        model = quick(max_iter=2).fit(X_SOURCE, X_TARGET)
        assert len(model.sinkhorn_flow_.source_.x) == 300
        np.testing.assert_array_equal(model.switch_time_, 0)

    @pytest.mark.parametrize("form, coupling", [({}, "large"), (PAPER, "independent")], ids=str)
    def test_what_goes_with_where_lines_start(self, form, coupling):
        automatic = quick(**form).fit(X_SOURCE, X_TARGET)
        spelled = quick(
            coupling=coupling,
            sinkhorn_flow=NSGFSampler(n_steps=5, t_end=0.5, learning_rate=3e-3, max_iter=20),
            **form,
        ).fit(X_SOURCE, X_TARGET)
        np.testing.assert_array_equal(automatic.sample(50), spelled.sample(50))

    @pytest.mark.parametrize("form", FORMS, ids=str)
    @pytest.mark.parametrize("step_size", [0.15, 1.0])
    def test_fixed_steps_of_the_straight_flow(self, form, step_size):
        model = quick(straight_step_size=step_size, max_iter=5, **form).fit(X_SOURCE, X_TARGET)
        path = model.trajectory(X_SOURCE)
        straight = path.times[6:]
        steps = np.diff(straight, axis=0)
        needed = np.ceil(np.round((1 - straight[0]) / step_size, 6))
        np.testing.assert_array_equal((steps > 1e-9).sum(0), needed)
        assert np.all(steps <= step_size + 1e-9) and np.all(straight[-1] == 1)
        taken = np.sort(steps, axis=0)[::-1]
        assert np.all(taken[:-1][taken[1:] > 1e-9] > step_size - 1e-9)  # all but the last
        assert path.nfe == 5 + (model.time_predictor_ is not None) + int(needed.max())
        np.testing.assert_allclose(path.states[-1], model.transform(X_SOURCE))

    def test_as_many_fixed_steps_as_equal_ones_are_the_same(self):
        model = quick(switch="fixed", n_straight_steps=5, **PAPER).fit(X_SOURCE, X_TARGET)
        equal = model.transform(X_SOURCE)
        np.testing.assert_allclose(
            model.set_params(straight_step_size=0.1).transform(X_SOURCE), equal, atol=1e-9
        )

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("n_to_go", [1, 3, 7, 49])
    def test_a_whole_number_of_fixed_steps_is_that_many(self, n_to_go, dtype):
        """However the time that is left, over the length of a step, is rounded."""
        flow = NSGFSampler(n_steps=1, t_end=0.3, max_iter=1, hidden_layer_sizes=(4,))
        model = quick(sinkhorn_flow=flow, max_iter=1, switch="fixed", **PAPER)
        model.set_params(hidden_layer_sizes=(4,)).fit(X_SOURCE, X_TARGET)
        model.set_params(straight_step_size=(1 - flow.t_end) / n_to_go)
        path = model.trajectory(X_SOURCE[:5].astype(dtype))
        assert path.nfe == 1 + n_to_go
        np.testing.assert_allclose(np.diff(path.times[2:], axis=0), 0.7 / n_to_go, rtol=1e-4)

    @pytest.mark.parametrize("tenths", range(1, 10))
    def test_fixed_steps_of_a_tenth(self, tenths):
        flow = NSGFSampler(n_steps=1, t_end=tenths / 10, max_iter=1, hidden_layer_sizes=(4,))
        model = quick(sinkhorn_flow=flow, max_iter=1, switch="fixed", **PAPER)
        model.set_params(straight_step_size=0.1, hidden_layer_sizes=(4,)).fit(X_SOURCE, X_TARGET)
        for dtype in (np.float32, np.float64):
            assert model.trajectory(X_SOURCE[:5].astype(dtype)).nfe == 1 + 10 - tenths

    @pytest.mark.parametrize("form", [{}, PAPER], ids=str)
    def test_phases_share_their_units_where_the_source_tells_them(self, form):
        model = quick(max_iter=2, **form).fit(X_SOURCE, np.tile([[1.0, 2.0, 3.0]], (50, 1)))
        states = model.trajectory(X_SOURCE).states
        np.testing.assert_allclose(states[5], model.sinkhorn_flow_.transform(X_SOURCE), rtol=1e-9)

    @pytest.mark.parametrize("form", [{}, PAPER], ids=str)
    def test_clouds_far_apart(self, form):
        grid = 2.0**-20  # so that no shift rounds the data
        X, Y = (grid * np.round(rows / grid) for rows in (X_SOURCE, X_TARGET))
        model = quick(**form).fit(X, Y + 2.0**24)
        states = model.trajectory(X).states
        np.testing.assert_allclose(states[0], X, rtol=0, atol=1e-7)
        np.testing.assert_allclose(states[5], states[6], rtol=1e-12)  # from phase to phase
        np.testing.assert_allclose(states[5], model.sinkhorn_flow_.transform(X), rtol=1e-12)
        np.testing.assert_allclose(states[5].mean(0), 2.0**23, rtol=1e-4)
        moved = states[-1] - 2.0**24
        assert len(np.unique(moved, axis=0)) == len(X)
        np.testing.assert_allclose(moved.mean(0), Y.mean(0), atol=0.5)
        if form != PAPER:  # where a point going back need not leave the straight flow as it came
            back = model.inverse_transform(states[-1])
            assert np.median(np.abs(back - X)) < 0.1

    def test_the_first_phase_knows_the_columns_by_name(self):
        names = ["a", "b", "c"]
        source, target = (pd.DataFrame(rows, columns=names) for rows in (X_SOURCE, X_TARGET))
        model = quick(max_iter=2).fit(source, target)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.partial_fit(source, target)
            near = model.sinkhorn_flow_.transform(source)
        np.testing.assert_allclose(near, model.trajectory(source).states[5], rtol=1e-9)
        assert not hasattr(model.fit(X_SOURCE, X_TARGET).sinkhorn_flow_, "feature_names_in_")

    @pytest.mark.parametrize("before, after", [("flow", "source"), ("source", "flow")])
    def test_other_lines_are_no_going_on(self, before, after):
        flow = NSGFSampler(n_steps=2, t_end=0.5, max_iter=2)
        model = quick(sinkhorn_flow=flow, straight_from=before, max_iter=2)
        model.fit(X_SOURCE, X_TARGET).set_params(straight_from=after)
        with pytest.raises(ValueError, match=f'fitted with straight_from="{before}"'):
            model.partial_fit(X_SOURCE, X_TARGET)
        model.fit(X_SOURCE, X_TARGET)

    def test_search_over_the_first_phase(self):
        model = quick(sinkhorn_flow=NSGFSampler(n_steps=3, t_end=0.5, max_iter=5), max_iter=5)
        search = GridSearchCV(model, {"sinkhorn_flow__blur": [0.1, 0.3]}, cv=2)
        search.fit(X_SOURCE, X_TARGET[:300])
        assert search.best_estimator_.sinkhorn_flow_.blur_ in (0.1, 0.3)

    def test_a_search_over_a_first_phase_that_is_not_given(self):
        with pytest.raises(ValueError, match=r"blur cannot be set.*sinkhorn_flow=NSGFSampler"):
            GridSearchCV(quick(), {"sinkhorn_flow__blur": [0.1]}, cv=2).fit(X_SOURCE, X_SOURCE)
        both = {"sinkhorn_flow": NSGFSampler(), "sinkhorn_flow__blur": 0.1}
        assert quick().set_params(**both).sinkhorn_flow.blur == 0.1

    def test_history_of_every_stage(self):
        model = quick(**PAPER).fit(X_SOURCE, X_TARGET)
        assert list(model.history_) == ["sinkhorn_flow", "straight_flow", "time_predictor"]
        assert model.n_iter_ == 60
        model = quick(**PAPER, switch="fixed").fit(X_SOURCE, X_TARGET)
        assert list(model.history_) == ["sinkhorn_flow", "straight_flow"]


class TestEarlyStopping:
    @pytest.fixture
    def ends(self, monkeypatch):
        """Where lines end, batch by batch."""
        seen, batch = [], LineTeacher.batch

        def spy(self, number):
            seen.append(self.pairs(number)[1].x)
            return batch(self, number)

        monkeypatch.setattr(LineTeacher, "batch", spy)
        return seen

    @pytest.mark.parametrize("form", [{}, PAPER, {"coupling": "minibatch"}], ids=str)
    def test_it_is_judged_by_rows_that_no_line_leads_to(self, form, ends):
        flow = NSGFSampler(n_steps=2, t_end=0.5, early_stopping=True, max_iter=5)
        small = {"max_iter": 300, "batch_size": 16, "hidden_layer_sizes": (4,)}
        quick(sinkhorn_flow=flow, **small, **form).fit(X_SOURCE, X_TARGET)
        n_unseen = 2**12 // 16
        unseen = torch.cat(ends[:n_unseen]).unique(dim=0)
        seen = torch.cat(ends[n_unseen:]).unique(dim=0)
        assert len(unseen) <= 40 and len(seen) <= 360
        assert len(unseen) + len(seen) > 350
        assert len(torch.cat([unseen, seen]).unique(dim=0)) == len(unseen) + len(seen)

    @pytest.mark.parametrize("form", [{}, PAPER], ids=str)
    def test_the_best_network_is_kept(self, form):
        """On a hundred rows lines are learned by heart, unless somebody stops."""
        noise = np.random.default_rng(0).normal(size=(120, 20))
        flow = NSGFSampler(n_steps=2, t_end=0.5, max_iter=20)
        shared = {"source": "gaussian", "max_iter": 1000, "learning_rate": 1e-2, "batch_size": 64}
        shared["hidden_layer_sizes"] = (128, 128)
        model = quick(sinkhorn_flow=flow, **shared, **form).fit(noise)
        history = model.history_["straight_flow"]
        assert history.status == "stopped early" and len(history) < 600
        assert history.validation_loss.argmin() < len(history.validation_loss) - 5
        flow.set_params(early_stopping=False)
        history = quick(sinkhorn_flow=flow, **shared, **form).fit(noise).history_["straight_flow"]
        assert history.status == "completed" and len(history.validation_loss) == 0

    def test_large_data_and_short_runs_are_not_held_back(self):
        for n, max_iter in ((600, 500), (300, 400)):
            X = np.random.default_rng(0).normal(size=(n, 2))
            flow = NSGFSampler(n_steps=1, max_iter=2)
            model = quick(
                sinkhorn_flow=flow, source="gaussian", max_iter=max_iter, hidden_layer_sizes=(4,)
            ).fit(X)
            assert len(model.history_["straight_flow"].validation_loss) == 0


class TestBadInput:
    @pytest.mark.parametrize(
        "parameters",
        [
            {"sinkhorn_flow": "fast"},
            {"sinkhorn_flow": NSGFSampler},
            {"sinkhorn_flow": NSGFPlusPlus()},
            {"sinkhorn_flow": FrozenEstimator(NSGFSampler())},
            {"straight_from": "target"},
            {"coupling": "large-ish"},
            {"switch": "sometimes"},
            {"n_straight_steps": 0},
            {"straight_step_size": 0},
            {"straight_step_size": 1.5},
            {"source": "uniform"},
            {"network": "transformer"},
            {"hidden_layer_sizes": (0,)},
            {"max_iter": 0},
            {"learning_rate": -1},
            {"batch_size": 0},
            {"score_blur": 0},
            {"device": "abacus"},
        ],
        ids=str,
    )
    def test_impossible_parameters(self, parameters):
        model = quick().fit(X_SOURCE, X_TARGET).set_params(**parameters)
        before = pickle.dumps(model.__dict__)
        with pytest.raises(ValueError, match=next(iter(parameters))):
            model.fit(X_SOURCE, X_TARGET)
        assert pickle.dumps(model.__dict__) == before

    @pytest.mark.parametrize("n_steps", [0, "5", None, 7.5])
    @pytest.mark.filterwarnings("error")
    def test_impossible_parameters_of_the_first_phase(self, n_steps):
        model = quick(sinkhorn_flow=NSGFSampler(n_steps=n_steps))
        with pytest.raises(ValueError, match="'n_steps' parameter of NSGFSampler"):
            model.fit(X_SOURCE, X_TARGET)

    def test_unusable_arrays_leave_it_as_it_was(self):
        model = quick().fit(X_SOURCE, X_TARGET)
        before = pickle.dumps(model)
        for target in (None, X_TARGET[:, :2], np.zeros(300), np.full((9, 3), np.nan)):
            with pytest.raises(ValueError):
                model.fit(X_SOURCE, target)
        assert pickle.dumps(model) == before


def test_straight_records_lie_on_their_lines():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    t, position, u = straight_records(x, y, generator)
    torch.testing.assert_close(position - t[:, None] * u, x)
    torch.testing.assert_close(position + (1 - t[:, None]) * u, y)
    assert 0 <= t.min() and t.max() < 1
    assert float(t.mean()) == pytest.approx(0.5, abs=4 * (1 / 12 / 500) ** 0.5)


def test_coupled_pairs_are_near_and_keep_the_target():
    def draw(generator):
        return torch.randn(64, 2, generator=generator)

    pairs = coupled_pairs(draw, draw, torch.Generator().manual_seed(0), blur=0.1)
    starts, ends = (
        torch.cat(side) for side in zip(*(next(pairs) for _ in range(40)), strict=True)
    )
    paired = (starts - ends).square().sum(-1).mean()
    assert paired < 0.2 * (starts - ends[torch.randperm(len(ends))]).square().sum(-1).mean()
    # 2560 draws of a standard normal, at most a few of them repeated in a minibatch.
    assert ends.mean(0).abs().max() < 0.1
    assert (ends.std(0) - 1).abs().max() < 0.1


def test_large_pairs_are_those_of_optimal_transport():
    """On a line the optimal transport of one distribution to another keeps the order."""
    pairs = large_pairs(
        lambda n, generator: torch.rand(n, 1, generator=generator),
        lambda n, generator: 3 * torch.rand(n, 1, generator=generator).sqrt() + 5,
        torch.Generator().manual_seed(0),
        batch_size=500,
        n_source=3000,
        n_target=2000,
    )
    x, y = (torch.cat(side) for side in zip(*(next(pairs) for _ in range(10)), strict=True))
    exact = 3 * x.sqrt() + 5
    # The plan spreads over sqrt(epsilon), and targets are a sample.
    epsilon = 0.05 * float(((x - y.roll(1234, 0)).square() / 2).std())
    assert (y - exact).square().mean().sqrt() < 2 * epsilon**0.5
    assert (y - exact).mean().abs() < 0.05
    quantiles = torch.linspace(0.05, 0.95, 10)
    torch.testing.assert_close(
        y.flatten().quantile(quantiles), exact.flatten().quantile(quantiles), atol=0.08, rtol=0
    )


def test_large_pairs_do_not_depend_on_the_scale():
    def at(scale):
        draw = lambda n, generator: scale * torch.rand(n, 2, generator=generator)  # noqa: E731
        pairs = large_pairs(
            draw,
            draw,
            torch.Generator().manual_seed(0),
            batch_size=50,
            n_source=200,
            n_target=100,
            fixed_target=False,
        )
        return torch.stack([next(pairs)[1] for _ in range(100)]) / scale

    torch.testing.assert_close(at(1.0), at(1024.0), rtol=1e-4, atol=1e-4)
    assert len(at(1.0).flatten(0, 1).unique(dim=0)) > 100  # solved again for other targets


def test_large_pairs_come_as_often_as_the_coupling_has_them():
    """With starts that are all alike, ends are drawn by one row of the plan: the target's mass."""
    x, y = torch.zeros(2000, 1), torch.tensor([[0.0], [0.01], [0.02], [0.03]])
    pairs = large_pairs(
        lambda n, generator: x[:n] + 0.01 * torch.rand(n, 1, generator=generator),
        lambda n, generator: y,
        torch.Generator().manual_seed(0),
        batch_size=500,
        n_source=2000,
        n_target=4,
    )
    ends = torch.cat([next(pairs)[1] for _ in range(64)]).flatten()
    shares = torch.stack([(ends == value).float().mean() for value in y.flatten()])
    # As marginals are: within the tolerance of the solver and five deviations of the draws.
    torch.testing.assert_close(shares, torch.full_like(shares, 0.25), atol=0.02, rtol=0)


def test_large_pairs_want_batches_that_fit():
    pairs = large_pairs(
        lambda n, _: torch.zeros(n, 1), lambda n, _: torch.ones(n, 1), torch.Generator(),
        batch_size=5, n_source=4, n_target=3,
    )  # fmt: skip
    with pytest.raises(ValueError, match="batch_size=5 is more than the n_source=4"):
        next(pairs)
