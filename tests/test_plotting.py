import numpy as np
import pandas as pd
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from sknsgf import NSGFPlusPlus, NSGFSampler  # noqa: E402
from sknsgf.plotting import (  # noqa: E402
    FlowDisplay,
    SwitchTimeDisplay,
    VelocityFieldDisplay,
    plot_history,
    plot_images,
    plot_particles,
    plot_trajectories,
    plot_velocity_field,
)
from sknsgf.training import TrainingHistory  # noqa: E402

X = np.random.RandomState(0).standard_normal((30, 2))
STATES = np.stack([X, 2 * X, 3 * X + 1])
BOX = {"xlim": (-3, 3), "ylim": (-1, 1)}


def turn(t, X):
    return (1 + t) * np.column_stack([-X[:, 1], X[:, 0]])


DRAWINGS = [
    lambda ax=None: plot_particles(X, ax=ax),
    lambda ax=None: plot_trajectories(STATES, ax=ax),
    lambda ax=None: plot_velocity_field(turn, ax=ax, **BOX),
    lambda ax=None: plot_images(X.reshape(-1, 6), (1, 2, 3), ax=ax),
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("draw", DRAWINGS)
def test_axes_in_axes_out(draw):
    _, (ax, other) = plt.subplots(1, 2)
    assert draw(ax=ax) is ax
    assert ax.get_aspect() == 1 and not other.has_data()


@pytest.mark.parametrize("draw", DRAWINGS)
def test_draws_on_the_current_axes_by_default(draw):
    _, (_, current) = plt.subplots(1, 2)
    assert draw() is current
    assert len(plt.get_fignums()) == 1


def test_particles_are_where_they_are():
    (points,) = plot_particles(X).collections
    np.testing.assert_array_equal(points.get_offsets(), X)


def test_particles_pass_keywords_on():
    (points,) = plot_particles(X, color="red", s=3, label="target").collections
    assert points.get_label() == "target" and points.get_sizes() == [3]
    np.testing.assert_array_equal(points.get_facecolor()[0, :3], [1, 0, 0])


def test_trajectories_join_start_to_end():
    ax = plot_trajectories(STATES, linewidths=2)
    paths, start, end = ax.collections
    np.testing.assert_array_equal(np.stack(paths.get_segments(), axis=1), STATES)
    np.testing.assert_array_equal(start.get_offsets(), STATES[0])
    np.testing.assert_array_equal(end.get_offsets(), STATES[-1])
    assert paths.get_linewidth() == [2]
    assert ax.get_legend_handles_labels()[1] == ["start", "end"]


def test_all_trajectories_are_in_view():
    ax = plot_trajectories(np.stack([X, 100 * X, X]))
    assert np.all(ax.dataLim.min <= 100 * X.min(axis=0))
    assert np.all(ax.dataLim.max >= 100 * X.max(axis=0))


def test_velocity_field_has_directions_in_arrows_and_speeds_in_colours():
    (arrows,) = plot_velocity_field(turn, t=0.5, **BOX).collections
    velocity = turn(0.5, arrows.get_offsets())
    speed = np.linalg.norm(velocity, axis=1)
    np.testing.assert_allclose(arrows.get_array(), speed)
    drawn = np.column_stack([arrows.U, arrows.V])
    length = np.linalg.norm(drawn, axis=1)
    np.testing.assert_allclose(drawn / length[:, None], velocity / speed[:, None])
    np.testing.assert_allclose(length, length[0])


def test_velocity_field_tiles_its_rectangle_with_squares():
    (arrows,) = plot_velocity_field(turn, n_grid=12, **BOX).collections
    xs, ys = (np.unique(column) for column in np.asarray(arrows.get_offsets()).T)
    np.testing.assert_allclose(xs, np.arange(-2.75, 3, 0.5))
    np.testing.assert_allclose(ys, np.arange(-0.75, 1, 0.5))


@pytest.mark.filterwarnings("error")
def test_velocity_field_at_rest():
    ax = plot_velocity_field(lambda t, X: np.zeros_like(X), **BOX)
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "draw, match",
    [
        (lambda: plot_particles(X[:, :1]), r"X must have shape \(n_samples, 2\).*\(30, 1\)"),
        (lambda: plot_particles(X[0]), r"it has shape \(2,\)"),
        (lambda: plot_trajectories(X), r"states must have shape \(n_times, n_samples, 2\)"),
        (lambda: plot_trajectories(np.zeros((3, 4, 5))), r"it has shape \(3, 4, 5\)"),
        (lambda: plot_velocity_field(lambda t, X: X[:, 0], **BOX), r"velocity\(t, X\) must have"),
    ],
)
def test_only_two_dimensions(draw, match):
    with pytest.raises(ValueError, match=match):
        draw()


def a_history(n_iter, validation_loss=()):
    return TrainingHistory(
        iter=torch.arange(1, n_iter + 1),
        loss=torch.linspace(2, 1, n_iter),
        validation_iter=2 * torch.arange(1, 1 + len(validation_loss)),
        validation_loss=torch.tensor(validation_loss),
        status="completed",
    )


class TestHistory:
    def test_losses_are_drawn_as_they_are_and_as_their_running_mean(self):
        history = a_history(200)
        raw, mean = plot_history(history).get_lines()
        np.testing.assert_array_equal(raw.get_xydata(), np.stack([history.iter, history.loss], 1))
        np.testing.assert_allclose(mean.get_ydata()[10:-10], history.loss[10:-10], rtol=1e-6)

    def test_held_out_losses_are_drawn_and_the_lowest_marked(self):
        *_, held_out, lowest = plot_history(a_history(8, [3.0, 1.0, 2.0])).get_lines()
        np.testing.assert_array_equal(held_out.get_xydata(), [[2, 3], [4, 1], [6, 2]])
        np.testing.assert_array_equal(lowest.get_xydata(), [[4, 1]])

    def test_phases_have_their_names_in_the_legend(self):
        ax = plot_history({"sinkhorn_flow": a_history(8), "straight_flow": a_history(9)})
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        assert texts == ["sinkhorn flow: batches", "straight flow: batches"]

    def test_short_and_sliced_histories(self):
        for history in (a_history(1), a_history(200, [1.0] * 100)[150:160]):
            plot_history(history, ax=plt.figure().add_subplot())

    def test_of_nothing_there_is_no_picture(self):
        for history in (a_history(3)[:0], {"sinkhorn_flow": a_history(3)[:0]}):
            with pytest.raises(ValueError, match=r"history has 0 iteration\(s\)"):
                plot_history(history)
        for history in ({}, None, [1.0, 0.5]):
            with pytest.raises(TypeError, match="history must be the history_"):
                plot_history(history)


def drawn(*arguments, **parameters):
    ax = plt.figure().add_subplot()
    (image,) = plot_images(*arguments, ax=ax, **parameters).images
    return np.asarray(image.get_array())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_reading_order(channels):
    shape = (channels, 2, 3)
    images = np.random.default_rng(0).uniform(size=(5, *shape))
    picture = drawn(images.reshape(5, -1), shape, value_range=(0, 1), n_columns=2)
    assert picture.shape == ((8, 7) if channels == 1 else (8, 7, 3))
    picture = picture.reshape(8, 7, channels)
    for k, image in enumerate(images):
        top, left = 3 * (k // 2), 4 * (k % 2)
        tile = picture[top : top + 2, left : left + 3]
        np.testing.assert_allclose(tile, np.moveaxis(image, 0, -1))
    np.testing.assert_array_equal(picture[6:, 4:], 0.5)  # no sixth image


def test_the_range_of_values_is_that_of_the_images_or_the_one_given():
    rows = np.array([[-2.0, 0.0, 6.0]])
    np.testing.assert_allclose(drawn(rows, (1, 1, 3)), [[0, 0.25, 1]])
    np.testing.assert_allclose(drawn(rows, (1, 1, 3), value_range=(-1, 1)), [[0, 0.5, 1]])


@pytest.mark.filterwarnings("error")
def test_an_even_image_is_drawn():
    np.testing.assert_array_equal(drawn(np.full((1, 4), 7.0), (1, 2, 2)), 0)


@pytest.mark.parametrize(
    "X, image_shape, match",
    [
        (np.zeros((2, 6)), (1, 2, 2), r"X must have shape \(n_samples, 4\).*\(2, 6\)"),
        (np.zeros((2, 1, 2, 2)), (1, 2, 2), "one image of shape"),
        (np.zeros((0, 4)), (1, 2, 2), r"X has 0 sample\(s\)"),
        (np.zeros((2, 8)), (2, 2, 2), "1 or 3 channels"),
        (np.zeros((2, 4)), (2, 2), "1 or 3 channels"),
        (np.zeros((2, 4)), 4, "1 or 3 channels, got 4"),
        (np.zeros((2, 4)), None, "1 or 3 channels, got None"),
        (np.zeros((2, 4)), (1.0, 2.0, 2.0), "positive integers"),
        (np.zeros((2, 4)), (1, -2, -2), "positive integers"),
        (np.full((2, 4), np.nan), (1, 2, 2), "NaN"),
    ],
)
def test_only_images(X, image_shape, match):
    with pytest.raises(ValueError, match=match):
        plot_images(X, image_shape)


@pytest.mark.parametrize(
    "parameters",
    [
        *({"value_range": value} for value in [(1, 0), (0, 0), (0, np.nan), (0, np.inf), (1,), 5]),
        *({"n_columns": value} for value in [0, -2, 2.5, True]),
    ],
    ids=str,
)
def test_impossible_grids_of_images(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        plot_images(np.zeros((2, 4)), (1, 2, 2), **parameters)


ROWS = np.random.RandomState(1).standard_normal((40, 3)) * [1, 2, 3]
TINY = {"max_iter": 3, "hidden_layer_sizes": (4,), "random_state": 0}


@pytest.fixture(scope="module")
def flow():
    return NSGFSampler(**TINY).fit(ROWS, ROWS + 5)


@pytest.fixture(scope="module")
def phases():
    return NSGFPlusPlus(straight_from="source", **TINY).fit(ROWS, ROWS + 5)


class TestDisplays:
    @pytest.mark.parametrize("name", ["flow", "phases"])
    def test_paths_are_the_trajectory(self, name, request):
        sampler = request.getfixturevalue(name)
        display = FlowDisplay.from_estimator(sampler, ROWS, features=(2, 0), alpha=1)
        states = sampler.trajectory(ROWS).states[..., [2, 0]]
        for drawn, path in zip(display.paths_.get_segments(), states.swapaxes(0, 1), strict=True):
            np.testing.assert_allclose(drawn, path)
        np.testing.assert_allclose(display.start_.get_offsets(), states[0])
        np.testing.assert_allclose(display.end_.get_offsets(), states[-1])
        assert display.paths_.get_alpha() == 1
        assert display.ax_.get_xlabel() == "feature 2"
        again = FlowDisplay.from_predictions(states)
        np.testing.assert_array_equal(again.states, display.states)

    def test_arrows_are_the_velocity_in_the_plane_of_the_means(self, flow):
        display = VelocityFieldDisplay.from_estimator(flow, ROWS, t=0.5, features=(0, 1), n_grid=5)
        others = np.full(len(display.points), ROWS[:, 2].mean())
        v = flow.velocity(0.5, np.column_stack([display.points, others]))
        np.testing.assert_allclose(display.velocities, v[:, :2])
        np.testing.assert_allclose(display.quiver_.get_array(), np.linalg.norm(v[:, :2], axis=1))
        assert display.colorbar_.ax.get_ylabel() == "speed"
        np.testing.assert_array_less(ROWS[:, :2].min(0), display.points.min(0))
        VelocityFieldDisplay.from_predictions(display.points, display.velocities)

    def test_bars_count_the_points(self, phases):
        display = SwitchTimeDisplay.from_estimator(phases, bins=10)
        counts = [bar.get_height() for bar in display.bars_]
        expected, _ = np.histogram(phases.switch_time_, bins=10, range=(0, 1))
        np.testing.assert_array_equal(counts, expected)
        assert "t = 0.5" in display.ax_.get_legend().get_texts()[0].get_text()
        SwitchTimeDisplay.from_predictions([0.2, 0.3])

    def test_names_choose_columns_and_label_axes(self):
        frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
        flow = NSGFSampler(**TINY).fit(frame, frame + 5)
        display = FlowDisplay.from_estimator(flow, frame, features=("c", "a"))
        assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("c", "a")
        field = VelocityFieldDisplay.from_estimator(flow, frame, features=["b", 0])
        assert (field.ax_.get_xlabel(), field.ax_.get_ylabel()) == ("b", "a")

    def test_axes_given_are_used_and_new_ones_are_made_otherwise(self, flow, phases):
        for draw in (
            lambda ax: FlowDisplay.from_estimator(flow, ROWS, features=(0, 1), ax=ax),
            lambda ax: VelocityFieldDisplay.from_estimator(flow, ROWS, features=(0, 1), ax=ax),
            lambda ax: SwitchTimeDisplay.from_estimator(phases, ax=ax),
        ):
            _, ax = plt.subplots()
            assert draw(ax).ax_ is ax
            display = draw(None)
            assert display.ax_ is not ax
            assert display.figure_ is display.ax_.figure
            assert display.plot(ax=ax).ax_ is ax

    @pytest.mark.parametrize("features", [None, (0,), (0, 3), ("a", 0), (0, -1), (0, 1, 2)])
    def test_features_that_are_not_two_columns(self, flow, features):
        for cls in (FlowDisplay, VelocityFieldDisplay):
            with pytest.raises(ValueError, match="features"):
                cls.from_estimator(flow, ROWS, features=features)

    def test_what_has_nothing_to_draw(self, flow, phases):
        with pytest.raises(TypeError, match="sinkhorn_flow_"):
            VelocityFieldDisplay.from_estimator(phases, ROWS, features=(0, 1))
        with pytest.raises(TypeError, match="NSGFPlusPlus"):
            SwitchTimeDisplay.from_estimator(flow)
        with pytest.raises(TypeError, match="enters this straight flow at its start"):
            SwitchTimeDisplay.from_estimator(NSGFPlusPlus(**TINY).fit(ROWS, ROWS + 5))
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            SwitchTimeDisplay.from_predictions([0.2, 1.3])
        with pytest.raises(ValueError, match="3 points but 2"):
            VelocityFieldDisplay.from_predictions(ROWS[:3, :2], ROWS[:2, :2])
