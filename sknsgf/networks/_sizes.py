"""Sizes that networks are built from."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np

from sknsgf._arguments import shown


def are_sizes(values: Any) -> bool:
    """Tell whether values are a sequence of positive integers."""
    return isinstance(values, list | tuple | np.ndarray) and all(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
        for value in values
    )


def check_layer_sizes(sizes: Any) -> tuple[int, ...]:
    """Return the widths of hidden layers, an integer being that of a single one, or raise."""
    widths = (sizes,) if isinstance(sizes, Integral) else sizes
    if not are_sizes(widths):
        raise ValueError(
            f"hidden_layer_sizes must hold positive integers, or be one, got {shown(sizes)}."
        )
    return tuple(map(int, widths))


def check_image_shape(image_shape: Any, n_features: int | None = None) -> None:
    """Raise unless a value is the shape (C, H, W) of an image, that of rows of `n_features`."""
    if not are_sizes(image_shape) or len(image_shape) != 3:
        raise ValueError(
            "image_shape must be three positive integers, channels, height and width, got "
            f"{shown(image_shape)}."
        )
    sizes = tuple(image_shape)
    if n_features is not None and math.prod(sizes) != n_features:
        raise ValueError(
            f"image_shape={sizes} has {math.prod(sizes)} values but the rows have {n_features}; "
            "pass the shape (C, H, W) that the images had before they were flattened, channels "
            "first."
        )
