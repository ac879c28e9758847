"""Networks as the user asked for them: made, checked, and told about when training fails."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from sknsgf.flow import Records
from sknsgf.networks import (
    ConvolutionalTimePredictor,
    StandardisedVelocity,
    TimePredictor,
    VelocityMLP,
    VelocityUNet,
    are_sizes,
    check_image_shape,
    describe_network,
)
from sknsgf.samplers._warnings import warn_user
from sknsgf.training import TrainingHistory

_seed_lock = threading.Lock()


def make_network(
    network: Any,
    hidden_layer_sizes: Sequence[int],
    image_shape: Sequence[int] | None,
    n_features: int,
    seed: int,
) -> nn.Module:
    """Make the velocity network a `network` parameter stands for, with seeded weights."""
    with seeded(seed):
        if isinstance(network, nn.Module):
            made: Any = copy.deepcopy(network)
        elif not isinstance(network, str):
            shape = (n_features,) if image_shape is None else tuple(image_shape)
            made = _call_factory(network, shape)
        elif image_shape is not None and network != "mlp":
            made = VelocityUNet(image_shape)
        else:
            made = VelocityMLP(n_features, hidden_layer_sizes)
        _check_network(made, n_features)
        return made.float()


def _call_factory(factory: Callable[[tuple[int, ...]], Any], shape: tuple[int, ...]) -> Any:
    try:
        return factory(shape)
    except TypeError as error:
        raise ValueError(
            f"network({shape}) failed: {error}. Pass a module, or a callable that takes the "
            "shape of a row and returns one."
        ) from error


def resume(fitted: Any, made: nn.Module) -> Any:
    """Return a copy of a fitted network to be trained on, if it is of the kind just made."""
    inner = fitted.network if isinstance(fitted, StandardisedVelocity) else fitted
    if _kind(inner) != _kind(made):
        raise ValueError(
            "network, hidden_layer_sizes or image_shape describe another network than the one "
            f"fitted, a {type(inner).__name__} that training would go on with. Set them back, or "
            "fit again with warm_start=False."
        )
    with torch.inference_mode(False):
        return copy.deepcopy(fitted).requires_grad_(True)


def _kind(network: nn.Module) -> tuple[Any, ...]:
    description = describe_network(network)
    if description["class"] is not None:  # perceptrons of the first format go on as they are
        return type(network), description | {"layer_norm": None}
    return type(network), {name: value.shape for name, value in network.state_dict().items()}


def make_time_predictor(
    network: Any,
    hidden_layer_sizes: Sequence[int],
    image_shape: Sequence[int] | None,
    n_features: int,
    seed: int,
) -> nn.Module:
    """Make a time predictor to go with a velocity network, with seeded weights."""
    with seeded(seed):
        if image_shape is not None and not (isinstance(network, str) and network == "mlp"):
            return ConvolutionalTimePredictor(image_shape).float()
        return TimePredictor(n_features, hidden_layer_sizes).float()


def resolve_learning_rate(
    learning_rate: float | str, network: nn.Module, perceptron: float = 1e-2
) -> float:
    """Perceptrons learn fastest at a rate that other networks would not survive."""
    if not isinstance(learning_rate, str):
        return float(learning_rate)
    return perceptron if isinstance(network, VelocityMLP | TimePredictor) else 2e-3


def check_images(image_shape: Any, network: Any, n_features: int) -> None:
    """Raise unless rows of `n_features` are images of that shape, or none is needed."""
    if image_shape is None:
        if isinstance(network, str) and network == "unet":
            raise ValueError(
                'network="unet" needs to know the images: pass image_shape=(C, H, W), for '
                "instance (1, 28, 28)."
            )
        return
    check_image_shape(image_shape)
    sizes = tuple(image_shape)
    if math.prod(sizes) != n_features:
        raise ValueError(
            f"image_shape={sizes} has {math.prod(sizes)} values but the rows have {n_features}; "
            "pass the shape (C, H, W) that the images had before they were flattened, channels "
            "first."
        )


def check_hidden_layer_sizes(hidden_layer_sizes: Sequence[int]) -> None:
    """Raise unless they are positive integers."""
    if not are_sizes(list(hidden_layer_sizes)):
        raise ValueError(
            f"hidden_layer_sizes must hold positive integers, got {hidden_layer_sizes!r}."
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for as long as a network is initialised, then restore it.

    So it is with the default precision, in which weights are drawn. The lock keeps fits that
    run in threads from seeing each other's seed.
    """
    with _seed_lock, torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone: no other is restored
        precision = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(precision)


def _check_network(network: Any, n_features: int) -> None:
    if not isinstance(network, nn.Module):
        raise ValueError(
            "network must be a torch.nn.Module, or a callable that takes the shape of a row, or "
            f"image_shape, and returns one; got {type(network).__name__}."
        )
    t, x = torch.zeros(2), torch.linspace(-1, 1, 2 * n_features).reshape(2, n_features)
    _try_network(network, t, x, "Images arrive as rows, too: reshape them inside the network.")
    hint = "It is trained in float32 but moves float64 rows in float64: follow the dtype of x."
    _try_network(network, t.double(), x.double(), hint)


def _try_network(network: nn.Module, t: Tensor, x: Tensor, hint: str) -> None:
    """Raise unless a network, called as it will be, returns velocities that can be learned."""
    network = network.to(x).eval()  # in training statistics would be kept of these rows
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    try:
        with torch.enable_grad():
            u = network(t, x)
    except Exception as error:
        raise ValueError(
            f"network(t, x) failed for t of shape (2,) and x of shape {shape}, {dtype}: {error}. "
            f"{hint}"
        ) from error
    if not isinstance(u, Tensor) or u.shape != x.shape or u.dtype != x.dtype:
        came = tuple(u.shape) if isinstance(u, Tensor) else type(u).__name__
        raise ValueError(
            f"network(t, x) must return a tensor of the shape of x, {shape} for two rows, and of "
            f"its dtype, {dtype}; got {came}, {getattr(u, 'dtype', 'which has none')}."
        )
    if not u.requires_grad:
        raise ValueError(
            "network(t, x) cannot be trained: what it returns has no gradient. It needs "
            "parameters that require one, and must not detach what it computes."
        )
    if not u.isfinite().all():
        raise ValueError("network(t, x) must return finite values, got NaN or infinity.")


def find_device(device: str | torch.device) -> torch.device:
    """Resolve a `device` parameter and make sure it can be used."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f'device={device!r} cannot be used here: {error}. Try device="auto" or "cpu".'
        ) from error
    return found


def in_dtype(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a network that computes in single or double precision; it is kept in single."""
    return copy.deepcopy(network).double() if dtype == torch.float64 else network


def inverse_tol(x: Tensor) -> float:
    """Tell how near an inverse comes in standardised units, in the precision of the rows."""
    return 1e-7 if x.dtype == torch.float64 else 1e-5


def move_records(records: Records, device: torch.device) -> Records:
    """Bring a batch to the device of its network."""
    return Records(*(field.to(device) for field in records))


def warn_diverged(history: TrainingHistory, learning_rate: float) -> None:
    """Tell the user that training ended early, and what to do."""
    if history.status == "diverged":
        warn_user(
            f"Training stopped after {len(history.loss)} steps because the loss was no longer "
            f"finite; the last finite average is kept. Lower learning_rate={learning_rate:g} "
            "or remove far outliers from the data.",
            ConvergenceWarning,
        )
