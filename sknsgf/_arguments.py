"""Plain arguments as users pass them: one sentence for each way in which they are wrong."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MOST = 2**48  # of anything that is counted: more than any memory holds


def check_real(value: Any, name: str) -> float:
    """Return a real number as a float, be it infinite or NaN, or raise a TypeError."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {shown(value)}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_number(value: Any, name: str) -> float:
    """Return a finite number as a float.

    Raises
    ------
    TypeError
        If it is no real number; a boolean is none.
    ValueError
        If it is not finite.
    """
    number = check_real(value, name)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {shown(value)}.")
    return number


def check_positive(value: Any, name: str) -> float:
    """Return a number above zero as a float, or raise as `check_number` does."""
    number = check_real(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite, got {shown(value)}.")
    return number


def check_share(value: Any, name: str, interval: str = "[0, 1]") -> float:
    """Return a number from 0 to 1 as a float, or raise as `check_number` does.

    The brackets of the interval tell whether 0 and 1 are in it.
    """
    number = check_real(value, name)
    ends = {0.0: "[" in interval, 1.0: "]" in interval}
    if not (0 < number < 1 or ends.get(number, False)):
        raise ValueError(f"{name} must be in {interval}, got {shown(value)}.")
    return number


def check_size(value: Any, name: str, least: int = 1) -> int:
    """Return an integer that counts something, `least` or more of it.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or not least <= int(value) < _MOST:
        kind = {0: "a whole number, 0 or more", 1: "a positive integer"}
        asked = kind.get(least, f"an integer of at least {least}")
        raise ValueError(f"{name} must be {asked}, got {shown(value)}.")
    return int(value)


def check_choice(value: Any, name: str, choices: tuple[Any, ...]) -> None:
    """Raise a ValueError unless a value is one of a few."""
    value = value.item() if isinstance(value, np.generic) else value
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} must be one of {choices}, got {shown(value)}.")


def check_callable(value: Any, name: str, takes: str) -> None:
    """Raise a TypeError unless a value can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of {takes}, got {shown(value)}.")


def check_tensor(x: Any, name: str) -> None:
    """Raise unless it is a tensor that can be computed with.

    Raises
    ------
    TypeError
        If it is no tensor.
    ValueError
        If it is sparse, holds no values, or is neither float32 nor float64.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name} must be a tensor, got {type(x).__name__}: torch.as_tensor({name}) makes one."
        )
    if x.layout != torch.strided or x.is_nested or x.is_meta:
        raise ValueError(f"{name} must be a dense tensor that holds values, and no sparse one.")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {x.dtype}: convert it first.")


def check_path(path: Any) -> Path:
    """Return a path that the system can be asked for.

    Raises
    ------
    TypeError
        If it is neither text nor a path.
    ValueError
        If no file can have that name.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"path must be a str or a pathlib.Path, got {shown(path)}.")
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise ValueError(f"path must be the name of a file, got {shown(path)}.")
    return Path(path)


def shown(value: Any) -> str:
    """Say what came, at a length that can be read."""
    try:
        text = repr(value)
    except Exception:  # such as of integers with thousands of digits
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 100 else f"{text[:100]}…"
