"""Pictures of two-dimensional flows, of images in a grid, and of how networks were trained.

Every function draws on the `ax` it is given, or on the current one, and returns it. The display
classes follow scikit-learn's: ``FlowDisplay.from_estimator(flow, X)``.
Matplotlib is needed only here, and only when a function is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FlowDisplay",
    "SwitchTimeDisplay",
    "VelocityFieldDisplay",
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
    ax = _equal_axes(ax)
    _draw_arrows(ax, points, v, spacing, kwargs)
    return ax


def _draw_arrows(
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
    ax = _equal_axes(ax)
    ax.set_axis_off()
    style: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    ax.imshow(picture, **style | kwargs)
    return ax


class FlowDisplay:
    """Paths of points along a flow.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`, which also draw it; `plot`
    draws it again.

    Parameters
    ----------
    states : ndarray of shape (n_times, n_samples, 2)
        Positions at successive times.
    feature_names : tuple of two str
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Figure drawn on.
    paths_ : matplotlib LineCollection
        One line a point.
    start_, end_ : matplotlib PathCollection
        The points at the first and at the last time.

    See Also
    --------
    plot_trajectories : The same for an array.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.plotting import FlowDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> flow = NSGFSampler(max_iter=50).fit(X, X + 5)
    >>> display = FlowDisplay.from_estimator(flow, X)
    """

    def __init__(self, states: NDArray[np.float64], *, feature_names: tuple[str, str] = ("", "")):
        self.states = states
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        features: Sequence[int | str] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> FlowDisplay:
        """Draw the paths along which a fitted sampler moves points.

        Parameters
        ----------
        estimator : NSGFSampler or NSGFPlusPlus
            Fitted sampler.
        X : array-like of shape (n_samples, n_features)
            Points of the source; a few hundred make a clear picture.
        features : pair of int or str, default=None
            The two columns to draw, by number or name. None takes the only two there are.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to the :class:`matplotlib.collections.LineCollection` of paths.

        Returns
        -------
        FlowDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If `features` are not two columns of `X`, or are needed and not given.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> from sknsgf.plotting import FlowDisplay
        >>> X = np.random.default_rng(0).normal(size=(100, 3))
        >>> flow = NSGFSampler(max_iter=50).fit(X, X + 5)
        >>> display = FlowDisplay.from_estimator(flow, X, features=(0, 2))
        """
        pair, names = _two_features(estimator, features)
        states = estimator.trajectory(X).states[..., pair]
        return cls(states, feature_names=names).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, states: ArrayLike, *, ax: Axes | None = None, **kwargs: Any
    ) -> FlowDisplay:
        """Draw paths that are known.

        Parameters
        ----------
        states : array-like of shape (n_times, n_samples, 2)
            Positions at successive times, as in ``trajectory(X).states``.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to the :class:`matplotlib.collections.LineCollection` of paths.

        Returns
        -------
        FlowDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If `states` is not of that shape.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf.plotting import FlowDisplay
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> display = FlowDisplay.from_predictions([X, X + 1, X + 3])
        """
        return cls(_check_planar(states, "states", "n_times", "n_samples")).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> FlowDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to the :class:`matplotlib.collections.LineCollection` of paths.

        Returns
        -------
        FlowDisplay
            Itself.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf.plotting import FlowDisplay
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> display = FlowDisplay(np.stack([X, X + 1])).plot(alpha=1)
        """
        self.ax_ = plot_trajectories(self.states, ax=_new_axes(ax), **kwargs)
        self.figure_ = self.ax_.figure
        self.paths_, self.start_, self.end_ = self.ax_.collections[-3:]
        self.ax_.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])
        self.ax_.legend()
        return self


class VelocityFieldDisplay:
    """A velocity field at one time, as arrows coloured by speed.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`, which also draw it; `plot`
    draws it again.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
        Where the arrows are.
    velocities : ndarray of shape (n_points, 2)
        Velocities there.
    feature_names : tuple of two str
        Labels of the axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Figure drawn on.
    quiver_ : matplotlib Quiver
        The arrows.
    colorbar_ : matplotlib Colorbar
        The scale of speeds.

    See Also
    --------
    plot_velocity_field : The same for a function.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.plotting import VelocityFieldDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> flow = NSGFSampler(max_iter=50).fit(X, X + 5)
    >>> display = VelocityFieldDisplay.from_estimator(flow, X, t=0.5)
    """

    def __init__(
        self,
        points: NDArray[np.float64],
        velocities: NDArray[np.float64],
        *,
        feature_names: tuple[str, str] = ("", ""),
    ):
        self.points = points
        self.velocities = velocities
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        t: float = 0.0,
        features: Sequence[int | str] | None = None,
        n_grid: int = 24,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> VelocityFieldDisplay:
        """Draw the velocity field of a fitted sampler.

        Parameters
        ----------
        estimator : NSGFSampler
            Fitted sampler; of an NSGFPlusPlus its `sinkhorn_flow_`.
        X : array-like of shape (n_samples, n_features)
            Points whose range is drawn.
        t : float, default=0.0
            Time.
        features : pair of int or str, default=None
            The two columns to draw, by number or name; all others stay at their means in `X`,
            and what moves along them is not seen. None takes the only two there are.
        n_grid : int, default=24
            Arrows along the longer side.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.quiver`.

        Returns
        -------
        VelocityFieldDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If `features` are not two columns of `X`, or are needed and not given.
        TypeError
            If the estimator has no velocity field.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFSampler
        >>> from sknsgf.plotting import VelocityFieldDisplay
        >>> X = np.random.default_rng(0).normal(size=(100, 3))
        >>> flow = NSGFSampler(max_iter=50).fit(X, X + 5)
        >>> display = VelocityFieldDisplay.from_estimator(flow, X, features=(0, 2), n_grid=12)
        """
        if not hasattr(estimator, "velocity"):
            raise TypeError(
                f"{type(estimator).__name__} has no velocity field of its own; draw one of its "
                "phases, as its sinkhorn_flow_."
            )
        pair, names = _two_features(estimator, features)
        rows = np.asarray(X, dtype=np.float64)
        low, high = rows[:, pair].min(axis=0), rows[:, pair].max(axis=0)
        xlim, ylim = zip(low, high, strict=True)
        grid = _grid(xlim, ylim, (high - low).max() / n_grid)
        full: Any = np.tile(rows.mean(axis=0), (len(grid), 1))
        full[:, pair] = grid
        if hasattr(X, "columns"):  # the sampler knows them by name
            full = cast(Any, type(X))(dict(zip(X.columns, full.T, strict=True)))
        velocities = np.asarray(estimator.velocity(t, full))[:, pair]
        return cls(grid, velocities, feature_names=names).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, points: ArrayLike, velocities: ArrayLike, *, ax: Axes | None = None, **kwargs: Any
    ) -> VelocityFieldDisplay:
        """Draw velocities that are known.

        Parameters
        ----------
        points : array-like of shape (n_points, 2)
            Where the arrows are.
        velocities : array-like of shape (n_points, 2)
            Velocities there.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.quiver`.

        Returns
        -------
        VelocityFieldDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If the arrays are not of that shape.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf.plotting import VelocityFieldDisplay
        >>> points = np.random.default_rng(0).normal(size=(100, 2))
        >>> display = VelocityFieldDisplay.from_predictions(points, -points)
        """
        at, v = _check_planar(points, "points", "n"), _check_planar(velocities, "velocities", "n")
        if len(at) != len(v):
            raise ValueError(f"There are {len(at)} points but {len(v)} velocities.")
        return cls(at, v).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> VelocityFieldDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.quiver`.

        Returns
        -------
        VelocityFieldDisplay
            Itself.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf.plotting import VelocityFieldDisplay
        >>> points = np.random.default_rng(0).normal(size=(100, 2))
        >>> display = VelocityFieldDisplay(points, -points).plot(cmap="magma")
        """
        self.ax_ = _equal_axes(_new_axes(ax))
        self.figure_ = self.ax_.figure
        area = np.ptp(self.points, axis=0).prod()
        spacing = np.sqrt(area / max(1, len(self.points)))
        self.quiver_ = _draw_arrows(self.ax_, self.points, self.velocities, spacing, kwargs)
        self.colorbar_ = self.figure_.colorbar(self.quiver_, ax=self.ax_, label="speed")
        self.ax_.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])
        return self


class SwitchTimeDisplay:
    """When points enter a straight flow that starts at the source, as a histogram.

    Make it with :meth:`from_estimator` or :meth:`from_predictions`, which also draw it; `plot`
    draws it again.

    Parameters
    ----------
    switch_times : ndarray of shape (n_points,)
        Times, in [0, 1].
    t_end : float or None
        Where the first phase ends, marked by a line.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes drawn on.
    figure_ : matplotlib Figure
        Figure drawn on.
    bars_ : matplotlib BarContainer
        The histogram.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFPlusPlus
    >>> from sknsgf.plotting import SwitchTimeDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = NSGFPlusPlus(straight_from="source", source="gaussian", max_iter=50).fit(X)
    >>> display = SwitchTimeDisplay.from_estimator(model)
    """

    def __init__(self, switch_times: NDArray[np.float64], *, t_end: float | None = None):
        self.switch_times = switch_times
        self.t_end = t_end

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Axes | None = None, **kwargs: Any
    ) -> SwitchTimeDisplay:
        """Draw the switch times that a fitted NSGFPlusPlus has measured.

        Parameters
        ----------
        estimator : NSGFPlusPlus
            Fitted with ``straight_from="source"``.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.hist`.

        Returns
        -------
        SwitchTimeDisplay
            What was drawn.

        Raises
        ------
        TypeError
            If the estimator has no switch times, or all of them are 0 because its straight
            flow starts where the first phase ends.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf import NSGFPlusPlus
        >>> from sknsgf.plotting import SwitchTimeDisplay
        >>> X = np.random.default_rng(0).normal(size=(100, 4))
        >>> model = NSGFPlusPlus(straight_from="source", source="gaussian", max_iter=50).fit(X)
        >>> display = SwitchTimeDisplay.from_estimator(model, bins=20)
        """
        if not hasattr(estimator, "switch_time_"):
            raise TypeError(
                f"{type(estimator).__name__} has no switch times: pass a fitted NSGFPlusPlus."
            )
        if not estimator.switch_time_.any():
            raise TypeError(
                "Every point enters this straight flow at its start, where the first phase ends: "
                'fit NSGFPlusPlus(straight_from="source") to have switch times.'
            )
        t_end = estimator.sinkhorn_flow_.t_end
        times = np.asarray(estimator.switch_time_, dtype=np.float64)
        return cls(times, t_end=t_end).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, switch_times: ArrayLike, *, ax: Axes | None = None, **kwargs: Any
    ) -> SwitchTimeDisplay:
        """Draw switch times that are known.

        Parameters
        ----------
        switch_times : array-like of shape (n_points,)
            Times, in [0, 1].
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.hist`.

        Returns
        -------
        SwitchTimeDisplay
            What was drawn.

        Raises
        ------
        ValueError
            If they are not one-dimensional or not in [0, 1].

        Examples
        --------
        >>> from sknsgf.plotting import SwitchTimeDisplay
        >>> display = SwitchTimeDisplay.from_predictions([0.4, 0.5, 0.5, 0.6])
        """
        times = np.asarray(switch_times, dtype=np.float64)
        if times.ndim != 1 or not ((times >= 0) & (times <= 1)).all():
            raise ValueError(
                f"switch_times must be one-dimensional and in [0, 1], got shape {times.shape}."
            )
        return cls(times).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> SwitchTimeDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to :meth:`matplotlib.axes.Axes.hist`.

        Returns
        -------
        SwitchTimeDisplay
            Itself.

        Examples
        --------
        >>> import numpy as np
        >>> from sknsgf.plotting import SwitchTimeDisplay
        >>> display = SwitchTimeDisplay(np.array([0.4, 0.5]), t_end=0.5).plot(bins=10)
        """
        self.ax_ = _new_axes(ax)
        self.figure_ = self.ax_.figure
        style: dict[str, Any] = {"bins": 50, "range": (0, 1), "color": _INK}
        *_, self.bars_ = self.ax_.hist(self.switch_times, **style | kwargs)
        if self.t_end is not None:
            label = f"end of the first phase, t = {self.t_end:g}"
            self.ax_.axvline(self.t_end, color="C1", linestyle="--", label=label)
            self.ax_.legend(loc="lower right", bbox_to_anchor=(1, 1))
        self.ax_.set(xlabel="switch time", ylabel="points", xlim=(0, 1))
        return self


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


def _two_features(
    estimator: Any, features: Sequence[int | str] | None
) -> tuple[list[int], tuple[str, str]]:
    """Return the numbers and the names of the two columns to draw."""
    n_features = estimator.n_features_in_
    known = list(getattr(estimator, "feature_names_in_", []))
    if features is None and n_features != 2:
        raise ValueError(
            f"The sampler has {n_features} features and a picture two: choose them by "
            "features=(0, 1), or by their names."
        )
    chosen: list[Any] = [0, 1] if features is None else list(features)
    numbers = [known.index(f) if isinstance(f, str) and f in known else f for f in chosen]
    if len(numbers) != 2 or not all(n in range(n_features) for n in numbers):
        raise ValueError(
            f"features must be two of the {n_features} columns, by number or name; got "
            f"{features!r}."
        )
    first, second = (known[n] if known else f"feature {n}" for n in numbers)
    return numbers, (first, second)


def _new_axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.figure(layout="constrained").add_subplot() if ax is None else ax


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
