"""Domain transport in pipelines, end to end on scikit-learn's digits."""

import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.networks import VelocityMLP, VelocityUNet

SAMPLERS = [NSGFSampler, NSGFPlusPlus]
PIXELS, DIGITS = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(DIGITS))
SOURCE, TARGET, FRESH = ORDER[:500], ORDER[500:1000], ORDER[1000:]


def faded(pixels):
    """The same digits as another scanner would see them: less contrast, more light."""
    return 0.4 * pixels + 8


def blurred(pixels):
    """The same digits out of focus: every pixel averaged with its neighbours."""
    images = np.pad(pixels.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    return (
        sum(images[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)).reshape(-1, 64)
        / 9
    )


X_SOURCE, Y_SOURCE, Y_FRESH = PIXELS[SOURCE], DIGITS[SOURCE], DIGITS[FRESH]
X_TARGET, X_FRESH = faded(PIXELS[TARGET]), faded(PIXELS[FRESH])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def quick(sampler=NSGFSampler, **parameters):
    return sampler(**{"max_iter": 10, "hidden_layer_sizes": (16,), "random_state": 0} | parameters)


def classifier():
    return LogisticRegression(C=0.1, max_iter=2000)


def make_recipe(**parameters):
    flow = NSGFSampler(**{"max_iter": 300, "random_state": 0} | parameters)
    return make_pipeline(StandardScaler(), flow, classifier(), transform_input=["X_target"])


@pytest.fixture(scope="module")
def recipe():
    with sklearn.config_context(enable_metadata_routing=True):
        return make_recipe().fit(X_SOURCE, Y_SOURCE, X_target=X_TARGET)


class TestAdaptation:
    """A classifier of target digits, from labelled source digits and unlabelled target ones."""

    def test_through_the_recipe(self, recipe, routing):
        plain = make_pipeline(StandardScaler(), classifier())
        without = plain.fit(X_SOURCE, Y_SOURCE).score(X_FRESH, Y_FRESH)
        oracle = plain.fit(X_TARGET, DIGITS[TARGET]).score(X_FRESH, Y_FRESH)
        assert without < 0.5
        assert recipe.score(X_FRESH, Y_FRESH, domain="target") > oracle - 0.1

    def test_of_pixels_that_share_a_unit(self, routing):
        target, fresh = blurred(PIXELS[TARGET]), blurred(PIXELS[FRESH])
        plain = make_pipeline(StandardScaler(), classifier())
        without = plain.fit(X_SOURCE, Y_SOURCE).score(fresh, Y_FRESH)
        oracle = plain.fit(target, DIGITS[TARGET]).score(fresh, Y_FRESH)
        flow = NSGFSampler(max_iter=300, random_state=0)
        scaled_after = make_pipeline(flow, StandardScaler(), classifier())
        scaled_after.fit(X_SOURCE, Y_SOURCE, X_target=target)
        assert without < 0.6
        assert scaled_after.score(fresh, Y_FRESH, domain="target") > oracle - 0.1

    def test_target_rows_are_left_alone(self, recipe, routing):
        scaled = recipe[0].transform(X_FRESH)
        np.testing.assert_array_equal(recipe[:-1].transform(X_FRESH, domain="target"), scaled)
        by_hand = make_pipeline(recipe[0], recipe[-1]).predict(X_FRESH)
        np.testing.assert_array_equal(recipe.predict(X_FRESH, domain="target"), by_hand)

    def test_the_trap_of_transporting_target_rows_again(self, recipe, routing):
        twice = recipe[-1].predict(recipe[1].transform(recipe[0].transform(X_FRESH)))
        np.testing.assert_array_equal(recipe.predict(X_FRESH), twice)
        right = recipe.score(X_FRESH, Y_FRESH, domain="target")
        assert np.mean(twice == Y_FRESH) < right - 0.2

    def test_source_rows_are_carried(self, recipe, routing):
        fresh = PIXELS[FRESH]
        assert recipe.score(fresh, Y_FRESH) == recipe.score(fresh, Y_FRESH, domain="source") > 0.8

    def test_samples_in_the_units_of_the_data(self, recipe):
        samples = recipe[0].inverse_transform(recipe[1].sample(500, random_state=0))
        np.testing.assert_allclose(samples.mean(0), X_TARGET.mean(0), atol=1)

    def test_search_over_the_flow(self, routing):
        search = GridSearchCV(
            make_recipe(), {"nsgfsampler__max_iter": [1, 50]}, cv=2, error_score="raise"
        )
        search.fit(X_SOURCE, Y_SOURCE, X_target=X_TARGET)
        best = search.best_estimator_  # a search itself passes nothing on in predict
        assert best.score(X_FRESH, Y_FRESH, domain="target") > 0.5

    def test_dataframes_all_the_way(self, routing):
        names = [f"pixel_{i}" for i in range(64)]
        source, target, fresh = (
            pd.DataFrame(rows, columns=names) for rows in (X_SOURCE, X_TARGET, X_FRESH)
        )
        # The scaler sums a frame's columns in another order than an array's rows.
        as_laid_out = [frame.to_numpy() for frame in (source, target, fresh)]
        plain = make_recipe(max_iter=20)
        plain.fit(as_laid_out[0], Y_SOURCE, X_target=as_laid_out[1])
        framed = make_recipe(max_iter=20).set_output(transform="pandas")
        framed.fit(source, Y_SOURCE, X_target=target)
        assert list(framed[-1].feature_names_in_) == names
        np.testing.assert_array_equal(
            framed.predict(fresh, domain="target"), plain.predict(as_laid_out[2], domain="target")
        )
        with pytest.raises(ValueError, match="same order"):
            make_recipe().fit(source, Y_SOURCE, X_target=target[names[::-1]])


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestRouting:
    def test_requests(self, sampler, routing):
        requests = sampler().get_metadata_routing()
        assert requests.fit.requests == requests.partial_fit.requests == {"X_target": True}
        assert requests.transform.requests == {"domain": True}
        assert requests.score.requests == {"X_target": None}

    def test_the_target_goes_through_the_earlier_steps(self, sampler, routing):
        pipe = make_pipeline(MinMaxScaler(), quick(sampler), transform_input=["X_target"])
        pipe.fit(X_SOURCE, X_target=X_TARGET)
        np.testing.assert_allclose(pipe[-1].mean_, pipe[0].transform(X_TARGET).mean(0))

    def test_requests_can_be_withdrawn(self, sampler, routing):
        model = quick(sampler).set_fit_request(X_target=None)
        with pytest.raises(ValueError, match="set_fit_request"):
            make_pipeline(model).fit(X_SOURCE, X_target=X_TARGET)
        model = quick(sampler).set_transform_request(domain=None)
        pipe = make_pipeline(model, classifier()).fit(X_SOURCE, Y_SOURCE, X_target=X_TARGET)
        with pytest.raises(ValueError, match="set_transform_request"):
            pipe.predict(X_FRESH, domain="target")

    def test_the_target_as_y(self, sampler):
        pipe = make_pipeline(FunctionTransformer(), quick(sampler)).fit(X_SOURCE, X_TARGET)
        expected = quick(sampler).fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        np.testing.assert_array_equal(pipe.transform(X_SOURCE), expected)

    def test_earlier_steps_do_not_touch_the_target_as_y(self, sampler):
        pipe = make_pipeline(MinMaxScaler(), quick(sampler)).fit(X_SOURCE, X_TARGET)
        np.testing.assert_allclose(pipe[-1].mean_, X_TARGET.mean(0))

    def test_without_routing_by_the_name_of_the_step(self, sampler):
        name = sampler.__name__.lower()
        pipe = make_pipeline(quick(sampler), classifier())
        pipe.fit(X_SOURCE, Y_SOURCE, **{f"{name}__X_target": X_TARGET})
        flow = quick(sampler).fit(X_SOURCE, X_target=X_TARGET)
        expected = classifier().fit(flow.transform(X_SOURCE), Y_SOURCE)
        np.testing.assert_array_equal(pipe[1:].predict(X_FRESH), expected.predict(X_FRESH))

    def test_labels_without_a_target_are_refused(self, sampler):
        with pytest.raises(ValueError, match=r"looks like labels.*X_target"):
            make_pipeline(quick(sampler), classifier()).fit(X_SOURCE, Y_SOURCE)


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestFitTransform:
    def test_is_fit_then_transform(self, sampler):
        expected = quick(sampler).fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        for form in (
            lambda model: model.fit_transform(X_SOURCE, X_TARGET),
            lambda model: model.fit_transform(X_SOURCE, X_target=X_TARGET),
            lambda model: model.fit_transform(X_source=X_SOURCE, X_target=X_TARGET),
            lambda model: model.fit_transform(X_SOURCE, Y_SOURCE, X_target=X_TARGET),
        ):
            np.testing.assert_array_equal(form(quick(sampler)), expected)

    def test_of_one_array(self, sampler):
        model = quick(sampler, source="gaussian")
        moved = model.fit_transform(X_SOURCE)
        np.testing.assert_array_equal(moved, model.transform(X_SOURCE))

    def test_warns_of_nothing(self, sampler, routing):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quick(sampler).fit_transform(X_SOURCE, X_target=X_TARGET, domain="source")


class TestCompositions:
    def test_generation_in_a_pipeline(self):
        pipe = make_pipeline(MinMaxScaler(), quick(source="gaussian")).fit(X_TARGET)
        samples = pipe[:-1].inverse_transform(pipe[-1].sample(20, random_state=0))
        assert samples.shape == (20, 64)
        back = pipe.inverse_transform(pipe.transform(X_TARGET))
        assert back.shape == X_TARGET.shape

    def test_columns(self, routing):
        """A flow of some columns wants the same columns of the target."""
        some = ColumnTransformer(
            [("flow", quick(), slice(0, 5)), ("rest", FunctionTransformer(), slice(5, 64))]
        )
        some.fit(X_SOURCE, X_target=X_TARGET[:, :5])
        moved = some.transform(X_SOURCE)
        expected = quick().fit(X_SOURCE[:, :5], X_TARGET[:, :5]).transform(X_SOURCE[:, :5])
        np.testing.assert_array_equal(moved[:, :5], expected)
        np.testing.assert_array_equal(moved[:, 5:], X_SOURCE[:, 5:])
        as_it_is = some.transform(X_TARGET, domain="target")
        np.testing.assert_array_equal(as_it_is, X_TARGET)
        with pytest.raises(ValueError, match="X_source has 5 features but X_target has 64"):
            some.fit(X_SOURCE, X_target=X_TARGET)

    def test_union(self, routing):
        both = FeatureUnion([("flow", quick()), ("as it is", FunctionTransformer())])
        moved = both.fit(X_SOURCE, X_target=X_TARGET).transform(X_SOURCE)
        np.testing.assert_array_equal(moved[:, 64:], X_SOURCE)
        np.testing.assert_array_equal(
            moved[:, :64], quick().fit(X_SOURCE, X_TARGET).transform(X_SOURCE)
        )

    def test_regression_with_a_transformed_response(self, routing):
        regressor = TransformedTargetRegressor(
            make_pipeline(quick(), Ridge()), transformer=StandardScaler()
        )
        regressor.fit(X_SOURCE, Y_SOURCE.astype(float), X_target=X_TARGET)
        assert np.isfinite(regressor.predict(X_SOURCE)).all()

    def test_cross_validation_of_a_classifier_after_the_flow(self, routing):
        pipe = make_pipeline(quick(), classifier())
        scores = cross_validate(
            pipe, X_SOURCE, Y_SOURCE, params={"X_target": X_TARGET}, cv=2, error_score="raise"
        )
        assert np.isfinite(scores["test_score"]).all()

    def test_a_memory_cache(self, tmp_path, routing):
        pipe = make_pipeline(quick(), classifier(), memory=str(tmp_path))
        first = pipe.fit(X_SOURCE, Y_SOURCE, X_target=X_TARGET).predict(X_SOURCE)
        again = pipe.fit(X_SOURCE, Y_SOURCE, X_target=X_TARGET).predict(X_SOURCE)
        np.testing.assert_array_equal(first, again)

    @pytest.mark.parametrize("network", [VelocityMLP(64, (8,)), partial(VelocityUNet, width=8)])
    def test_a_memory_cache_knows_a_network_again(self, network, tmp_path, routing):
        flow = quick(network=network, image_shape=(1, 8, 8), max_iter=2)
        for _ in range(2):
            pipe = make_pipeline(clone(flow), classifier(), memory=str(tmp_path))
            pipe.fit(X_SOURCE[:50], Y_SOURCE[:50], X_target=X_TARGET[:50])
        assert len(list(tmp_path.rglob("output.pkl"))) == 1
