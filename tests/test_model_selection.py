"""Scorers, searches and cross-validation, for two arrays of equal and unequal length."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import sklearn
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import resample

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.metrics import (
    energy_distance,
    make_transport_scorer,
    sinkhorn_divergence,
    two_sample_auc,
    w2_distance,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(120, 2))
Y = rng.normal(size=(120, 2)) * [2, 0.5] + [8, 0]
Z = rng.normal(size=(200, 2)) * [2, 0.5] + [8, 0]  # a longer target
SCORERS = {
    "energy distance": make_transport_scorer(energy_distance),
    "w2": make_transport_scorer(w2_distance),
    "auc": make_transport_scorer(two_sample_auc, optimum=0.5, random_state=0),
    "sinkhorn": make_transport_scorer(sinkhorn_divergence, blur=0.3),
}


def quick(sampler=NSGFSampler, **parameters):
    defaults = {"max_iter": 20, "hidden_layer_sizes": (32,), "random_state": 0}
    return sampler(**{**defaults, **parameters})


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def flows():
    """Flows fitted badly and well."""
    return quick(max_iter=1).fit(X, Y), quick(max_iter=400).fit(X, Y)


class TestScorers:
    @pytest.mark.parametrize("name", SCORERS)
    def test_the_better_flow_scores_higher(self, flows, name):
        bad, good = (SCORERS[name](flow, X, Y) for flow in flows)
        assert bad < good < 0.1

    def test_value_is_minus_the_metric_of_moved_rows(self, flows):
        for flow in flows:
            expected = -w2_distance(flow.transform(X), Y)
            assert SCORERS["w2"](flow, X, Y) == expected
            assert SCORERS["w2"](flow, X, np.zeros(120), X_target=Y) == expected

    def test_signs(self, flows):
        auc = flows[1].evaluate(partial(two_sample_auc, random_state=0), X, Y)
        lower, higher = (
            make_transport_scorer(two_sample_auc, greater_is_better=up, random_state=0)
            for up in (False, True)
        )
        assert lower(flows[1], X, Y) == -auc == -higher(flows[1], X, Y)
        assert SCORERS["auc"](flows[1], X, Y) == -abs(auc - 0.5)
        with pytest.raises(ValueError, match="exclude each other"):
            make_transport_scorer(two_sample_auc, greater_is_better=True, optimum=0.5)

    def test_given_a_source_samples_are_compared(self):
        flow = quick(source="gaussian", max_iter=200).fit(Y)
        score = SCORERS["energy distance"]
        assert score(flow, Y) == score(flow, Y, np.zeros(120)) == score(flow, Y)
        assert score(flow, Y) > score(flow, Y + 5)

    def test_a_missing_target_is_said(self, flows):
        with pytest.raises(ValueError, match="labels"):
            SCORERS["w2"](flows[0], X, np.zeros(120))
        with pytest.raises(ValueError, match="target is missing"):
            SCORERS["w2"](flows[0], X)

    def test_misuse_is_said(self, flows):
        for misuse in (make_transport_scorer, lambda metric: flows[0].evaluate(metric, X, Y)):
            with pytest.raises(TypeError, match="function of two clouds, got 'w2'"):
                misuse("w2")
        with pytest.raises(TypeError, match=r"StandardScaler cannot be judged.*NSGFSampler"):
            SCORERS["w2"](StandardScaler().fit(X), X, Y)

    def test_survive_pickling_and_show_what_they_are(self, flows):
        again = pickle.loads(pickle.dumps(SCORERS["auc"]))
        assert again(flows[0], X, Y) == SCORERS["auc"](flows[0], X, Y)
        shown = "make_transport_scorer(two_sample_auc, optimum=0.5, random_state=0)"
        assert repr(again) == shown

    def test_a_pipeline_is_judged_in_the_units_of_the_flow(self, routing):
        pipe = make_pipeline(StandardScaler(), quick(), transform_input=["X_target"])
        pipe.fit(X * 100, X_target=Z * 100)
        flow = quick().fit(X / X.std(0), X_target=Z / X.std(0))
        expected = SCORERS["w2"](flow, X / X.std(0), X_target=Z / X.std(0))
        assert SCORERS["w2"](pipe, X * 100, X_target=Z * 100) == pytest.approx(expected, rel=1e-3)


class TestSearches:
    @pytest.mark.parametrize("scoring", [None, *SCORERS], ids=str)
    def test_more_effort_wins(self, scoring):
        grid = {"max_iter": [1, 80]}
        search = GridSearchCV(quick(), grid, scoring=SCORERS.get(scoring), cv=2).fit(X, Y)
        assert search.best_params_ == {"max_iter": 80}
        assert search.best_estimator_.transform(X).shape == X.shape

    @pytest.mark.parametrize(
        "make",
        [
            lambda flow, grid: GridSearchCV(flow, grid, cv=2, error_score="raise"),
            lambda flow, grid: RandomizedSearchCV(
                flow, grid, n_iter=3, cv=2, random_state=0, error_score="raise"
            ),
            lambda flow, grid: HalvingGridSearchCV(
                flow, grid, cv=2, resource="max_iter", min_resources=5, max_resources=15
            ),
            lambda flow, grid: HalvingGridSearchCV(flow, grid, cv=2, min_resources=40),
        ],
        ids=["grid", "randomized", "halving effort", "halving rows"],
    )
    def test_over_the_parameters_of_the_flow(self, make):
        grid = {"blur": [0.1, 0.5], "n_steps": [2, 5], "hidden_layer_sizes": [(8,), (8, 8)]}
        search = make(quick(), grid).fit(X, Y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert set(search.best_params_) <= {*grid, "max_iter"}

    def test_over_the_first_phase_of_an_explicit_flow(self):
        model = quick(NSGFPlusPlus, sinkhorn_flow=quick(n_steps=3, t_end=0.5))
        search = GridSearchCV(model, {"sinkhorn_flow__blur": [0.1, 0.6]}, cv=2).fit(X, Y)
        best = search.best_params_["sinkhorn_flow__blur"]
        assert search.best_estimator_.sinkhorn_flow_.blur_ == best
        assert np.ptp(search.cv_results_["mean_test_score"]) > 0

    def test_several_scorers_at_once(self):
        scores = cross_validate(quick(), X, Y, cv=2, scoring=SCORERS, error_score="raise")
        assert all(np.isfinite(scores[f"test_{name}"]).all() for name in SCORERS)

    def test_generation_needs_one_array(self):
        model = quick(source="gaussian")
        search = GridSearchCV(model, {"max_iter": [1, 80]}, scoring=SCORERS["w2"], cv=2).fit(Y)
        assert search.best_params_ == {"max_iter": 80}

    def test_nested_search_is_judged_by_its_best(self):
        search = GridSearchCV(quick(), {"n_steps": [2, 5]}, cv=2)
        scores = cross_validate(search, X, Y, cv=2, scoring=SCORERS["w2"], error_score="raise")
        assert np.isfinite(scores["test_score"]).all()


class TestRoutedTarget:
    def test_the_default_score_has_to_be_asked_for(self, routing):
        search = GridSearchCV(quick(), {"blur": [0.1, 0.5]}, cv=2)
        with pytest.raises(ValueError, match=r"X_target.*NSGFSampler\.score"):
            search.fit(X, X_target=Y)
        search.set_params(estimator=quick().set_score_request(X_target=True)).fit(X, X_target=Y)
        by_position = GridSearchCV(quick(), {"blur": [0.1, 0.5]}, cv=2).fit(X, Y)
        np.testing.assert_array_equal(
            search.cv_results_["mean_test_score"], by_position.cv_results_["mean_test_score"]
        )

    def test_a_scorer_asks_for_it(self, routing):
        search = GridSearchCV(quick(), {"blur": [0.1, 0.5]}, cv=2, scoring=SCORERS["w2"])
        search.fit(X, X_target=Y)
        for train, test in KFold(2).split(X):
            flow = quick(blur=0.1).fit(X[train], Y[train])
            expected = SCORERS["w2"](flow, X[test], Y[test])
            fold = 0 if test[0] == 0 else 1
            assert search.cv_results_[f"split{fold}_test_score"][0] == expected

    def test_in_a_pipeline_beside_labels(self, routing):
        pipe = make_pipeline(StandardScaler(), quick(), transform_input=["X_target"])
        scores = cross_validate(
            pipe,
            X,
            np.arange(120) % 2,
            params={"X_target": Y},
            scoring=SCORERS,
            cv=2,
            error_score="raise",
        )
        assert all(np.isfinite(scores[f"test_{name}"]).all() for name in SCORERS)


class TestUnequalLengths:
    def test_as_y_they_are_refused(self):
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[120, 200\]"):
            GridSearchCV(quick(), {"blur": [0.1]}, cv=2).fit(X, Z)

    @pytest.mark.parametrize("scoring", [None, SCORERS["w2"]], ids=["score", "scorer"])
    def test_routed_they_would_leak_and_that_is_said(self, routing, scoring):
        flow = quick().set_score_request(X_target=True)
        with pytest.warns(UserWarning, match=r"judged on targets it was fitted to.*resample"):
            cross_validate(
                flow, X, params={"X_target": Z}, scoring=scoring, cv=2, error_score="raise"
            )

    def test_the_way_out(self, routing):
        shorter = resample(Z, n_samples=len(X), replace=False, random_state=0)
        flow = quick().set_score_request(X_target=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            search = GridSearchCV(flow, {"blur": [0.1, 0.5]}, cv=2).fit(X, X_target=shorter)
            search.best_estimator_.fit(X, X_target=Z)

    def test_scoring_what_was_fitted_is_no_leak(self):
        flow = quick().fit(X, X_target=Z)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            flow.score(X, X_target=Z)  # the score in training
            flow.score(X[:60], X_target=Z[:100])
            flow.score(X + 1, X_target=Z + 1)
