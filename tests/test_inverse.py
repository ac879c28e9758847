"""The way back: what was reached is verified, what was not is told, and nothing flies away."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.datasets import make_8gaussians, make_checkerboard, make_moons, make_s_curve
from sknsgf.flow import Hull

SMALL = {"hidden_layer_sizes": (32, 32), "max_iter": 100, "random_state": 0}
PAPER = {"straight_from": "source"}


def blobs(d):
    generator = np.random.default_rng(d)
    centres = 2 * generator.normal(size=(5, d))
    return centres[generator.integers(5, size=600)] + 0.5 * generator.normal(size=(600, d))


PLANE = {
    "moons": lambda: make_moons(600, random_state=0),
    "8gaussians": lambda: make_8gaussians(600, random_state=0),
    "checkerboard": lambda: make_checkerboard(600, random_state=0),
    "s curve": lambda: make_s_curve(600, random_state=0),
}
TASKS = PLANE | {
    "blobs, 8": lambda: blobs(8),
    "blobs, 30": lambda: blobs(30),
    "diabetes": lambda: StandardScaler().fit_transform(load_diabetes().data),
    "wine": lambda: StandardScaler().fit_transform(load_wine().data),
    "breast cancer": lambda: StandardScaler().fit_transform(load_breast_cancer().data),
    "digits": lambda: load_digits().data[:600],
}


def misses(flow, found, rows):
    """How far from rows those found are carried, in units of what is called reached."""
    size = np.linalg.norm((rows - flow.mean_) / flow.scale_, axis=1).clip(1)
    tol = 1e-6 if rows.dtype == np.float64 else 1e-3 * size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what was not reached may lie anywhere
        again = flow.transform(found)
    return np.linalg.norm((again - rows).astype(np.float64), axis=1) / flow.scale_ / tol


def noise(flow, n, seed=1):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, flow.n_features_in_)) * flow.scale_ + flow.mean_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("n_steps", [None, 20])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_said_to_be_reached_is_reached(task, n_steps):
    target = TASKS[task]()
    flow = NSGFSampler(source="gaussian", **SMALL).fit(target[::2])
    flow.set_params(n_sampling_steps=n_steps)
    moved = flow.transform(noise(flow, 300))
    for dtype in (np.float64, np.float32):
        for rows, of_target in ((moved.astype(dtype), False), (target[1::2].astype(dtype), True)):
            found, reached = flow.inverse_transform(rows, return_reached=True)
            missed = misses(flow, found, rows)
            assert reached.dtype == bool and reached.shape == (len(rows),)
            assert missed[reached].max() <= 1.01
            assert (missed[~reached] > 0.5).all()
            if task in PLANE or not of_target:  # in many columns few rows bound little
                assert reached.mean() >= 0.99
    if task in PLANE:
        error = flow.round_trip_error(noise(flow, 300)) / flow.scale_
        assert len(error) >= 297 and np.quantile(error, 0.99) < 1e-6


@pytest.mark.parametrize("method", ["euler", "heun", "rk4"])
def test_every_method_is_undone(method):
    flow = NSGFSampler(**SMALL, ode_method=method, n_sampling_steps=7)
    source, target = make_8gaussians(300, random_state=0), make_moons(300, random_state=0)
    moved = flow.fit(source, target).transform(source)
    found, reached = flow.inverse_transform(moved, return_reached=True)
    assert reached.mean() > 0.98
    assert np.median(np.linalg.norm(found - source, axis=1)) < 1e-7


@pytest.mark.parametrize("form", [{}, PAPER, {**PAPER, "switch": "fixed"}], ids=str)
@pytest.mark.parametrize("step_size", [None, 0.1])
def test_both_phases_are_undone(form, step_size):
    model = NSGFPlusPlus(**SMALL, **form).fit(make_8gaussians(300), make_moons(300))
    model.set_params(straight_step_size=step_size)
    moved = model.transform(make_8gaussians(100, random_state=1))
    found, reached = model.inverse_transform(moved, return_reached=True)
    assert reached.mean() > 0.98
    assert misses(model, found, moved)[reached].max() <= 1


def nearest(flow, row, n_starts=10000, n_rounds=40):
    """How near to a row any source point is carried: a search from many starts."""
    generator = np.random.default_rng(0)
    move = flow.learned_map(torch.float64).forward
    start = torch.from_numpy(3 * generator.normal(size=(n_starts, flow.n_features_in_)))
    goal = torch.from_numpy((row - flow.mean_) / flow.scale_)
    best = start[(move(start) - goal).norm(dim=1).argsort()[:50]]
    width = 0.5
    for _ in range(n_rounds):
        trials = best.repeat(20, 1)
        trials[len(best) :] += width * torch.from_numpy(
            generator.normal(size=(len(trials) - len(best), trials.shape[1]))
        )
        missed = (move(trials) - goal).norm(dim=1)
        best, width = trials[missed.argsort()[:50]], 0.75 * width
    return float(missed.min())


def test_rows_that_are_not_reached_have_no_preimage():
    """Beside: rows that are reached are found by the same search."""
    flow = NSGFSampler(source="gaussian", **SMALL).fit(make_checkerboard(600, random_state=0))
    plane = np.stack(np.meshgrid(*[np.linspace(-8, 8, 9)] * 2), -1).reshape(-1, 2)
    with pytest.warns(ConvergenceWarning, match=r"For \d+ of 81 rows no source row was found"):
        _, reached = flow.inverse_transform(plane, return_reached=True)
    assert 10 < reached.sum() < 71
    for row in plane[~reached][::7]:
        assert nearest(flow, row) > 1e-4
    for row in plane[reached][::7]:
        assert nearest(flow, row) < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", [NSGFSampler, NSGFPlusPlus])
def test_rows_beyond_all_targets_are_told_and_stay_near_the_source(cls, dtype):
    target = blobs(3).astype(dtype)
    model = cls(source="gaussian", **SMALL).fit(target)
    centre = target.mean(0)
    far = np.r_[[centre + 30], [centre - 1e6], np.full((1, 3), 1e30), target[:5]].astype(dtype)
    with pytest.warns(ConvergenceWarning, match="For 3 of 8 rows"):
        found, reached = model.inverse_transform(far, return_reached=True)
    assert reached.tolist() == [False] * 3 + [True] * 5
    assert np.isfinite(found).all()
    assert np.linalg.norm((found - model.mean_) / model.scale_, axis=1).max() < 6
    with pytest.warns(ConvergenceWarning):
        np.testing.assert_array_equal(model.inverse_transform(far), found)


class Wild(torch.nn.Module):
    """A field that explodes and folds all over."""

    def forward(self, t, x):
        return 1e3 * (50 * x + t[:, None]).sin() * (1 + x.abs())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("schedule", ["straight", "constant"])
def test_the_way_back_stays_near_the_source_whatever_the_network_says(dtype, schedule):
    source, target = (rng.normal(size=(200, 2)) for rng in map(np.random.default_rng, range(2)))
    flow = NSGFSampler(max_iter=1, random_state=0, schedule=schedule).fit(source, target)
    flow.velocity_network_ = Wild()
    found, reached = flow.inverse_transform((3 * target[:40]).astype(dtype), return_reached=True)
    most = 1.3 * np.linalg.norm(source - source.mean(0), axis=1).max()
    assert np.linalg.norm(found - source.mean(0), axis=1)[~reached].max() < most


def extremes(scale):
    """Rows of the source and the target, of the far target row, and from nowhere."""
    generator = np.random.default_rng(0)
    source, target = generator.normal(size=(60, 2)), generator.normal(size=(60, 2)) + 10
    target = np.r_[target, [[1e6, 1e6]]]
    rows = np.r_[source[:5], target[-5:], 1e3 * source[:5], [[1e15, -1e15]]] * scale
    return source * scale, target * scale, np.r_[rows, [[1e30, 1e30], [-1e30, 1.0]]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("form", [None, {}, PAPER], ids=str)
def test_numbers_are_finite_at_any_scale(form, scale):
    source, target, rows = extremes(scale)

    def make(**parameters):
        small = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, **parameters}
        if form is None:
            return NSGFSampler(**small)
        return NSGFPlusPlus(n_straight_steps=3, **small, **form)

    for model in (make().fit(source, target), make(source="gaussian").fit(target)):
        for X in (rows, rows.astype(np.float32)):
            there, back = model.transform(X), model.inverse_transform(X)
            numbers = [there, back, model.round_trip_error(X), model.trajectory(X).states]
            if isinstance(model, NSGFSampler):
                numbers += [model.velocity(t, X) for t in (0.0, 0.5, 1.0)]
            for number in numbers:
                assert np.isfinite(number).all()
            np.testing.assert_array_equal(model.trajectory(X).states[0], X)
            if hasattr(model, "score_samples"):
                assert (model.score_samples(X) < np.inf).all()


def test_round_trips_without_a_way_back_are_left_out():
    flow = NSGFSampler(max_iter=1, random_state=0).fit(blobs(2), blobs(2))
    rows = blobs(2)[:50]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(flow.round_trip_error(rows)) == 50

    class Square(torch.nn.Module):  # the last step squares, which cannot tell signs
        def forward(self, t, x):
            return torch.where(t[:, None] < 0.85, 0 * x, 10 * (x.abs().sqrt() + 0.1 - x))

    flow.velocity_network_ = Square()
    kept = flow.round_trip_error(rows)
    _, reached = flow.inverse_transform(flow.transform(rows), return_reached=True)
    assert len(kept) == reached.sum() and np.isfinite(kept).all()


LAWS = {
    "gaussian, 2": lambda n, g: g.normal(size=(n, 2)),
    "gaussian, 10": lambda n, g: g.normal(size=(n, 10)),
    "gaussian, 64": lambda n, g: g.normal(size=(n, 64)),
    "t of 3, 2": lambda n, g: g.standard_t(3, size=(n, 2)),
    "t of 3, 64": lambda n, g: g.standard_t(3, size=(n, 64)),
    "lognormal, 2": lambda n, g: np.exp(g.normal(size=(n, 2))),
    "uniform, 1": lambda n, g: g.uniform(size=(n, 1)),
    "digits": lambda n, g: g.permutation(load_digits().data)[:n],
}


@pytest.mark.parametrize("law", LAWS)
def test_rows_of_the_law_are_inside_and_those_thrice_as_far_are_not(law):
    """Fewer than one call in a hundred, of few rows or many, is a false alarm."""
    generator = np.random.default_rng(0)
    flow = NSGFSampler(max_iter=1, random_state=0, hidden_layer_sizes=(4,))
    flow.fit(LAWS[law](30, generator), LAWS[law](30, generator))

    def warns(ball, X):
        flow._source_ball = ball
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            flow._warn_of_outside(torch.from_numpy(X))
        return len(told) > 0

    alarms = []
    for _ in range(40):
        for n_source, n_rows in ((20, 1), (20, 200), (50, 20), (200, 200)):
            rows = LAWS[law](n_source + n_rows, generator)
            source, new = rows[:n_source], rows[n_source:]
            ball = Hull.ball(torch.from_numpy(source))
            alarms.append(warns(ball, new))
            way = source - source.mean(0)
            radius = np.linalg.norm(way, axis=1, keepdims=True)
            assert warns(ball, source.mean(0) + way / radius * 3 * radius.max())
            some = (source.mean(0) + way / radius * 3 * radius.max())[: 2 + n_rows // 10]
            assert warns(ball, np.r_[new, some])
    assert np.mean(alarms) <= 0.01


@pytest.mark.parametrize("cls", [NSGFSampler, NSGFPlusPlus])
@pytest.mark.parametrize("source", [None, "gaussian"])
def test_rows_outside_of_the_source_are_told(cls, source):
    X, Y = blobs(2), blobs(2) + 3
    model = cls(source=source, **SMALL)
    model = model.fit(Y) if source else model.fit(X, Y)
    mine = noise(model, 300) if source else X
    mixed = np.r_[mine[:70], (mine - mine.mean(0))[:30] * 30 + mine.mean(0)]
    for move in (model.transform, model.trajectory):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            move(mine)
        with pytest.warns(UserWarning, match=r"(2|30)\d?% of the rows lie outside of the source"):
            move(mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(20)
        if not source:
            model.transform(Y, domain="target")


def test_what_was_fitted_before_is_inside_too():
    X, Y = blobs(2), blobs(2)
    flow = NSGFSampler(**SMALL).fit(X, Y).partial_fit(X + 100, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.transform(np.r_[X, X + 100])
    with pytest.warns(UserWarning, match="outside"):
        NSGFSampler(**SMALL).fit(X + 100, Y).transform(X)


def test_a_ball_bounds_all_but_one_in_a_hundred():
    points = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    points[0] = 1e6
    ball = Hull.ball(points)
    assert ball.is_beyond(points, 1.0).sum() <= 10
    assert not Hull.ball(torch.ones(5, 2)).is_beyond(torch.ones(5, 2), 1.0).any()


def test_looking_for_the_way_back_asks_for_no_gradient():
    flow = NSGFSampler(source="gaussian", **SMALL).fit(blobs(5))
    moved = flow.transform(noise(flow, 20))
    expected = flow.inverse_transform(moved)
    with torch.inference_mode():
        np.testing.assert_array_equal(flow.inverse_transform(moved), expected)
    assert all(p.grad is None for p in flow.velocity_network_.parameters())


def test_what_is_returned_does_not_depend_on_the_rows_beside_it():
    flow = NSGFSampler(source="gaussian", **SMALL).fit(blobs(5))
    moved = flow.transform(noise(flow, 50))
    together = flow.inverse_transform(moved)
    alone = np.vstack([flow.inverse_transform(row[None]) for row in moved])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6 * flow.scale_)
