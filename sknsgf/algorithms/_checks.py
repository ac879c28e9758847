"""Values of an algorithm that cannot be used are refused before any work."""

from __future__ import annotations

from typing import Any

from sknsgf._arguments import check_positive, check_size, shown
from sknsgf.flow import Ends


def check_counts(algorithm: Any, *names: str) -> None:
    """Raise unless values are positive integers, or None where that is their default."""
    for name in names:
        if not _is_default(algorithm, name):
            check_size(getattr(algorithm, name), name)


def check_lengths(algorithm: Any, *names: str) -> None:
    """Raise unless values are positive numbers, or the word or None that is their default."""
    for name in names:
        if not _is_default(algorithm, name):
            check_positive(getattr(algorithm, name), name)


def check_kind(value: Any, name: str, kind: type) -> None:
    """Raise a TypeError unless a value is of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {shown(value)}.")


def check_width(network: Any, ends: Any) -> None:
    """Raise unless networks are as wide as the rows."""
    check_kind(ends, "ends", Ends)
    if network.n_features != ends.target.shape[1]:
        raise ValueError(
            f"network is for rows of {network.n_features} features, but those of ends have "
            f"{ends.target.shape[1]}."
        )


def _is_default(algorithm: Any, name: str) -> bool:
    default = getattr(type(algorithm), name, 0)
    value = getattr(algorithm, name)
    return type(value) is type(default) and isinstance(default, str | None) and value == default
