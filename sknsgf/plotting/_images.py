"""Images in a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sknsgf._arguments import check_size, shown
from sknsgf._arrays import check_floats
from sknsgf.plotting._axes import check_range, equal_axes

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
    TypeError, ValueError
        If rows are not images of that shape, channels are not one or three, a value is no finite
        number, `value_range` is not a lower and a higher number, `n_columns` is no positive
        integer, or `ax` no Axes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknsgf.plotting import plot_images
    >>> ax = plot_images(load_digits().data[:100], (1, 8, 8), value_range=(0, 16))
    """
    shape = tuple(image_shape) if np.iterable(image_shape) else ()
    try:
        channels, *_ = shape = tuple(check_size(size, "image_shape") for size in shape)
    except ValueError:
        channels = 0
    if len(shape) != 3 or channels not in (1, 3):
        raise ValueError(
            "image_shape must be (channels, height, width), positive integers, with 1 or 3 "
            f"channels, got {shown(image_shape)}."
        )
    hint = f"one image of shape {shape} a row"
    rows = check_floats(X, "X", ("n_samples", math.prod(shape)), hint=hint).astype(np.float64)
    images = np.moveaxis(rows.reshape(-1, *shape), 1, -1)
    low, high = float(images.min()), float(images.max())
    if value_range is not None:
        low, high = check_range(value_range, "value_range")
    scaled = ((images - low) / (high - low if high > low else 1)).clip(0, 1)
    n_columns = math.ceil(len(scaled) ** 0.5) if n_columns is None else n_columns
    # Next to and below each other, a grey line between them, blanks at the end.
    n, height, width, channels = scaled.shape
    n_rows = math.ceil(n / check_size(n_columns, "n_columns"))
    tiles = np.full((n_rows * n_columns, height + 1, width + 1, channels), 0.5)
    tiles[:n, :-1, :-1] = scaled
    tiles = tiles.reshape(n_rows, n_columns, height + 1, width + 1, channels)
    picture = tiles.swapaxes(1, 2).reshape(n_rows * (height + 1), -1, channels)[:-1, :-1]
    ax = equal_axes(ax)
    ax.set_axis_off()
    style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(picture, **style | kwargs)
    return ax
