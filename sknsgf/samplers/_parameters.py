"""Parameters: what they may be, and what "auto" stands for."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sknsgf._random import as_random_state

# What parameters of the same name may be, in every sampler.
SHARED: dict[str, list[Any]] = {
    "source": [None, StrOptions({"gaussian"}), HasMethods("sample")],
    "network": [StrOptions({"auto", "mlp", "unet"}), callable],
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "image_shape": [None, "array-like"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
    "score_blur": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "device": [str, torch.device],
    "n_jobs": [None, Integral],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def find_device(device: str | torch.device) -> torch.device:
    """Resolve a `device` parameter and make sure it can be used."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise NotImplementedError("it holds no values")
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0].rstrip(".")
        if why.startswith("Expected one of"):  # and then twenty names
            why = "torch knows no device of that name"
        name = "cuda" if "gpu" in str(device).lower() else "cpu"
        raise ValueError(
            f'device={device!r} cannot be used here: {why}. Try device="auto" or "{name}".'
        ) from error
    return found


def draw_seed(random_state: Any) -> int:
    """Draw a seed from a `random_state` parameter."""
    return int(as_random_state(random_state).randint(2**31 - 1))


def resolve_blur(blur: float | str, n_features: int) -> float:
    """Five per cent of the distance between two random target points, unless given."""
    return 0.05 * (2 * n_features) ** 0.5 if isinstance(blur, str) else float(blur)
