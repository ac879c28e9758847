import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from sknsgf import sinkhorn
from sknsgf.metrics import energy_distance, sinkhorn_divergence, two_sample_auc, w2_distance

METRICS = [w2_distance, energy_distance, lambda X, Y: sinkhorn_divergence(X, Y, blur=0.5)]
seeds = st.integers(0, 2**32 - 1)


def clouds(seed, n, m, d):
    rng = np.random.RandomState(seed)
    return rng.standard_normal((n, d)), 1 + 2 * rng.standard_normal((m, d))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(1, 30), d=st.integers(1, 5))
def test_w2_of_a_shifted_cloud_is_the_shift(seed, n, d):
    X, Y = clouds(seed, n, 1, d)
    assert w2_distance(X, X + Y) == pytest.approx(np.linalg.norm(Y), rel=1e-9)


def test_w2_is_the_best_permutation():
    X, Y = clouds(0, 5, 5, 3)
    costs = [np.mean(np.sum((X - Y[list(p)]) ** 2, axis=1)) for p in permutations(range(5))]
    assert w2_distance(X, Y) == pytest.approx(np.sqrt(min(costs)), rel=1e-12)


def test_w2_in_one_dimension_matches_sorted_rows():
    X, Y = clouds(1, 200, 200, 1)
    expected = np.sqrt(np.mean((np.sort(X[:, 0]) - np.sort(Y[:, 0])) ** 2))
    assert w2_distance(X, Y) == pytest.approx(expected, rel=1e-12)


def test_w2_ignores_how_often_each_cloud_repeats():
    X, Y = clouds(2, 6, 4, 2)
    repeated = w2_distance(np.repeat(X, 3, axis=0), np.tile(Y, (2, 1)))
    assert w2_distance(X, Y) == pytest.approx(repeated, rel=1e-9)


def test_w2_of_a_cloud_to_itself_is_zero_far_from_the_origin():
    X, _ = clouds(3, 50, 1, 4)
    assert w2_distance(X + 1e6, X[::-1] + 1e6) == 0


@pytest.mark.parametrize("distance", [1e4, 1e7])
def test_w2_counts_the_near_rows_beside_an_outlier(distance):
    X, _ = clouds(4, 20, 1, 3)
    outlier = np.full((1, 3), distance)
    found = w2_distance(np.vstack([X, outlier]), np.vstack([X + np.array([1, 2, -2]), outlier]))
    assert found == pytest.approx(3 * np.sqrt(20 / 21), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(2, 12), m=st.integers(2, 12), d=st.integers(1, 4))
def test_energy_distance_is_its_definition(seed, n, m, d):
    X, Y = clouds(seed, n, m, d)
    between = np.mean([np.linalg.norm(x - y) for x in X for y in Y])
    within = [
        np.mean([np.linalg.norm(a - b) for i, a in enumerate(Z) for b in np.delete(Z, i, axis=0)])
        for Z in (X, Y)
    ]
    assert energy_distance(X, Y) == pytest.approx(2 * between - sum(within), abs=1e-7)


def test_energy_distance_averages_to_zero_on_one_distribution():
    rng = np.random.RandomState(0)
    draws = [
        energy_distance(rng.standard_normal((8, 2)), rng.standard_normal((11, 2)))
        for _ in range(400)
    ]
    # Counting each row's zero distance to itself would add E|X - X'| (1 / 8 + 1 / 11) = 0.38.
    assert np.std(draws) / np.sqrt(len(draws)) < 0.02
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_energy_distance_does_not_depend_on_the_order_of_rows():
    X, Y = clouds(4, 40, 30, 3)
    rng = np.random.RandomState(0)
    shuffled = energy_distance(rng.permutation(X), rng.permutation(Y))
    assert energy_distance(X, Y) == pytest.approx(shuffled, rel=1e-12)


def test_energy_distance_does_not_depend_on_the_origin():
    X, Y = clouds(5, 40, 30, 3)
    assert energy_distance(X + 1e6, Y + 1e6) == pytest.approx(energy_distance(X, Y), rel=1e-6)


def test_energy_distance_in_blocks_is_the_same():
    X, Y = clouds(6, 400, 300, 2)

    def mean_distance(x, y, n_pairs):
        return np.linalg.norm(x[:, None] - y, axis=-1).sum() / n_pairs

    plain = 2 * mean_distance(X, Y, 400 * 300)
    plain -= mean_distance(X, X, 400 * 399) + mean_distance(Y, Y, 300 * 299)
    assert energy_distance(X, Y) == pytest.approx(plain, rel=1e-9)
    with sklearn.config_context(working_memory=0.01):  # MiB: four rows at a time
        assert energy_distance(X, Y) == pytest.approx(plain, rel=1e-9)


def test_memory_of_energy_distance_grows_with_rows_and_not_with_pairs():
    X, Y = clouds(8, 4000, 4000, 2)
    tracemalloc.start()
    energy_distance(X, Y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000**2 * 8 / 2  # bytes, half of what all distances take


@pytest.mark.parametrize("blur", [0.1, 1.0, 10.0])
def test_sinkhorn_divergence_of_a_shift_is_half_its_square(blur):
    # The shift adds <x - y, a> to every cost, which the marginals fix, whatever the blur.
    X, _ = clouds(7, 40, 1, 3)
    shift = np.array([1.0, -2.0, 0.5])
    value = sinkhorn_divergence(X, X + shift, blur=blur, tol=1e-6)
    assert value == pytest.approx(shift @ shift / 2, rel=1e-4)


def test_sinkhorn_divergence_at_large_blur_compares_means():
    X, Y = clouds(8, 40, 30, 2)
    shift = X.mean(axis=0) - Y.mean(axis=0)
    assert sinkhorn_divergence(X, Y, blur=1e3) == pytest.approx(shift @ shift / 2, rel=1e-3)


def test_sinkhorn_divergence_at_small_blur_is_half_w2_squared():
    X, Y = clouds(9, 20, 20, 2)
    value = sinkhorn_divergence(X, Y, blur=0.02, tol=1e-4)
    assert value == pytest.approx(w2_distance(X, Y) ** 2 / 2, rel=1e-2)


def test_sinkhorn_divergence_warns_when_not_converged(monkeypatch):
    solve = sinkhorn.sinkhorn_divergence

    def stop_early(x, y, **kwargs):
        result = solve(x, y, **kwargs)
        return result._replace(converged=~result.converged, marginal_error=result.value + 0.125)

    monkeypatch.setattr(sinkhorn, "sinkhorn_divergence", stop_early)
    with pytest.warns(
        ConvergenceWarning, match=r"1\.2e-01 instead of 1\.0e-03.*Raise blur \(0\.5"
    ):
        assert sinkhorn_divergence([[0.0]], [[0.0]], blur=0.5) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_symmetric(metric):
    X, Y = clouds(10, 12, 9, 2)
    assert metric(X, Y) == pytest.approx(metric(Y, X), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-100, 1e100, 1e150, 1e160, 1e200, 1e307])
def test_distances_scale_with_the_clouds(scale):
    X, Y = clouds(13, 20, 15, 2)
    for metric in (w2_distance, energy_distance):
        assert metric(scale * X, scale * Y) / scale == pytest.approx(metric(X, Y), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-140, 1e-100, 1e100, 1e150])
def test_sinkhorn_divergence_scales_with_clouds_and_blur(scale):
    X, Y = clouds(13, 20, 15, 2)
    value = sinkhorn_divergence(scale * X, scale * Y, blur=0.5 * scale) / scale**2
    assert value == pytest.approx(sinkhorn_divergence(X, Y, blur=0.5), rel=1e-6)


def test_a_divergence_beyond_any_number_is_refused():
    X, Y = clouds(13, 20, 15, 2)
    with pytest.raises(ValueError, match="further apart than float64"):
        sinkhorn_divergence(1e200 * X, 1e200 * Y, blur=1e200)
    with pytest.raises(ValueError, match="blur, must be positive and finite"):
        sinkhorn_divergence(1e200 * X, 1e200 * Y, blur=1.0)
    assert abs(sinkhorn_divergence(1e-200 * X, 1e-200 * Y, blur=1.0)) < 1e-15  # of blur²
    with pytest.raises(ValueError, match=r"blur must be positive and finite, got -2\.0"):
        sinkhorn_divergence(X, Y, blur=-2.0)


@pytest.mark.parametrize("metric", METRICS)
def test_takes_lists_and_returns_a_float(metric):
    X, Y = clouds(11, 4, 3, 2)
    value = metric(X.tolist(), Y.tolist())
    assert type(value) is float and value == metric(X, Y)


@pytest.mark.parametrize("metric", METRICS)
def test_bad_input(metric):
    X, Y = clouds(12, 6, 5, 3)
    with pytest.raises(ValueError, match="X has 3 features but Y has 2; both must live in the"):
        metric(X, Y[:, :2])
    with pytest.raises(ValueError, match="Y contains NaN"):
        metric(X, np.where(Y == Y.max(), np.nan, Y))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
        metric(X[:, 0], Y)


def test_energy_distance_needs_pairs():
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        energy_distance([[0.0]], [[0.0], [1.0]])


def test_two_sample_auc_of_one_distribution_averages_to_a_half():
    rng = np.random.RandomState(0)
    values = [
        two_sample_auc(*rng.standard_normal((2, 100, 3)), random_state=seed) for seed in range(20)
    ]
    # The standard deviation of an AUC of 100 against 100 rows is about 0.04.
    assert np.mean(values) == pytest.approx(0.5, abs=4 * 0.04 / np.sqrt(20))


def test_two_sample_auc_sees_dependence_between_columns():
    rng = np.random.RandomState(0)
    X = np.repeat(rng.standard_normal((300, 1)), 2, axis=1)
    Y = rng.standard_normal((300, 2))  # the same marginals, independent columns
    assert two_sample_auc(X, Y, random_state=0) > 0.8


def test_two_sample_auc_does_not_depend_on_units():
    X, Y = clouds(0, 50, 60, 2)
    units = np.array([1e-3, 1e5])
    plain, scaled = (
        two_sample_auc(X, Y, random_state=0),
        two_sample_auc(X * units, Y * units, random_state=0),
    )
    assert plain == pytest.approx(scaled, abs=1e-3)


def test_two_sample_auc_needs_a_row_a_fold():
    with pytest.raises(ValueError, match="minimum of 5 is required"):
        two_sample_auc(np.zeros((4, 1)), np.ones((9, 1)))
