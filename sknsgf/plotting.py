"""Pictures of two-dimensional flows, of images in a grid, and of how networks were trained.

Every function draws on the `ax` it is given, or on the current one, and returns it.
Matplotlib is needed only here, and only when a function is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "plot_history",
    "plot_images",
    "plot_particles",
    "plot_trajectories",
    "plot_velocity_field",
]

_INK = "#1f4e79"
_PALE = "#8592a0"


def plot_particles(X: ArrayLike, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw a cloud of points.

    Parameters
    ----------
    X : array-like of shape (n_samples, 2)
        Points.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.scatter`, over the defaults of this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on, with equal scales.

    Raises
    ------
    ValueError
        If `X` is not of shape (n_samples, 2).

    Examples
    --------
    >>> from sknsgf.datasets import make_moons
    >>> from sknsgf.plotting import plot_particles
    >>> ax = plot_particles(make_moons(random_state=0), label="target")
    """
    x, y = _check_planar(X, "X", "n_samples").T
    ax = _equal_axes(ax)
    style: dict[str, Any] = {"s": 7, "color": _INK, "alpha": 0.6, "linewidths": 0}
    ax.scatter(x, y, **style | kwargs)
    return ax


def plot_trajectories(states: ArrayLike, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw the paths of particles, with their starts pale and their ends dark.

    Parameters
    ----------
    states : array-like of shape (n_times, n_samples, 2)
        Positions of the particles at successive times.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    **kwargs
        Passed to the :class:`matplotlib.collections.LineCollection` of paths, over the defaults
        of this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on, with equal scales; starts and ends are labelled for a legend.

    Raises
    ------
    ValueError
        If `states` is not of shape (n_times, n_samples, 2).

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf.datasets import make_gaussian
    >>> from sknsgf.plotting import plot_trajectories
    >>> start = make_gaussian(100, random_state=0)
    >>> ax = plot_trajectories([(1 + t) * start for t in np.linspace(0, 1, 11)])
    """
    from matplotlib.collections import LineCollection

    clouds = _check_planar(states, "states", "n_times", "n_samples")
    ax = _equal_axes(ax)
    style: dict[str, Any] = {"colors": _PALE, "linewidths": 0.5, "alpha": 0.4, "zorder": 1}
    ax.add_collection(LineCollection(list(clouds.swapaxes(0, 1)), **style | kwargs))
    plot_particles(clouds[0], ax=ax, color=_PALE, alpha=1, label="start", zorder=2)
    return plot_particles(clouds[-1], ax=ax, alpha=1, label="end", zorder=3)


def plot_velocity_field(
    velocity: Callable[[float, NDArray[np.float64]], ArrayLike],
    *,
    t: float = 0.0,
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    ax: Axes | None = None,
    n_grid: int = 24,
    **kwargs: Any,
) -> Axes:
    """Draw the direction of a velocity field as arrows and its speed as their colour.

    Parameters
    ----------
    velocity : callable
        ``velocity(t, X)`` gives the velocities, of shape (n, 2), of particles `X` of that shape.
    t : float, default=0.0
        Time at which to draw the field.
    xlim, ylim : tuple of two floats
        Where to draw it, in the units of the particles.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    n_grid : int, default=24
        Number of arrows along the longer side; both sides have the same spacing.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.quiver`, over the defaults of this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on, with equal scales. ``ax.figure.colorbar(ax.collections[-1])`` adds
        the scale of speeds.

    Raises
    ------
    ValueError
        If `velocity` does not return an array of shape (n, 2).

    Examples
    --------
    >>> from sknsgf.plotting import plot_velocity_field
    >>> ax = plot_velocity_field(lambda t, X: -X, xlim=(-1, 1), ylim=(-1, 1))
    """
    spacing = max(np.ptp(xlim), np.ptp(ylim)) / n_grid
    points = _grid(xlim, ylim, spacing)
    v = _check_planar(velocity(t, points), "velocity(t, X)", "n")
    speed = np.linalg.norm(v, axis=1)
    arrows = 0.8 * spacing * v / np.where(speed > 0, speed, 1)[:, None]
    in_data_units: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
    style = in_data_units | {"pivot": "mid", "cmap": "viridis_r", "clim": (0, speed.max())}
    ax = _equal_axes(ax)
    ax.quiver(*points.T, *arrows.T, speed, **style | kwargs)
    return ax


def plot_history(history: Any, *, ax: Axes | None = None, **kwargs: Any) -> Axes:
    """Draw how the loss fell during training.

    The loss of single batches is drawn pale and their running mean dark, on logarithmic scale;
    held-out losses, where there are any, are drawn as points, the lowest of them marked.

    Parameters
    ----------
    history : TrainingHistory or dict of str to TrainingHistory
        The `history_` of a fitted sampler; of a dict, each phase is drawn in its own colour.
    ax : matplotlib Axes or None, default=None
        Where to draw; None draws on the current Axes.
    **kwargs
        Passed to :meth:`matplotlib.axes.Axes.plot` for the running mean, over the defaults of
        this function.

    Returns
    -------
    matplotlib Axes
        The Axes drawn on.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.plotting import plot_history
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> flow = NSGFSampler(source="gaussian", max_iter=50, early_stopping=True).fit(X)
    >>> ax = plot_history(flow.history_)
    """
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    if isinstance(history, dict):
        for index, (name, phase) in enumerate(history.items()):
            _draw_losses(ax, phase, f"{name.replace('_', ' ')}: ", {"color": f"C{index}"} | kwargs)
    else:
        _draw_losses(ax, history, "", {"color": _INK} | kwargs)
    ax.set(xlabel="iteration", ylabel="loss", yscale="log")
    ax.legend()
    return ax


def _draw_losses(ax: Axes, history: Any, name: str, style: dict[str, Any]) -> None:
    iterations, losses = np.asarray(history.iter), np.asarray(history.loss, dtype=np.float64)
    ax.plot(iterations, losses, color=style["color"], alpha=0.2, linewidth=0.5)
    ax.plot(iterations, _running_mean(losses, len(losses) // 50), label=f"{name}batches", **style)
    if len(history.validation_iter):
        held_out = np.asarray(history.validation_iter), np.asarray(history.validation_loss)
        colour = style["color"] if name else "C1"
        ax.plot(*held_out, ".", color=colour, label=f"{name}held out")
        iteration, lowest = min(zip(*held_out, strict=True), key=lambda point: point[1])
        label = f"{name}lowest, {lowest:.3g}"
        ax.plot(iteration, lowest, "o", color=colour, fillstyle="none", label=label)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean over a window around every value, narrower at the ends."""
    total = np.concatenate([[0], np.cumsum(values)])
    index = np.arange(len(values))
    start, stop = np.maximum(index - width, 0), np.minimum(index + width + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)


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
        If rows are not images of that shape, channels are not one or three, or a value is not
        finite.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sknsgf.plotting import plot_images
    >>> ax = plot_images(load_digits().data[:100], (1, 8, 8), value_range=(0, 16))
    """
    images = _check_images(X, image_shape)
    low, high = (images.min(), images.max()) if value_range is None else value_range
    scaled = ((images - low) / (high - low if high > low else 1)).clip(0, 1)
    picture = _tiled(scaled, n_columns or math.ceil(len(scaled) ** 0.5))
    ax = _equal_axes(ax)
    ax.set_axis_off()
    style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(picture, **style | kwargs)
    return ax


def _check_images(X: ArrayLike, image_shape: Sequence[int]) -> NDArray[np.float64]:
    """Images of shape (n_samples, H, W, C) from rows."""
    shape, rows = tuple(image_shape), np.asarray(X, dtype=np.float64)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"image_shape must be (channels, height, width) with 1 or 3 channels, got {shape}."
        )
    if rows.ndim != 2 or not len(rows) or rows.shape[1] != math.prod(shape):
        raise ValueError(
            f"X must have shape (n_samples, {math.prod(shape)}), one image of shape {shape} a "
            f"row, but it has shape {rows.shape}."
        )
    if not np.isfinite(rows).all():
        raise ValueError("X holds NaN or infinity, which no picture can show.")
    return np.moveaxis(rows.reshape(-1, *shape), 1, -1)


def _tiled(images: NDArray[np.float64], n_columns: int) -> NDArray[np.float64]:
    """Put images next to and below each other, a grey line between them, blanks at the end."""
    n, height, width, channels = images.shape
    n_rows = math.ceil(n / n_columns)
    tiles = np.full((n_rows * n_columns, height + 1, width + 1, channels), 0.5)
    tiles[:n, :-1, :-1] = images
    tiles = tiles.reshape(n_rows, n_columns, height + 1, width + 1, channels)
    return tiles.swapaxes(1, 2).reshape(n_rows * (height + 1), -1, channels)[:-1, :-1]


def _check_planar(array: ArrayLike, name: str, *axes: str) -> NDArray[np.float64]:
    checked = np.asarray(array, dtype=np.float64)
    if checked.ndim != len(axes) + 1 or checked.shape[-1] != 2:
        raise ValueError(
            f"{name} must have shape ({', '.join(axes)}, 2), but it has shape {checked.shape}; "
            "choose two columns or project to two dimensions first."
        )
    return checked


def _grid(
    xlim: tuple[float, float], ylim: tuple[float, float], spacing: float
) -> NDArray[np.float64]:
    """Centres of the square cells that tile a rectangle, one a row."""
    xs, ys = (np.arange(low + spacing / 2, high, spacing) for low, high in (xlim, ylim))
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def _equal_axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.set_aspect("equal")
    return ax
