"""Pictures of points, of their paths and of velocities, in two dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sknsgf._arguments import check_number, check_size, shown
from sknsgf.plotting._axes import INK, PALE, check_planar, check_range, equal_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    TypeError, ValueError
        If `X` is not finite numbers of shape (n_samples, 2), or `ax` no Axes.

    Examples
    --------
    >>> from sknsgf.datasets import make_moons
    >>> from sknsgf.plotting import plot_particles
    >>> ax = plot_particles(make_moons(random_state=0), label="target")
    """
    x, y = check_planar(X, "X", "n_samples").T
    ax = equal_axes(ax)
    style: dict[str, Any] = {"s": 7, "color": INK, "alpha": 0.6, "linewidths": 0}
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
    TypeError, ValueError
        If `states` is not finite numbers of shape (n_times, n_samples, 2), or `ax` no Axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf.datasets import make_gaussian
    >>> from sknsgf.plotting import plot_trajectories
    >>> start = make_gaussian(100, random_state=0)
    >>> ax = plot_trajectories([(1 + t) * start for t in np.linspace(0, 1, 11)])
    """
    from matplotlib.collections import LineCollection

    clouds = check_planar(states, "states", "n_times", "n_samples")
    ax = equal_axes(ax)
    style: dict[str, Any] = {"colors": PALE, "linewidths": 0.5, "alpha": 0.4, "zorder": 1}
    ax.add_collection(LineCollection(list(clouds.swapaxes(0, 1)), **style | kwargs))
    plot_particles(clouds[0], ax=ax, color=PALE, alpha=1, label="start", zorder=2)
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
    TypeError, ValueError
        If `velocity` is no function, or does not return finite numbers of shape (n, 2); if
        another argument is not as described.

    Examples
    --------
    >>> from sknsgf.plotting import plot_velocity_field
    >>> ax = plot_velocity_field(lambda t, X: -X, xlim=(-1, 1), ylim=(-1, 1))
    """
    if not callable(velocity):
        raise TypeError(f"velocity must be a function of t and X, got {shown(velocity)}.")
    check_number(t, "t")
    xlim, ylim = check_range(xlim, "xlim"), check_range(ylim, "ylim")
    spacing = max(np.ptp(xlim), np.ptp(ylim)) / check_size(n_grid, "n_grid")
    points = grid_points(xlim, ylim, spacing)
    v = check_planar(velocity(t, points), "velocity(t, X)", len(points))
    ax = equal_axes(ax)
    draw_arrows(ax, points, v, spacing, kwargs)
    return ax


def draw_arrows(
    ax: Axes,
    points: NDArray[np.float64],
    v: NDArray[np.float64],
    spacing: float,
    kwargs: dict[str, Any],
) -> Any:
    speed = np.linalg.norm(v, axis=1)
    arrows = 0.8 * spacing * v / np.where(speed > 0, speed, 1)[:, None]
    in_data_units: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
    style = in_data_units | {"pivot": "mid", "cmap": "viridis_r", "clim": (0, speed.max())}
    return ax.quiver(*points.T, *arrows.T, speed, **style | kwargs)


def grid_points(
    xlim: tuple[float, float], ylim: tuple[float, float], spacing: float
) -> NDArray[np.float64]:
    """Centres of the square cells that tile a rectangle, one a row."""
    xs, ys = (np.arange(low + spacing / 2, high, spacing) for low, high in (xlim, ylim))
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
