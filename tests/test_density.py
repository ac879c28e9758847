"""Densities: closed forms, and that they are of what is sampled."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from sknsgf import NSGFPlusPlus, NSGFSampler

rng = np.random.default_rng(0)
X = np.r_[rng.normal(-2, 0.5, size=(200, 1)), rng.normal(1, 1, size=(200, 1))]
SMALL = {"source": "gaussian", "hidden_layer_sizes": (16, 16), "random_state": 0}


class Linear(torch.nn.Module):
    """A velocity field that is linear in x and has the time in it."""

    def __init__(self, matrix, offset):
        super().__init__()
        self.register_buffer("matrix", torch.tensor(matrix, dtype=torch.float64))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64))

    def forward(self, t, x):
        return (1 + t[:, None]) * (x @ self.matrix.to(x).T + self.offset.to(x))


def planted(flow, network):
    """A sampler with another field, which need not lead to the rows that were fitted."""
    flow.velocity_network_, flow._hull = network, None
    return flow


def linear_flow(d, **parameters):
    """A sampler with a linear field, and the normal distribution that its steps lead to."""
    generator = np.random.default_rng(d)
    matrix, offset = generator.normal(size=(d, d)) / (2 * d), generator.normal(size=d)
    flow = NSGFSampler(max_iter=1, n_steps=4, **SMALL | parameters)
    flow.fit(generator.normal(3, 2, size=(30, d)))
    planted(flow, Linear(matrix, offset))
    mean, root = np.zeros(d), np.eye(d)
    for start, stop in [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]:
        step = np.eye(d) + (stop - start) * (1 + start) * matrix
        mean = step @ mean + (stop - start) * (1 + start) * offset
        root = step @ root
    mean, root = mean * flow.scale_ + flow.mean_, root * flow.scale_
    return flow, multivariate_normal(mean, root @ root.T)


@pytest.mark.parametrize("d", [1, 2, 10, 25])
def test_a_linear_flow_has_the_density_of_its_normal_distribution(d):
    flow, normal = linear_flow(d)
    points = normal.rvs(50, random_state=0).reshape(50, d)
    np.testing.assert_allclose(flow.score_samples(points), normal.logpdf(points), rtol=1e-9)
    assert flow.score_samples(points.astype(np.float32)).dtype == np.float64


def share_held(flow, n=20000):
    """The share of samples on whose way velocities are held."""
    x = flow.source_.draw(n, torch.Generator().manual_seed(0))
    return float(flow.learned_map().is_held(x).double().mean())


def on_grid(flow, low, high, n):
    axes = [np.linspace(low, high, n)] * flow.n_features_in_
    grid = np.stack(np.meshgrid(*axes), -1).reshape(n**flow.n_features_in_, -1)
    cell = ((high - low) / (n - 1)) ** flow.n_features_in_
    return grid, np.exp(flow.score_samples(grid)) * cell


@pytest.fixture(scope="module")
def one_dimensional():
    return NSGFSampler(max_iter=200, **SMALL).fit(X)


@pytest.mark.parametrize(
    "read_at_the_call",
    [{}, {"n_sampling_steps": 3}, {"ode_method": "heun"}, {"ode_method": "rk4"}],
)
def test_it_integrates_to_one_and_is_of_what_is_sampled(one_dimensional, read_at_the_call):
    flow = one_dimensional.set_params(n_sampling_steps=None, ode_method="euler")
    grid, mass = on_grid(flow.set_params(**read_at_the_call), -8, 8, 1001)
    assert mass.sum() + share_held(flow) == pytest.approx(1, abs=2e-3)
    drawn = np.sort(flow.sample(20000, random_state=1).ravel())
    expected = np.interp(drawn, grid.ravel(), mass.cumsum())
    empirical = np.arange(1, 20001) / 20000
    assert np.abs(expected - empirical).max() < 1.63 / np.sqrt(20000)  # Kolmogorov, 1 %


def test_it_integrates_to_one_in_two_dimensions():
    target = rng.normal(size=(300, 2)) * [1, 0.5]
    flow = NSGFSampler(max_iter=100, n_steps=4, **SMALL).fit(target)
    _, mass = on_grid(flow, -6, 6, 61)
    assert mass.sum() + share_held(flow) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("d", [1, 2])
def test_where_velocities_are_held_there_is_none(d):
    """A flow to a cube from unbounded noise: many samples are drawn in."""
    target = rng.uniform(-1, 1, size=(300, d))
    flow = NSGFSampler(max_iter=100, n_steps=4, **SMALL).fit(target)
    held = share_held(flow)
    assert held > 0.01
    with pytest.warns(ConvergenceWarning, match=r"\d+ of \d+ rows are reached only where .* held"):
        _, mass = on_grid(flow, -2, 2, [2001, 161][d - 1])
    assert mass.sum() + held == pytest.approx(1, abs=0.02)
    noise = flow.source_.draw(500, torch.Generator().manual_seed(1))
    rows = flow.transform(noise.double().numpy() * flow.scale_ + flow.mean_)
    of_map = flow.learned_map(torch.float64).is_held(noise.double()).numpy()
    np.testing.assert_array_equal(np.isneginf(flow.score_samples(rows)), of_map)


def test_other_units_change_it_by_the_volume_of_one():
    one = NSGFSampler(max_iter=20, **SMALL).fit(X)
    other = NSGFSampler(max_iter=20, **SMALL).fit(4 * X)  # exact in binary
    np.testing.assert_allclose(
        other.score_samples(4 * X), one.score_samples(X) - np.log(4), rtol=1e-9
    )


def test_it_tells_data_from_other_points_as_a_mixture_does(one_dimensional):
    mixture = GaussianMixture(2, random_state=0).fit(X)
    flow = one_dimensional.set_params(n_sampling_steps=None, ode_method="euler")
    fresh = np.r_[rng.normal(-2, 0.5, size=(500, 1)), rng.normal(1, 1, size=(500, 1))]
    densities = flow.score_samples(fresh)
    there = np.isfinite(densities)
    assert there.mean() > 0.98  # the others lie beyond the rows that were fitted
    difference = densities[there].mean() - mixture.score_samples(fresh[there]).mean()
    assert abs(difference) < 0.15
    assert flow.score_samples([[9.0]]) < flow.score_samples(X).min()


def test_a_source_with_a_density_of_its_own():
    mixture = GaussianMixture(2, random_state=0).fit(X)
    flow = NSGFSampler(max_iter=5, **SMALL | {"source": FrozenEstimator(mixture)}).fit(X + 1)
    planted(flow, Linear([[0.0]], [0.0]))  # stays where it is
    np.testing.assert_allclose(flow.score_samples(X), mixture.score_samples(X), rtol=1e-6)


def test_there_is_none_where_the_source_has_none():
    flow = NSGFSampler(max_iter=1, random_state=0).fit(X, X + 1)
    assert not hasattr(flow, "score_samples")
    with pytest.raises(AttributeError, match="score_samples"):
        flow.score_samples(X)
    assert not hasattr(NSGFPlusPlus(source="gaussian"), "score_samples")
    assert hasattr(NSGFSampler(source="gaussian"), "score_samples")


class Square(torch.nn.Module):
    """One step of it is x' = x², which folds, and reaches nothing below zero."""

    def forward(self, t, x):
        return x.square() - x


def test_folds_and_gaps_are_told():
    flow = NSGFSampler(max_iter=1, n_steps=1, **SMALL).fit(X)
    planted(flow, Square())
    below = flow.mean_ - flow.scale_
    with pytest.warns(ConvergenceWarning, match="1 of 1 rows no source point"):
        assert flow.score_samples([below]) == -np.inf
    flow.velocity_network_ = Linear([[-2.0]], [0.0])  # turns the line over
    with pytest.warns(UserWarning, match=r"100\.0% of the rows lie where the flow folds"):
        flow.score_samples(X)


def test_tensors_frames_and_bad_arrays(one_dimensional):
    flow = one_dimensional.set_params(n_sampling_steps=3, ode_method="euler")
    expected = flow.score_samples(X[:5])
    assert isinstance(flow.score_samples(torch.from_numpy(X[:5])), torch.Tensor)
    np.testing.assert_array_equal(flow.score_samples(X[:5].tolist()), expected)
    for bad in (X[:5].ravel(), np.c_[X, X], np.full((3, 1), np.nan)):
        with pytest.raises(ValueError):
            flow.score_samples(bad)


@pytest.mark.parametrize("cls", [NSGFSampler, NSGFPlusPlus])
def test_the_round_trip_error_is_that_of_the_round_trip(cls):
    fitted = cls(max_iter=20, **SMALL).fit(X)
    noise = fitted.mean_ + fitted.scale_ * rng.normal(size=(50, 1))
    there_and_back = fitted.inverse_transform(fitted.transform(noise))
    expected = np.linalg.norm(there_and_back - noise, axis=1)
    np.testing.assert_allclose(fitted.round_trip_error(noise), expected, atol=1e-9)


def test_the_round_trip_of_a_flow_that_stands_still_has_no_error():
    flow = NSGFSampler(max_iter=1, **SMALL).fit(X)
    planted(flow, Linear([[0.0]], [1.0]))
    assert flow.set_output(transform="pandas").round_trip_error(X).max() < 1e-12
