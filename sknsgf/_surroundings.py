"""What a caller may have set around a call, and what is computed as if nothing were.

Settings of a thread are left for as long as a call lasts. The default precision and the default
device are not set at all, as the former belongs to the process: whatever makes a tensor in this
package names both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_KINDS = [kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)]


@contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the precision that tensors have, whatever autocast is set."""
    with ExitStack() as stack:
        for kind in _KINDS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def undisturbed(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function compute without autocast and outside of inference mode.

    Tensors made in inference mode are copied, as gradients cannot pass through them. Inside,
    gradients are on: a function that wants none says so itself.
    """

    def usable(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value.is_inference() else value

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), without_autocast():
            return function(
                *(usable(value) for value in args),
                **{name: usable(value) for name, value in kwargs.items()},
            )

    return alone
