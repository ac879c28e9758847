"""Sizes that networks are built from."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np


def are_sizes(values: Any) -> bool:
    """Tell whether values are a sequence of positive integers."""
    return isinstance(values, Sequence | np.ndarray) and all(
        isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
        for value in values
    )


def check_image_shape(image_shape: Any) -> None:
    """Raise unless a value is the shape (C, H, W) of an image."""
    if not are_sizes(image_shape) or len(image_shape) != 3:
        raise ValueError(
            "image_shape must be three positive integers, channels, height and width, got "
            f"{image_shape!r}."
        )
