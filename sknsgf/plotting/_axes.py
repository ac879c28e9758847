"""What pictures of clouds share: colours, Axes and the check of two columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1f4e79"
PALE = "#8592a0"


def check_planar(array: ArrayLike, name: str, *axes: str) -> NDArray[np.float64]:
    checked = np.asarray(array, dtype=np.float64)
    if checked.ndim != len(axes) + 1 or checked.shape[-1] != 2:
        raise ValueError(
            f"{name} must have shape ({', '.join(axes)}, 2), but it has shape {checked.shape}; "
            "choose two columns or project to two dimensions first."
        )
    return checked


def equal_axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    ax = plt.gca() if ax is None else ax
    ax.set_aspect("equal")
    return ax


def new_axes(ax: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    return plt.figure(layout="constrained").add_subplot() if ax is None else ax
