"""Values of an algorithm that cannot be used are refused before any work."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def check_counts(algorithm: Any, *names: str) -> None:
    """Raise unless values are positive integers, or None where that is their default."""
    for name in names:
        value = getattr(algorithm, name)
        is_count = isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
        if not is_count and not _is_default(algorithm, name, value):
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def check_positive(algorithm: Any, *names: str) -> None:
    """Raise unless values are positive numbers, or None where that is their default."""
    for name in names:
        value = getattr(algorithm, name)
        is_positive = isinstance(value, Real) and 0 < float(value) < float("inf")
        if not is_positive and not _is_default(algorithm, name, value):
            raise ValueError(f"{name} must be a positive number, got {value!r}.")


def check_choice(algorithm: Any, name: str, choices: tuple[Any, ...]) -> None:
    """Raise unless a value is one of a few."""
    value = getattr(algorithm, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def _is_default(algorithm: Any, name: str, value: Any) -> bool:
    return value is None and getattr(type(algorithm), name, 0) is None
