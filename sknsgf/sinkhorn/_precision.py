"""Products of full precision, whatever faster arithmetic is chosen elsewhere in the process.

TensorFloat-32 and bfloat16 keep two or three digits. An exponent, which is an inner product
divided by the temperature, would be left with none.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class _IeeeProducts:
    """Single-precision products as IEEE has them, until the last of its users leaves.

    The setting belongs to the process: threads that overlap share one change of it.
    """

    def __init__(self) -> None:
        self.lock, self.n_users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.n_users == 0:
                self.before = _precision()
                _set_precision(["ieee"] * len(self.before))
            self.n_users += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.n_users -= 1
            if self.n_users == 0:
                _set_precision(self.before)


_ieee_products = _IeeeProducts()
_per_backend = hasattr(torch.backends.cuda.matmul, "fp32_precision")  # since torch 2.9
_BACKENDS: list[Any] = [getattr(torch.backends, name) for name in ("cuda", "mkldnn")]


def _precision() -> list[str]:
    if _per_backend:
        return [backend.matmul.fp32_precision for backend in _BACKENDS]
    return [torch.get_float32_matmul_precision()]


def _set_precision(values: list[str]) -> None:
    if _per_backend:
        for backend, value in zip(_BACKENDS, values, strict=True):
            backend.matmul.fp32_precision = value
    else:
        torch.set_float32_matmul_precision(values[0].replace("ieee", "highest"))


def in_full_precision(
    function: Callable[Concatenate[Tensor, P], R],
) -> Callable[Concatenate[Tensor, P], R]:
    """Let a function of a tensor `x` form its products without TensorFloat-32 or autocast."""

    @functools.wraps(function)
    def exact(x: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        known = isinstance(x, Tensor) and not x.is_meta  # others are for the function to refuse
        device = x.device.type if known else "cpu"
        with _ieee_products, torch.autocast(device, enabled=False):
            return function(x, *args, **kwargs)

    return exact
