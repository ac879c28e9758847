"""Displays in the manner of scikit-learn: made from a fitted sampler, drawn again by `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from sknsgf._arguments import check_share, check_size, shown
from sknsgf._arrays import check_floats, check_rows, column_names
from sknsgf.plotting._axes import INK, check_planar, current_axes, equal_axes
from sknsgf.plotting._clouds import draw_arrows, grid_points, plot_trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class Display:
    """What all displays share: where they draw, and that they can draw again."""

    ax_: Axes
    figure_: Figure | SubFigure

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs
            Passed to Matplotlib, to the method or class that the display names.

        Returns
        -------
        Display
            Itself.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            self.ax_ = plt.figure(layout="constrained").add_subplot()
        else:
            self.ax_ = current_axes(ax)
        self.figure_ = self.ax_.figure
        self._draw(kwargs)
        return self

    def _draw(self, kwargs: dict[str, Any]) -> None:
        """Draw on `ax_` and keep what was drawn."""
        raise NotImplementedError


class FlowDisplay(Display):
    """Paths of points along a flow.

    :meth:`from_estimator` and :meth:`from_predictions` make it and draw it; :meth:`plot` draws
    it again. Keywords go to the :class:`matplotlib.collections.LineCollection` of paths.

    Parameters
    ----------
    states : ndarray of shape (n_times, n_samples, 2)
        Positions at successive times.
    feature_names : tuple of two str
        Labels of the axes.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Drawn on.
    paths_ : matplotlib LineCollection
        One line a point.
    start_, end_ : matplotlib PathCollection
        The points at the first and at the last time.

    Raises
    ------
    TypeError, ValueError
        If something given cannot be drawn: what is no number, not finite or of another shape.

    See Also
    --------
    plot_trajectories : The same for an array.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFSampler
    >>> from sknsgf.plotting import FlowDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> flow = NSGFSampler(max_iter=50).fit(X, X + 5)
    >>> display = FlowDisplay.from_estimator(flow, X, features=(0, 2)).plot(alpha=1)
    >>> display = FlowDisplay.from_predictions([X[:, :2], X[:, :2] + 1, X[:, :2] + 3])
    """

    def __init__(self, states: ArrayLike, *, feature_names: tuple[str, str] = ("", "")):
        self.states = check_planar(states, "states", "n_times", "n_samples")
        self.feature_names = _checked_names(feature_names)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        features: Sequence[int | str] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the paths along which a fitted sampler moves points.

        Parameters
        ----------
        estimator : NSGFSampler or NSGFPlusPlus
            Fitted sampler.
        X : array-like of shape (n_samples, n_features)
            Points of the source; a few hundred make a clear picture.
        features : pair of int or str, default=None
            The two columns to draw, by number or name. None takes the only two there are.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        FlowDisplay
            What was drawn.

        Raises
        ------
        NotFittedError
            If the estimator has not been fitted.
        TypeError, ValueError
            If the estimator is no sampler, `features` are not two columns of `X`, or are needed
            and not given; if another argument cannot be used.
        """
        pair, names = _two_features(estimator, features)
        states = estimator.trajectory(X).states[..., pair]
        return cls(states, feature_names=names).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, states: ArrayLike, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw paths that are known.

        Parameters
        ----------
        states : array-like of shape (n_times, n_samples, 2)
            Positions at successive times, as in ``trajectory(X).states``.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        FlowDisplay
            What was drawn.

        Raises
        ------
        TypeError, ValueError
            If `states` is not finite numbers of that shape, or `ax` no Axes.
        """
        return cls(states).plot(ax=ax, **kwargs)

    def _draw(self, kwargs: dict[str, Any]) -> None:
        plot_trajectories(self.states, ax=self.ax_, **kwargs)
        self.paths_, self.start_, self.end_ = self.ax_.collections[-3:]
        self.ax_.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])
        self.ax_.legend()


class VelocityFieldDisplay(Display):
    """A velocity field at one time, as arrows coloured by speed.

    :meth:`from_estimator` and :meth:`from_predictions` make it and draw it; :meth:`plot` draws
    it again. Keywords go to :meth:`matplotlib.axes.Axes.quiver`.

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
    ax_, figure_ : matplotlib Axes and Figure
        Drawn on.
    quiver_ : matplotlib Quiver
        The arrows.
    colorbar_ : matplotlib Colorbar
        The scale of speeds.

    Raises
    ------
    TypeError, ValueError
        If something given cannot be drawn: what is no number, not finite or of another shape.

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
    >>> display = VelocityFieldDisplay.from_estimator(flow, X, t=0.5).plot(cmap="magma")
    >>> display = VelocityFieldDisplay.from_predictions(X, -X)
    """

    def __init__(
        self,
        points: ArrayLike,
        velocities: ArrayLike,
        *,
        feature_names: tuple[str, str] = ("", ""),
    ):
        self.points = check_planar(points, "points", "n_points")
        self.velocities = check_planar(velocities, "velocities", "n_points")
        self.feature_names = _checked_names(feature_names)
        if len(self.points) != len(self.velocities):
            raise ValueError(
                f"There are {len(self.points)} points but {len(self.velocities)} velocities."
            )

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
    ) -> Self:
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
            As in :meth:`FlowDisplay.from_estimator`. All other columns stay at their means in
            `X`, and what moves along them is not seen.
        n_grid : int, default=24
            Arrows along the longer side.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        VelocityFieldDisplay
            What was drawn.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As in :meth:`FlowDisplay.from_estimator`, or if the estimator has no velocity field or
            `t` is not in [0, 1].
        """
        if not hasattr(estimator, "velocity"):
            raise TypeError(
                f"estimator is of type {type(estimator).__name__}, which has no velocity field of "
                "its own; draw one of its phases, as its sinkhorn_flow_."
            )
        pair, names = _two_features(estimator, features)
        rows = check_rows(X, "X")
        if rows.shape[1] != estimator.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features but the sampler was fitted with "
                f"{estimator.n_features_in_}."
            )
        low, high = rows[:, pair].min(axis=0), rows[:, pair].max(axis=0)
        if not (low < high).all():
            raise ValueError("X must vary in both of the features that are drawn: its range is.")
        xlim, ylim = zip(low, high, strict=True)
        grid = grid_points(xlim, ylim, (high - low).max() / check_size(n_grid, "n_grid"))
        full: Any = np.tile(rows.mean(axis=0), (len(grid), 1))
        full[:, pair] = grid
        if names_ := column_names(X, "X"):  # the sampler knows them by name
            make: Any = getattr(type(X), "from_pydict", type(X))
            full = make(dict(zip(names_, full.T, strict=True)))
        velocities = np.asarray(estimator.velocity(t, full))[:, pair]
        return cls(grid, velocities, feature_names=names).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, points: ArrayLike, velocities: ArrayLike, *, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw velocities that are known.

        Parameters
        ----------
        points : array-like of shape (n_points, 2)
            Where the arrows are.
        velocities : array-like of shape (n_points, 2)
            Velocities there.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        VelocityFieldDisplay
            What was drawn.

        Raises
        ------
        TypeError, ValueError
            If the arrays are not finite numbers of that shape, or `ax` no Axes.
        """
        return cls(points, velocities).plot(ax=ax, **kwargs)

    def _draw(self, kwargs: dict[str, Any]) -> None:
        equal_axes(self.ax_)
        area = np.ptp(self.points, axis=0).prod()
        spacing = np.sqrt(area / max(1, len(self.points)))
        self.quiver_ = draw_arrows(self.ax_, self.points, self.velocities, spacing, kwargs)
        self.colorbar_ = self.figure_.colorbar(self.quiver_, ax=self.ax_, label="speed")
        self.ax_.set(xlabel=self.feature_names[0], ylabel=self.feature_names[1])


class SwitchTimeDisplay(Display):
    """When points enter a straight flow that starts at the source, as a histogram.

    :meth:`from_estimator` and :meth:`from_predictions` make it and draw it; :meth:`plot` draws
    it again. Keywords go to :meth:`matplotlib.axes.Axes.hist`.

    Parameters
    ----------
    switch_times : ndarray of shape (n_points,)
        Times, in [0, 1].
    t_end : float or None
        Where the first phase ends, marked by a line.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Drawn on.
    bars_ : matplotlib BarContainer
        The histogram.

    Raises
    ------
    TypeError, ValueError
        If something given cannot be drawn: what is no number, not finite or of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from sknsgf import NSGFPlusPlus
    >>> from sknsgf.plotting import SwitchTimeDisplay
    >>> X = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = NSGFPlusPlus(straight_from="source", source="gaussian", max_iter=50).fit(X)
    >>> display = SwitchTimeDisplay.from_estimator(model).plot(bins=20)
    >>> display = SwitchTimeDisplay.from_predictions([0.4, 0.5, 0.5, 0.6])
    """

    def __init__(self, switch_times: ArrayLike, *, t_end: float | None = None):
        times = check_floats(switch_times, "switch_times", ("n_points",))
        if not ((times >= 0) & (times <= 1)).all():
            raise ValueError(
                f"switch_times must be in [0, 1], got {times.min()} to {times.max()}."
            )
        self.switch_times = times
        self.t_end = None if t_end is None else check_share(t_end, "t_end")

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the switch times that a fitted NSGFPlusPlus has measured.

        Parameters
        ----------
        estimator : NSGFPlusPlus
            Fitted with ``straight_from="source"``.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        SwitchTimeDisplay
            What was drawn.

        Raises
        ------
        TypeError
            If the estimator has no switch times, or all of them are 0 because its straight
            flow starts where the first phase ends.
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
        return cls(estimator.switch_time_, t_end=t_end).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, switch_times: ArrayLike, *, ax: Axes | None = None, **kwargs: Any
    ) -> Self:
        """Draw switch times that are known.

        Parameters
        ----------
        switch_times : array-like of shape (n_points,)
            Times, in [0, 1].
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        SwitchTimeDisplay
            What was drawn.

        Raises
        ------
        TypeError, ValueError
            If they are not one-dimensional numbers in [0, 1], or `ax` no Axes.
        """
        return cls(switch_times).plot(ax=ax, **kwargs)

    def _draw(self, kwargs: dict[str, Any]) -> None:
        style: dict[str, Any] = {"bins": 50, "range": (0, 1), "color": INK}
        *_, self.bars_ = self.ax_.hist(self.switch_times, **style | kwargs)
        if self.t_end is not None:
            label = f"end of the first phase, t = {self.t_end:g}"
            self.ax_.axvline(self.t_end, color="C1", linestyle="--", label=label)
            self.ax_.legend(loc="lower right", bbox_to_anchor=(1, 1))
        self.ax_.set(xlabel="switch time", ylabel="points", xlim=(0, 1))


def _two_features(
    estimator: Any, features: Sequence[int | str] | None
) -> tuple[list[int], tuple[str, str]]:
    """Return the numbers and the names of the two columns to draw."""
    check_is_fitted(estimator)
    if not hasattr(estimator, "trajectory"):
        raise TypeError(
            f"estimator must be a fitted sampler, such as an NSGFSampler, got {shown(estimator)}."
        )
    n_features = estimator.n_features_in_
    known = list(getattr(estimator, "feature_names_in_", []))
    if features is None and n_features != 2:
        raise ValueError(
            f"The sampler has {n_features} features and a picture two: choose them by "
            "features=(0, 1), or by their names."
        )
    chosen: Any = (0, 1) if features is None else features
    if isinstance(chosen, str) or not np.iterable(chosen):
        chosen = ()
    numbers = [known.index(f) if isinstance(f, str) and f in known else f for f in chosen]
    are_integers = all(isinstance(n, Integral) and not isinstance(n, bool) for n in numbers)
    if not are_integers or len(numbers) != 2 or len({*numbers} & {*range(n_features)}) != 2:
        raise ValueError(
            f"features must be two of the {n_features} columns, by number or name; got "
            f"{shown(features)}."
        )
    first, second = (str(known[n]) if known else f"feature {n}" for n in numbers)
    return numbers, (first, second)


def _checked_names(names: Any) -> tuple[str, str]:
    if not isinstance(names, list | tuple) or [type(name) for name in names] != [str, str]:
        raise ValueError(f"feature_names must be two texts, got {shown(names)}.")
    return names[0], names[1]
