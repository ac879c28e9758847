"""What pictures share: colours, Axes and the check of what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sknsgf._arguments import check_number, shown
from sknsgf._arrays import check_floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1f4e79"
PALE = "#8592a0"


def check_planar(array: ArrayLike, name: str, *dimensions: str | int) -> NDArray[np.float64]:
    """Return points of the plane, their coordinates last, or say what is wrong with them."""
    hint = "choose two columns or project to two dimensions first"
    return check_floats(array, name, (*dimensions, 2), hint=hint).astype(np.float64)


def check_range(value: Any, name: str) -> tuple[float, float]:
    """Return two finite numbers, the lower one first, or raise."""
    try:
        low, high = (check_number(bound, name) for bound in value)
        if low < high:
            return low, high
    except (TypeError, ValueError):
        pass  # which is told below
    raise ValueError(
        f"{name} must be two finite numbers, the lower one first, got {shown(value)}."
    )


def current_axes(ax: Axes | None) -> Axes:
    """Return Axes, the current ones if none are given."""
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        return plt.gca()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be Axes of Matplotlib or None, got {shown(ax)}.")
    return ax


def equal_axes(ax: Axes | None) -> Axes:
    """Return Axes whose units are equally long."""
    ax = current_axes(ax)
    ax.set_aspect("equal")
    return ax
