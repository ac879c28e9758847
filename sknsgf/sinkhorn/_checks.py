"""What the room asks of its arguments, and the sentences that say so."""

from __future__ import annotations

import torch
from torch import Tensor

from sknsgf._arguments import check_positive, check_real, check_size, check_tensor


def check_points(x: Tensor, y: Tensor) -> None:
    """Refuse what are not two sets of points in one space and one precision."""
    for name, points in (("x", x), ("y", y)):
        check_tensor(points, name)
        if points.ndim < 2 or 0 in points.shape:
            raise ValueError(
                f"{name} must have shape (n, d) or (B, n, d) with no empty dimension, got "
                f"{tuple(points.shape)}."
            )
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"x has {x.shape[-1]} features but y has {y.shape[-1]}; both must live in the "
            "same space."
        )
    if x.dtype != y.dtype:
        raise ValueError(f"x is {x.dtype} but y is {y.dtype}: convert one of them.")


def check_clouds(x: Tensor, y: Tensor) -> None:
    """Refuse what are not two clouds, or two batches of as many clouds."""
    check_points(x, y)
    if x.ndim > 3 or x.ndim != y.ndim or x.shape[:-2] != y.shape[:-2]:
        raise ValueError(
            f"x has shape {tuple(x.shape)} but y has {tuple(y.shape)}; both must be single "
            "clouds (n, d) or batches (B, n, d) of the same size."
        )


def check_finite(values: Tensor) -> None:
    """Refuse clouds of which a computed number says that they cannot be computed with."""
    if not bool(values.isfinite().all()):
        raise ValueError(
            "x or y, or a potential or inner products given with them, hold NaN, infinity, or "
            "values too large to multiply: remove or rescale them."
        )


def check_solver(epsilon: float, tol: float, max_iter: int, dtype: torch.dtype) -> None:
    """Refuse settings with which no problem can be solved."""
    check_epsilon(epsilon, dtype)
    check_positive(tol, "tol")
    check_size(max_iter, "max_iter", least=0)


def check_epsilon(epsilon: float, dtype: torch.dtype) -> None:
    """Refuse temperatures that numbers of a precision cannot hold."""
    limits = torch.finfo(dtype)
    epsilon = check_real(epsilon, "epsilon")
    if not limits.tiny <= epsilon <= limits.max:
        raise ValueError(
            f"epsilon, the square of blur, must be positive and finite, in {dtype} from "
            f"{limits.tiny:.1e} to {limits.max:.1e}, got {epsilon}."
        )


def check_shape(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse what belongs to other clouds."""
    found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if found != tuple(shape):
        raise ValueError(
            f"{name} must be a tensor of shape {tuple(shape)} for these clouds, got {found}."
        )
    check_tensor(values, name)


def temperature(blur: float) -> float:
    """Temperature that resolves a length: its square."""
    blur = check_positive(blur, "blur")
    return blur * blur  # which, unlike a power, overflows without an exception
