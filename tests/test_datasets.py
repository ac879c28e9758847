import numpy as np
import pytest

from sknsgf.datasets import (
    TASKS,
    load_images,
    make_8gaussians,
    make_checkerboard,
    make_gaussian,
    make_moons,
    make_s_curve,
    make_task,
)

MAKERS = [make_gaussian, make_8gaussians, make_moons, make_s_curve, make_checkerboard]
N = 20_000
ANGLES = np.arange(8) * np.pi / 4
CENTRES = 5 * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])


def assert_mean(X, expected):
    """The sample mean is within five standard errors of the distribution's."""
    standard_error = X.std(axis=0) / np.sqrt(len(X))
    assert np.all(np.abs(X.mean(axis=0) - expected) < 5 * standard_error)


@pytest.mark.parametrize("make", MAKERS)
def test_shape_dtype_and_seed(make):
    X = make(50, random_state=3)
    assert X.shape == (50, 2) and X.dtype == np.float64
    np.testing.assert_array_equal(X, make(50, random_state=3))
    assert not np.array_equal(X, make(50, random_state=4))


@pytest.mark.parametrize("make", MAKERS)
def test_random_state_instance_moves_on(make):
    rng = np.random.RandomState(0)
    assert not np.array_equal(make(10, random_state=rng), make(10, random_state=rng))


@pytest.mark.usefixtures("untouched_global_seeds")
@pytest.mark.parametrize("make", MAKERS)
def test_global_seed_is_untouched(make):
    make(10, random_state=0)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n_samples", [0, -1, 2.5, True, "5", 10**400], ids=range(6))
def test_bad_number_of_samples(make, n_samples):
    with pytest.raises(ValueError, match="n_samples must be a positive integer"):
        make(n_samples)


def test_gaussian_moments():
    X = make_gaussian(N, n_features=3, random_state=0)
    assert_mean(X, 0)
    assert_mean(np.einsum("ni,nj->nij", X, X).reshape(N, 9), np.eye(3).ravel())


def test_8gaussians_are_equal_and_around_their_centres():
    X = make_8gaussians(N, random_state=0)
    nearest = np.argmin(np.linalg.norm(X[:, None] - CENTRES, axis=2), axis=1)
    # Gaussians of deviation 0.56 hardly reach the midline, 1.91 away.
    assert_mean(nearest[:, None] == np.arange(8), 1 / 8)
    residual = X - CENTRES[nearest]
    assert_mean(residual.reshape(-1, 1) ** 2, 10**-0.5)


def test_8gaussians_second_moment():
    X = make_8gaussians(N, random_state=1)
    assert_mean(X, 0)
    assert_mean(X**2, 25 / 2 + 10**-0.5)


def test_moons_lie_on_smeared_half_circles():
    X = (make_moons(N, random_state=0) + 1) / 3
    # Undo the smear: on the line X - s (1, 1) a half circle is met at some s in [0, 0.2].
    smear = np.linspace(0, 0.2, 401)
    points = X[:, None] - smear[:, None]
    upper = np.abs(np.hypot(points[..., 0], points[..., 1]) - 1)
    lower = np.abs(np.hypot(points[..., 0] - 1, points[..., 1] - 0.5) - 1)
    upper[points[..., 1] < -1e-3] = np.inf
    lower[points[..., 1] > 0.5 + 1e-3] = np.inf
    assert np.minimum(upper, lower).min(axis=1).max() < 1e-3


def test_moons_fill_their_bounding_box():
    X = make_moons(N, random_state=0)
    low, high = np.array([-4, -2.5]), np.array([5.6, 2.6])
    assert np.all(X >= low) and np.all(X <= high)
    np.testing.assert_allclose([X.min(axis=0), X.max(axis=0)], [low, high], atol=0.015)


def test_moons_mean():
    # Each half circle has its centre of mass 2 / pi off its centre, the smear adds 0.1.
    unscaled = np.array([(0 + 1) / 2, (2 / np.pi + 0.5 - 2 / np.pi) / 2]) + 0.1
    assert_mean(make_moons(N, random_state=0), 3 * unscaled - 1)


def test_s_curve_lies_on_two_circles():
    X = make_s_curve(N, random_state=0) / 1.5
    off_circle = np.hypot(X[:, 0], np.abs(X[:, 1]) - 1) - 1
    # Across the curve the noise has deviation 0.05, except near the origin, where circles meet.
    away = np.abs(X[:, 1]) > 0.3
    assert off_circle[away].std() == pytest.approx(0.05, rel=0.05)
    assert np.abs(off_circle).max() < 6 * 0.05


def test_s_curve_moments():
    X = make_s_curve(N, random_state=0)
    assert_mean(X, 0)
    # The mean of (cos t - 1)^2 over |t| < 3 pi / 2 is 3 / 2 + 4 / (3 pi); of sin^2 it is 1 / 2.
    expected = 2.25 * (np.array([1 / 2, 3 / 2 + 4 / (3 * np.pi)]) + 0.05**2)
    assert_mean(X**2, expected)


def test_s_curve_is_an_s_and_not_its_mirror_image():
    X = make_s_curve(N, random_state=0)
    stroke = X[(np.abs(X[:, 1]) < 0.5) & (np.abs(X[:, 0]) > 0.5)]
    assert np.mean(stroke[:, 0] * stroke[:, 1] < 0) > 0.95


def test_checkerboard_fills_the_dark_squares_evenly():
    X = make_checkerboard(N, random_state=0)
    square = np.floor(X / 2).astype(int)
    assert set(np.unique(square)) == {-2, -1, 0, 1}
    assert np.all(square.sum(axis=1) % 2 == 0)
    cells = (square + 2) @ [4, 1]
    assert_mean(cells[:, None] == np.unique(cells), 1 / 8)
    assert_mean(X - 2 * square, 1)
    assert_mean((X - 2 * square) ** 2, 4 / 3)


@pytest.mark.parametrize("name", TASKS)
def test_task_is_reproducible(name):
    first, second, other = (make_task(name, 50, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert np.shape(first) == (2, 50, 2) and not np.array_equal(first, other)


def test_source_and_target_do_not_share_their_random_numbers():
    X_source, X_target = make_task("moons", 50, random_state=0)
    from_the_same_seed = make_gaussian(50, random_state=0), make_moons(50, random_state=0)
    assert not np.array_equal([X_source, X_target], from_the_same_seed)


@pytest.mark.parametrize("name", TASKS)
def test_source_is_gaussian_except_where_the_name_says_otherwise(name):
    X_source, _ = make_task(name, N, random_state=0)
    assert_mean(X_source**2, 12.5 + 10**-0.5 if name == "8gaussians-moons" else 1)


def test_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match=r"swissroll.*8gaussians, 8gaussians-moons, moons"):
        make_task("swissroll", 10)


@pytest.fixture
def archive(tmp_path):
    """Write an archive of random images, with arrays replaced or (None) left out."""

    def write(shape=(4, 5, 3), **changes):
        rng = np.random.RandomState(0)
        arrays = {}
        for split, n in (("train", 7), ("test", 4)):
            arrays[f"x_{split}"] = rng.randint(256, size=(n, *shape)).astype(np.uint8)
            arrays[f"y_{split}"] = np.arange(n) % 3
        path = tmp_path / "images.npz"
        kept = {key: value for key, value in (arrays | changes).items() if value is not None}
        np.savez(path, **kept)
        return path, arrays

    return write


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_come_back_from_their_rows(archive, split):
    path, arrays = archive()
    images = load_images(path, split=split)
    assert images.image_shape == (3, 4, 5) and images.data.dtype == np.float32
    restored = images.data.reshape(-1, *images.image_shape).transpose(0, 2, 3, 1) * 255
    np.testing.assert_array_equal(np.rint(restored), arrays[f"x_{split}"])
    np.testing.assert_array_equal(images.target, arrays[f"y_{split}"])


def test_grey_images_have_one_channel(archive):
    path, arrays = archive(shape=(4, 5))
    images = load_images(path)
    assert images.image_shape == (1, 4, 5)
    np.testing.assert_array_equal(np.rint(images.data * 255), arrays["x_train"].reshape(7, 20))


def test_black_is_zero_and_white_is_one(archive):
    path, _ = archive(x_train=np.full((7, 2, 2), [[0, 255], [255, 0]], dtype=np.uint8))
    np.testing.assert_array_equal(load_images(path).data, np.tile([0.0, 1.0, 1.0, 0.0], (7, 1)))


def test_first_samples(archive):
    path, _ = archive()
    every, some = load_images(path), load_images(path, n_samples=2)
    np.testing.assert_array_equal(some.data, every.data[:2])
    np.testing.assert_array_equal(some.target, every.target[:2])
    np.testing.assert_array_equal(some.classes, every.classes)


def test_classes_are_the_names_if_there_are_any(archive):
    path, _ = archive()
    np.testing.assert_array_equal(load_images(path).classes, [0, 1, 2])
    path, _ = archive(classes=np.array(["cat", "dog", "owl"]))
    np.testing.assert_array_equal(load_images(path).classes, ["cat", "dog", "owl"])


@pytest.mark.parametrize(
    "changes, error, match",
    [
        ({"x_train": None}, KeyError, "has no 'x_train', only y_train, x_test, y_test"),
        ({"y_train": None}, KeyError, "has no 'y_train'"),
        ({"y_train": np.zeros(6)}, ValueError, r"7 images but labels of shape \(6,\)"),
        ({"y_train": np.zeros((7, 2))}, ValueError, r"labels of shape \(7, 2\)"),
        ({"x_train": np.zeros((7, 9), np.uint8)}, ValueError, r"of shape \(7, 9\)"),
        ({"x_train": np.zeros((7, 3, 8, 8), np.uint8)}, ValueError, r"of shape \(7, 3, 8, 8\)"),
        ({"x_train": np.zeros((7, 8, 8))}, ValueError, "must be uint8.*these are float64"),
        ({"classes": np.array(["a", None])}, ValueError, "allow_pickle"),
    ],
)
def test_archives_that_do_not_fit(archive, changes, error, match):
    path, _ = archive(**changes)
    with pytest.raises(error, match=match):
        load_images(path)


def test_bad_requests(archive, tmp_path):
    path, _ = archive()
    with pytest.raises(ValueError, match='"train" or "test", but it is \'valid\''):
        load_images(path, split="valid")
    with pytest.raises(ValueError, match="n_samples must be at most the 7"):
        load_images(path, n_samples=8)
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.npz.*numpy\.savez"):
        load_images(tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"text\.npz is not an npz archive"):
        load_images(tmp_path / "text.npz")
