"""Images in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sknsgf.plotting._axes import equal_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_images(
    X: ArrayLike,
    image_shape: Sequence[int],
    *,
    value_range: tuple[float, float] | None = None,
    n_columns: int | None = None,
    ax: Axes | None = None,
    **kwargs: Any,
) -> Axes:
    """Draw images, one a row of `X`, as a grid.

    Parameters
    ----------
    X : array-like of shape (n_samples, C * H * W)
        Images as rows, channel first.
    image_shape : tuple of three int
        Channels, height and width (C, H, W), with one channel (grey) or three (red, green,
        blue).
    value_range : tuple of two floats, default=None
        The values drawn as black and as full brightness; what lies outside is drawn as the
        nearer of them. None takes the least and greatest value of `X`, so that nothing is
        clipped; give the range of the real data to compare pictures.
    n_columns : int, default=None
        Images side by side. None draws about as many as there are below each other.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.imshow`, over the defaults of this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on, without ticks or frame.

    Raises
    ------
    ValueError
        If rows are not images of that shape, channels are not one or three, a value is not
        finite, `value_range` is not a lower and a higher number, or `n_columns` is no positive
        integer.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknsgf.plotting import plot_images
    >>> ax = plot_images(load_digits().data[:100], (1, 8, 8), value_range=(0, 16))
    """
    images = _check_images(X, image_shape)
    low, high = _find_range(images, value_range)
    scaled = ((images - low) / (high - low if high > low else 1)).clip(0, 1)
    n_columns = math.ceil(len(scaled) ** 0.5) if n_columns is None else n_columns
    if not _is_size(n_columns):
        raise ValueError(f"n_columns must be a positive integer or None, got {n_columns!r}.")
    picture = _tiled(scaled, n_columns)
    ax = equal_axes(ax)
    ax.set_axis_off()
    style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(picture, **style | kwargs)
    return ax


def _check_images(X: ArrayLike, image_shape: Sequence[int]) -> NDArray[np.float64]:
    """Images of shape (n_samples, H, W, C) from rows."""
    shape = tuple(image_shape) if np.iterable(image_shape) else ()
    if len(shape) != 3 or not all(map(_is_size, shape)) or shape[0] not in (1, 3):
        raise ValueError(
            "image_shape must be (channels, height, width), positive integers, with 1 or 3 "
            f"channels, got {image_shape!r}."
        )
    rows = np.asarray(X, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != math.prod(shape):
        raise ValueError(
            f"X must have shape (n_samples, {math.prod(shape)}), one image of shape {shape} a "
            f"row, but it has shape {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise ValueError("X holds NaN or infinity, which no picture can show.")
    return np.moveaxis(rows.reshape(-1, *shape), 1, -1)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def _find_range(images: NDArray[np.float64], value_range: Any) -> tuple[float, float]:
    if value_range is None:
        return float(images.min()), float(images.max())
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"value_range must be two finite numbers, the lower one first, got {value_range!r}."
        )
    return low, high


def _tiled(images: NDArray[np.float64], n_columns: int) -> NDArray[np.float64]:
    """Put images next to and below each other, a grey line between them, blanks at the end."""
    n, height, width, channels = images.shape
    n_rows = math.ceil(n / n_columns)
    tiles = np.full((n_rows * n_columns, height + 1, width + 1, channels), 0.5)
    tiles[:n, :-1, :-1] = images
    tiles = tiles.reshape(n_rows, n_columns, height + 1, width + 1, channels)
    return tiles.swapaxes(1, 2).reshape(n_rows * (height + 1), -1, channels)[:-1, :-1]
