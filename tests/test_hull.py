"""No point flies: where flows may end, whatever a network says."""

import numpy as np
import pytest
import torch

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.flow import Hull
from sknsgf.networks import VelocityMLP

SIZES = pytest.mark.parametrize(("n", "d"), [(1, 1), (2, 3), (40, 2), (300, 5), (1000, 1)])


def cloud(n, d, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, d, dtype=torch.float64, generator=generator)


def promised(hull, end):
    """Where points at the origin are led that were to be led to `end` in half a unit of time."""
    x = torch.zeros_like(end)
    return x + 0.5 * hull.hold(x, 2 * end, left=0.5)


def reach(points, end):
    """How far the points reach from their mean, in the direction of each end."""
    centre = points.mean(0)
    way = end - centre
    return ((points - centre) @ (way / way.norm(dim=1, keepdim=True)).T).amax(0)


@SIZES
def test_what_leads_into_the_convex_hull_is_kept_to_the_bit(n, d):
    points = cloud(n, d)
    weights = torch.rand(500, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inside = (weights / weights.sum(1, keepdim=True)) @ points
    x, u = torch.zeros_like(inside), 2 * inside
    assert torch.equal(Hull.of(points).hold(x, u, left=0.5), u)


@SIZES
@pytest.mark.parametrize("spread", [2.0, 1e3, 1e12])
def test_nothing_is_led_further_than_the_points_reach(n, d, spread):
    points, end = cloud(n, d), cloud(500, d, seed=1, spread=spread)
    hull = Hull.of(points)
    held = promised(hull, end)
    distance = (held - hull.centre).norm(dim=1)
    # Seen from the mean no direction reaches beyond the distance of the first row not kept.
    assert (distance <= 1.2 * reach(points, end).maximum(hull.radius) + 1e-9).all()
    if n > 64:
        rows = (points - points.mean(0)).norm(dim=1).sort(descending=True).values
        assert float(hull.radius) == pytest.approx(float(rows[64]))


def test_an_outlier_widens_its_own_direction_alone():
    points = torch.cat([cloud(500, 2), torch.tensor([[100.0, 0.0]], dtype=torch.float64)])
    hull = Hull.of(points)
    ends = torch.tensor([[100.0, 0.0], [-100.0, 0.0], [0.0, 100.0]], dtype=torch.float64)
    there, back, across = promised(hull, ends).norm(dim=1).tolist()
    assert there == pytest.approx(100)
    assert back < 5 and across < 5


def test_what_is_drawn_in_keeps_its_order_and_direction():
    hull = Hull.of(cloud(200, 2))
    lengths = torch.linspace(0.1, 30, 400, dtype=torch.float64)[:, None]
    way = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    held = promised(hull, hull.centre + lengths * way) - hull.centre
    along = (held * way).sum(1)
    assert (along.diff() > 0).all()
    torch.testing.assert_close(held, along[:, None] * way)


@pytest.mark.gradients
def test_it_has_a_gradient_everywhere():
    hull, end = Hull.of(cloud(100, 2)), cloud(200, 2, seed=1, spread=3)
    assert torch.autograd.gradcheck(lambda end: promised(hull, end), end[:20].requires_grad_())


def test_joined_hulls_hold_what_each_of_them_held():
    first, second = cloud(300, 3), cloud(300, 3, seed=1) + 4
    joined = Hull.of(first).joined(second)
    for points in (first, second):
        torch.testing.assert_close(promised(joined, points), points, rtol=0, atol=0)


class Wild(torch.nn.Module):
    """A field that explodes: what a network may say where it was never trained."""

    def __init__(self, size=1e6):
        super().__init__()
        self.size = size

    def forward(self, t, x):
        return self.size * (50 * x + t[:, None]).sin() * (1 + x.abs())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ode_method", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("schedule", ["straight", "constant"])
def test_samples_end_near_the_target_whatever_the_network_says(dtype, ode_method, schedule):
    X, Y = (rng.normal(size=(300, 2)) for rng in map(np.random.default_rng, range(2)))
    flow = NSGFSampler(max_iter=1, random_state=0, ode_method=ode_method, schedule=schedule)
    flow.fit(X, Y).velocity_network_ = Wild()
    far = np.linalg.norm(Y - Y.mean(0), axis=1).max()
    new = (3 * X).astype(dtype)
    for rows in (flow.transform(new), flow.sample(300)):
        most = 1.21 * far if schedule == "straight" else 3 * np.abs(new).max()
        assert np.linalg.norm(rows - Y.mean(0), axis=1).max() < most


@pytest.mark.parametrize("form", [{}, {"straight_from": "source"}], ids=str)
def test_neither_phase_lets_points_fly(form):
    X, Y = (rng.normal(size=(300, 2)) for rng in map(np.random.default_rng, range(2)))
    model = NSGFPlusPlus(max_iter=1, random_state=0, **form).fit(X, Y)
    model.straight_network_ = model.sinkhorn_flow_.velocity_network_ = Wild()
    far = np.linalg.norm(Y - Y.mean(0), axis=1).max()
    path = model.trajectory(3 * X)
    assert np.linalg.norm(path.states[-1] - Y.mean(0), axis=1).max() < 1.21 * far
    # On the way every state lies between the start and the neighbourhood of the target.
    assert np.abs(path.states).max() <= max(np.abs(3 * X).max(), 1.21 * (far + np.abs(Y).max()))


def test_a_fit_that_goes_on_may_end_where_any_of_its_targets_lie():
    Y = np.random.default_rng(0).normal(size=(200, 2))
    flow = NSGFSampler(source="gaussian", max_iter=1, random_state=0).fit(Y).partial_fit(Y + 50)
    flow.velocity_network_ = Wild()
    distances, most = (
        np.linalg.norm(rows - Y.mean(0), axis=1).max() for rows in (flow.sample(500), Y + 50)
    )
    assert 40 < distances < 1.21 * most


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_perceptrons_are_bounded_however_far_their_input_is(scale):
    torch.manual_seed(0)
    network = VelocityMLP(3, (64, 64))
    x = torch.randn(200, 3)
    near = network(torch.zeros(200), x).norm(dim=1).max()
    assert network(torch.zeros(200), scale * x).norm(dim=1).max() < 3 * near


def test_rows_far_from_all_that_was_fitted_end_near_the_target():
    X = np.random.default_rng(0).normal(size=(500, 2))
    flow = NSGFSampler(max_iter=100, random_state=0).fit(X, X + 10)
    moved = flow.transform(np.r_[X, 1e3 * X, 1e8 * X])
    assert np.linalg.norm(moved - 10, axis=1).max() < 1.25 * np.linalg.norm(X, axis=1).max()


def test_density_and_round_trip_are_those_of_the_map_that_is_held():
    """The flow to a bounded target from an unbounded source: some rows are drawn in."""
    Y = np.random.default_rng(0).uniform(-1, 1, size=(500, 1))
    flow = NSGFSampler(source="gaussian", max_iter=300, random_state=0).fit(Y)
    grid = np.linspace(-2, 2, 4001)[:, None]
    mass = np.exp(flow.score_samples(grid)).sum() * 4 / 4000
    assert mass == pytest.approx(1, abs=0.02)
    most = 1.2 * np.abs(Y - Y.mean(0)).max()
    assert np.isneginf(flow.score_samples(Y.mean() + most * np.array([[1.001], [-1.001]]))).all()


@pytest.mark.parametrize("shift", [0, 100, 1e4, 1e6])
@pytest.mark.parametrize("form", [{}, {"n_sampling_steps": 1}], ids=str)
def test_the_way_back_does_not_depend_on_how_far_the_target_is(shift, form):
    X, Y = (rng.normal(size=(200, 2)) for rng in map(np.random.default_rng, range(2)))
    flow = NSGFSampler(hidden_layer_sizes=(32, 32), max_iter=60, random_state=0)
    flow.fit(X, Y + shift).set_params(**form)
    assert np.median(flow.round_trip_error(X)) < 1e-6 * max(1, shift)
    assert np.abs(flow.inverse_transform(Y + shift)).max() < 20 * max(1, shift / 1e4)


@pytest.mark.parametrize("step_size", [None, 0.1, 0.3])
@pytest.mark.parametrize("scale", [1, 10, 1e6])
def test_points_that_have_arrived_stay(step_size, scale):
    """Rows that enter the straight flow at its very end, or take their last step early."""
    X, Y = (rng.normal(size=(200, 2)) for rng in map(np.random.default_rng, range(2)))
    model = NSGFPlusPlus(
        straight_from="source", hidden_layer_sizes=(32, 32), max_iter=60, random_state=0
    ).fit(X, Y * 0.5 + 5)
    model.set_params(straight_step_size=step_size)

    class Late(torch.nn.Module):
        def forward(self, x):
            return torch.linspace(0.2, 1, len(x)).to(x)

    for predictor in (model.time_predictor_, Late()):
        model.time_predictor_ = predictor
        for rows in (scale * X, (scale * X).astype(np.float32)):
            assert np.isfinite(model.transform(rows)).all()


def test_nothing_is_changed_where_no_time_is_left():
    hull, x = Hull.of(cloud(100, 2)), cloud(50, 2, seed=1, spread=100)
    u = torch.ones_like(x)
    assert torch.equal(hull.hold(x, u, torch.zeros(50, 1, dtype=torch.float64)), u)
