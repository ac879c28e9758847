"""Data to flow between: the usual two-dimensional tasks, and images from a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import Bunch

from sknsgf._arguments import check_path, check_size, shown
from sknsgf._random import as_random_state

__all__ = [
    "TASKS",
    "load_images",
    "make_8gaussians",
    "make_checkerboard",
    "make_gaussian",
    "make_moons",
    "make_s_curve",
    "make_task",
]


def make_gaussian(
    n_samples: int = 1000, *, n_features: int = 2, random_state: int | RandomState | None = None
) -> NDArray[np.float64]:
    """Draw from the standard normal distribution, the usual source.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    n_features : int, default=2
        Number of columns.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        Points with mean 0 and unit variance in each column.

    Raises
    ------
    ValueError
        If `n_samples` or `n_features` is not a positive integer, or `random_state` no seed.

    Examples
    --------
    >>> from sknsgf.datasets import make_gaussian
    >>> make_gaussian(5, n_features=3, random_state=0).shape
    (5, 3)
    """
    check_size(n_features, "n_features")
    rng = _start(n_samples, random_state)
    return rng.standard_normal((n_samples, n_features))


def make_8gaussians(
    n_samples: int = 1000, *, random_state: int | RandomState | None = None
) -> NDArray[np.float64]:
    r"""Draw from eight Gaussians evenly spaced on a circle of radius 5.

    .. math:: 5\,(\cos\tfrac{k\pi}{4}, \sin\tfrac{k\pi}{4}) + 10^{-1/4} z,
              \quad k \sim U\{0, \dots, 7\}, \; z \sim N(0, I)

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    ndarray of shape (n_samples, 2)
        Points, independent draws.

    Raises
    ------
    ValueError
        If `n_samples` is not a positive integer, or `random_state` no seed.

    Examples
    --------
    >>> from sknsgf.datasets import make_8gaussians
    >>> make_8gaussians(5, random_state=0).shape
    (5, 2)
    """
    rng = _start(n_samples, random_state)
    angle = rng.randint(8, size=n_samples) * np.pi / 4
    noise = 10**-0.25 * rng.standard_normal((n_samples, 2))
    return 5 * np.column_stack([np.cos(angle), np.sin(angle)]) + noise


def make_moons(
    n_samples: int = 1000, *, random_state: int | RandomState | None = None
) -> NDArray[np.float64]:
    r"""Draw from two interleaved half circles, smeared along the diagonal.

    .. math:: 3\,(m + 0.2\,u'\,(1, 1)) - 1, \quad
              m = (\cos a, \sin a) \text{ or } (1 - \cos a, \tfrac12 - \sin a)
              \text{ with equal odds}, \; a = \pi u

    where :math:`u, u'` are uniform on [0, 1].

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    ndarray of shape (n_samples, 2)
        Points, independent draws.

    Raises
    ------
    ValueError
        If `n_samples` is not a positive integer, or `random_state` no seed.

    See Also
    --------
    sklearn.datasets.make_moons : Half circles of another size and with another noise.

    Examples
    --------
    >>> from sknsgf.datasets import make_moons
    >>> make_moons(5, random_state=0).shape
    (5, 2)
    """
    rng = _start(n_samples, random_state)
    upper = rng.randint(2, size=(n_samples, 1)) == 1
    angle = np.pi * rng.uniform(size=n_samples)
    cos, sin = np.cos(angle), np.sin(angle)
    arc = np.where(upper, np.column_stack([cos, sin]), np.column_stack([1 - cos, 0.5 - sin]))
    return 3 * (arc + 0.2 * rng.uniform(size=(n_samples, 1))) - 1


def make_s_curve(
    n_samples: int = 1000, *, random_state: int | RandomState | None = None
) -> NDArray[np.float64]:
    r"""Draw from an S made of two three-quarter circles of radius 1.5, with Gaussian noise.

    .. math:: 1.5\,\bigl((\sin t, \operatorname{sign}(t)(\cos t - 1)) + 0.05\,z\bigr), \quad
              t = 3\pi(u - \tfrac12), \; z \sim N(0, I)

    where :math:`u` is uniform on [0, 1].

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    ndarray of shape (n_samples, 2)
        Points, independent draws.

    Raises
    ------
    ValueError
        If `n_samples` is not a positive integer, or `random_state` no seed.

    Examples
    --------
    >>> from sknsgf.datasets import make_s_curve
    >>> make_s_curve(5, random_state=0).shape
    (5, 2)
    """
    rng = _start(n_samples, random_state)
    t = 3 * np.pi * (rng.uniform(size=n_samples) - 0.5)
    curve = np.column_stack([np.sin(t), np.sign(t) * (np.cos(t) - 1)])
    return 1.5 * (curve + 0.05 * rng.standard_normal((n_samples, 2)))


def make_checkerboard(
    n_samples: int = 1000, *, random_state: int | RandomState | None = None
) -> NDArray[np.float64]:
    r"""Draw uniformly from the dark squares of a 4 × 4 board on [-4, 4]².

    .. math:: 2\,\bigl(x_1, \; u' - 2b + (\lfloor x_1 \rfloor \bmod 2)\bigr), \quad x_1 = 4u - 2

    where :math:`u, u'` are uniform on [0, 1] and :math:`b` is a fair bit.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of points.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    ndarray of shape (n_samples, 2)
        Points, independent draws.

    Raises
    ------
    ValueError
        If `n_samples` is not a positive integer, or `random_state` no seed.

    Examples
    --------
    >>> from sknsgf.datasets import make_checkerboard
    >>> make_checkerboard(5, random_state=0).shape
    (5, 2)
    """
    rng = _start(n_samples, random_state)
    column = 4 * rng.uniform(size=n_samples) - 2
    row = rng.uniform(size=n_samples) - 2 * rng.randint(2, size=n_samples)
    return 2 * np.column_stack([column, row + np.floor(column) % 2])


_TASKS: dict[str, tuple[Callable[..., NDArray[np.float64]], ...]] = {
    "8gaussians": (make_gaussian, make_8gaussians),
    "8gaussians-moons": (make_8gaussians, make_moons),
    "moons": (make_gaussian, make_moons),
    "s-curve": (make_gaussian, make_s_curve),
    "checkerboard": (make_gaussian, make_checkerboard),
}

TASKS = tuple(_TASKS)
"""Names that :func:`make_task` knows."""


def make_task(
    name: str, n_samples: int = 1000, *, random_state: int | RandomState | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw source and target of one of the two-dimensional benchmark tasks.

    Parameters
    ----------
    name : {"8gaussians", "8gaussians-moons", "moons", "s-curve", "checkerboard"}
        The target, reached from the standard normal distribution, or "source-target".
    n_samples : int, default=1000
        Number of points in each cloud.
    random_state : int, RandomState instance or None, default=None
        Where the randomness comes from; an int gives the same points at each call.

    Returns
    -------
    X_source : ndarray of shape (n_samples, 2)
        Points to move.
    X_target : ndarray of shape (n_samples, 2)
        Points to reach, independent of the source.

    Raises
    ------
    ValueError
        If there is no task of that name, `n_samples` is not a positive integer, or `random_state`
        no seed.

    Examples
    --------
    >>> from sknsgf.datasets import make_task
    >>> X_source, X_target = make_task("moons", 500, random_state=0)
    >>> X_source.shape, X_target.shape
    ((500, 2), (500, 2))
    """
    if not isinstance(name, str) or name not in TASKS:
        raise ValueError(f"name is {shown(name)}; there are the tasks {', '.join(TASKS)}.")
    rng = as_random_state(random_state)
    make_source, make_target = _TASKS[name]
    return make_source(n_samples, random_state=rng), make_target(n_samples, random_state=rng)


def load_images(
    path: str | os.PathLike[str], *, split: str = "train", n_samples: int | None = None
) -> Bunch:
    """Read images as flat rows from an npz archive.

    Parameters
    ----------
    path : path-like
        An archive with `x_train`, `y_train`, `x_test` and `y_test`: images as uint8 of shape
        (n, H, W), or (n, H, W, C) with 1, 3 or 4 channels, and integer labels of shape (n,);
        and optionally `classes`, the names of the labels. Pickled objects are never read.
    split : {"train", "test"}, default="train"
        Which part to read.
    n_samples : int or None, default=None
        Read only the first `n_samples` images; None reads all.

    Returns
    -------
    Bunch
        With the attributes

        data : float32 ndarray of shape (n_samples, C * H * W)
            One image a row, channel first, from 0 (black) to 1.
        target : ndarray of shape (n_samples,)
            Labels.
        image_shape : tuple (C, H, W)
            What ``data[i].reshape(image_shape)`` needs, and the samplers too.
        classes : ndarray of shape (n_classes,)
            Name of each label; the labels themselves if the archive has no names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the archive lacks the images or labels of the split.
    TypeError
        If `path` is no path.
    ValueError
        If the file is no npz archive or damaged, or `split`, `n_samples` or a stored array is not
        as described above.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from sknsgf.datasets import load_images
    >>> images, labels = np.zeros((2, 8, 8, 3), dtype=np.uint8), np.array([0, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "images.npz"
    ...     np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    ...     digits = load_images(path)
    >>> digits.data.shape, digits.image_shape
    ((2, 192), (3, 8, 8))
    """
    if not isinstance(split, str) or split not in ("train", "test"):
        raise ValueError(f'split must be "train" or "test", but it is {shown(split)}.')
    arrays = _read_arrays(check_path(path), f"x_{split}", f"y_{split}")
    images, target = arrays[f"x_{split}"], arrays[f"y_{split}"]
    _check_images(images, target)
    classes = arrays.get("classes", np.unique(target))
    if n_samples is not None and check_size(n_samples, "n_samples") > len(images):
        raise ValueError(
            f"n_samples must be at most the {len(images)} there are, got {n_samples}."
        )
    n, height, width, *_ = images[:n_samples].shape
    channel_first = np.moveaxis(images[:n_samples].reshape(n, height, width, -1), -1, 1)
    data = channel_first.reshape(n, -1).astype(np.float32)
    data /= 255
    return Bunch(
        data=data,
        target=target[:n_samples],
        image_shape=channel_first.shape[1:],
        classes=classes,
    )


def _start(n_samples: int, random_state: int | RandomState | None) -> RandomState:
    check_size(n_samples, "n_samples")
    return as_random_state(random_state)


def _read_arrays(path: Path, *required: str) -> dict[str, NDArray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Expected an archive written with "
            "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    if not is_zipfile(path):
        raise ValueError(f"{path} is not an npz archive; write it with numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            arrays = {key: archive[key] for key in (*required, "classes") if key in names}
    except Exception as error:  # of damaged archives there are many
        raise ValueError(f"{path} cannot be read: {error}. Write it with numpy.savez.") from error
    for key in required:
        if key not in arrays:
            raise KeyError(f"{path} has no {key!r}, only {', '.join(names)}.")
    return arrays


def _check_images(images: NDArray, target: NDArray) -> None:
    has_image_shape = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    if not has_image_shape or images.dtype != np.uint8:
        raise ValueError(
            "Images must be uint8 of shape (n, H, W), or (n, H, W, C) with 1, 3 or 4 channels, "
            f"but these are {images.dtype} of shape {images.shape}; convert them before saving."
        )
    if target.shape != images.shape[:1]:
        raise ValueError(
            f"There are {len(images)} images but labels of shape {target.shape}; "
            f"save one label per image, an array of shape ({len(images)},)."
        )
