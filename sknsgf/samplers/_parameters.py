"""Parameters: what they may be, and what "auto" stands for."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    StrOptions,
)

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


class ParametersMixin:
    """A check of parameters, before scikit-learn's own and after it."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def _validate_params(self: Any) -> None:
        """Refuse what scikit-learn's own check lets pass: classes, booleans, giant integers."""
        parameters = self.get_params(deep=False)
        for name, value in parameters.items():
            if isinstance(value, type) and name != "network":
                raise InvalidParameterError(
                    f"{name} is the class {value.__name__}; pass an instance: "
                    f"{name}={value.__name__}(...)."
                )
        super()._validate_params()  # type: ignore[misc]
        for name, value in parameters.items():
            switch = {"boolean", "verbose"} & {
                *map(str, self._parameter_constraints.get(name, ()))
            }
            if isinstance(value, bool | np.bool_) and not switch:
                raise InvalidParameterError(f"{name} must not be a boolean, got {value}.")
            if isinstance(value, Integral) and int(value) >= 2**48:
                raise InvalidParameterError(f"{name} is larger than anything that can be counted.")


def find_device(device: str | torch.device) -> torch.device:
    """Resolve a `device` parameter and make sure it can be used."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise NotImplementedError("it holds no values")
        torch.empty(0, dtype=torch.float32, device=found)
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
