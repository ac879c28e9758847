"""scikit-learn's own checks of an estimator, and the small promises around them."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from sknsgf import NSGFPlusPlus, NSGFSampler

SAMPLERS = [NSGFSampler, NSGFPlusPlus]
X = np.random.default_rng(0).normal(size=(60, 2))


class OwnTarget:
    """The two-array form as a one-array estimator: the source is its own target."""

    def fit(self, X, y=None):
        return super().fit(X, X_target=X)

    def partial_fit(self, X, y=None):
        return super().partial_fit(X, X_target=X)

    def score(self, X, y=None):
        return super().score(X, X_target=X)


class SamplerToItself(OwnTarget, NSGFSampler):
    pass


class PlusPlusToItself(OwnTarget, NSGFPlusPlus):
    pass


def quick(sampler, **parameters):
    return sampler(max_iter=5, hidden_layer_sizes=(16,), random_state=0, **parameters)


@parametrize_with_checks(
    [
        quick(NSGFSampler, source="gaussian"),
        quick(SamplerToItself),
        quick(NSGFPlusPlus, source="gaussian"),
        quick(PlusPlusToItself),
    ]
)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.skipif("SCIPY_ARRAY_API" in os.environ, reason="the whole contract runs under it")
def test_scikit_learn_contract_with_the_array_api():
    command = [sys.executable, "-m", "pytest", "-q", "-k", "check_array_api_input", __file__]
    done = subprocess.run(
        command, env={**os.environ, "SCIPY_ARRAY_API": "1"}, capture_output=True, text=True
    )
    summary = done.stdout.strip().splitlines()[-1]
    assert summary.startswith("4 passed") and "skipped" not in summary, done.stdout


@pytest.mark.parametrize("sampler", SAMPLERS)
class TestSampler:
    def test_is_fitted_after_fit_alone(self, sampler):
        model = quick(sampler)
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        with pytest.raises(NotFittedError):
            model.learned_map()
        check_is_fitted(model.fit(X, X))
        with pytest.raises(NotFittedError):
            check_is_fitted(clone(model))

    def test_tags(self, sampler):
        tags = get_tags(sampler())
        assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]
        assert not (
            tags.input_tags.sparse or tags.input_tags.allow_nan or tags.target_tags.required
        )

    def test_names_of_what_comes_out(self, sampler):
        plain = quick(sampler).fit(X, X)
        assert list(plain.get_feature_names_out()) == ["x0", "x1"]
        named = quick(sampler).fit(pd.DataFrame(X, columns=["a", "b"]), X)
        assert list(named.feature_names_in_) == list(named.get_feature_names_out()) == ["a", "b"]
        assert named.n_features_in_ == 2

    @pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
    def test_dataframes_in_and_out(self, sampler, library):
        frame = library.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        model = quick(sampler).set_output(transform=library.__name__)
        moved = model.fit_transform(frame, X_target=frame)
        assert isinstance(moved, library.DataFrame) and list(moved.columns) == ["a", "b"]
        np.testing.assert_array_equal(moved.to_numpy(), quick(sampler).fit(X, X).transform(X))
        if library is pd:
            assert (moved.index == frame.index).all()

    @pytest.mark.parametrize("library", [pd, pl], ids=["pandas", "polars"])
    @pytest.mark.parametrize("source", [None, "gaussian"])
    def test_samples_come_as_transform_was_told(self, sampler, library, source):
        frame = library.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        model = quick(sampler, source=source)
        model.fit(frame, X_target=frame) if source is None else model.fit(frame)
        plain = model.sample(7)
        assert isinstance(plain, np.ndarray)
        drawn = model.set_output(transform=library.__name__).sample(7)
        assert isinstance(drawn, library.DataFrame) and list(drawn.columns) == ["a", "b"]
        np.testing.assert_array_equal(drawn.to_numpy(), plain)
        model.transform(drawn)  # its columns are those that were fitted

    def test_page_in_a_notebook_promises_no_link(self, sampler):
        page = sampler()._repr_html_()
        assert sampler.__name__ in page and "href=" not in page

    def test_no_sample_weight(self, sampler):
        with pytest.raises(TypeError, match="sample_weight"):
            quick(sampler).fit(X, X, sample_weight=np.ones(60))
