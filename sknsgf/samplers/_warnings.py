"""Warnings that point at the user's line, however deep in a fit their cause is found."""

from __future__ import annotations

import sys
import warnings

_INSIDE = ("sknsgf", "sklearn")


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn about the line, outside this package and scikit-learn, that set things off."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
