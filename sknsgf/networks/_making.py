"""Networks as they are asked for: made, tried before any work is done, and gone on with."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sknsgf._surroundings import undisturbed
from sknsgf.networks._description import describe_network, outline
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._predictor import ConvolutionalTimePredictor, TimePredictor
from sknsgf.networks._sizes import are_sizes, check_image_shape
from sknsgf.networks._standardised import StandardisedVelocity
from sknsgf.networks._unet import VelocityUNet

_OTHER_RATE = 2e-3  # that networks of any kind survive

_seed_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """What a network is to be like.

    Parameters
    ----------
    n_features : int
        Width of the rows.
    network : {"auto", "mlp", "unet"}, Module or callable, default="auto"
        The velocity network, as in :class:`~sknsgf.NSGFSampler`.
    hidden_layer_sizes : sequence of int, default=(256, 256, 256)
        Hidden layers of perceptrons.
    image_shape : tuple of three int, default=None
        Channels, height and width of images, one a row.

    Raises
    ------
    ValueError
        If the sizes do not fit each other.

    Examples
    --------
    >>> type(NetworkSpec(n_features=2).make(seed=0)).__name__
    'VelocityMLP'
    >>> type(NetworkSpec(n_features=64, image_shape=(1, 8, 8)).make(seed=0)).__name__
    'VelocityUNet'
    """

    n_features: int
    network: Any = "auto"
    hidden_layer_sizes: Sequence[int] = (256, 256, 256)
    image_shape: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Raise unless the sizes fit each other."""
        if not are_sizes(list(self.hidden_layer_sizes)):
            raise ValueError(
                f"hidden_layer_sizes must hold positive integers, got {self.hidden_layer_sizes!r}."
            )
        if self.image_shape is not None:
            _check_images(self.image_shape, self.n_features)
        elif isinstance(self.network, str) and self.network == "unet":
            raise ValueError(
                'network="unet" needs to know the images: pass image_shape=(C, H, W), for '
                "instance (1, 28, 28)."
            )

    @property
    def is_convolutional(self) -> bool:
        """Whether networks of this package are made of convolutions."""
        wants_mlp = isinstance(self.network, str) and self.network == "mlp"
        return self.image_shape is not None and not wants_mlp

    def make(self, seed: int) -> nn.Module:
        """Make the velocity network with seeded weights, and try it.

        Parameters
        ----------
        seed : int
            Seed of its weights.

        Returns
        -------
        Module
            In float32, on the CPU.

        Raises
        ------
        ValueError
            If it cannot be called as it will be, or cannot be trained.
        """
        if not isinstance(self.network, str):
            return self._make_own(seed)
        if self.is_convolutional and self.image_shape is not None:
            return _draw(seed, VelocityUNet, self.image_shape)
        return _draw(seed, VelocityMLP, self.n_features, self.hidden_layer_sizes)

    def make_predictor(self, seed: int) -> nn.Module:
        """Make a time predictor to go with the velocity network.

        Parameters
        ----------
        seed : int
            Seed of its weights.

        Returns
        -------
        Module
            In float32, on the CPU.
        """
        if self.image_shape is not None and self.is_convolutional:
            return _draw(seed, ConvolutionalTimePredictor, self.image_shape)
        return _draw(seed, TimePredictor, self.n_features, self.hidden_layer_sizes)

    @undisturbed
    def _make_own(self, seed: int) -> nn.Module:
        """Copy the user's module or call the factory, and try what came."""
        shape = tuple((self.n_features,) if self.image_shape is None else self.image_shape)
        with _seeded(seed):
            if isinstance(self.network, nn.Module):
                made: Any = copy.deepcopy(self.network)
            else:
                try:
                    made = self.network(shape)
                except TypeError as error:
                    raise ValueError(
                        f"network({shape}) failed: {error}. Pass a module, or a callable that "
                        "takes the shape of a row and returns one."
                    ) from error
            _check_network(made, self.n_features)
            return made.float()


@undisturbed
def go_on_with(fitted: Any, made: nn.Module) -> Any:
    """Return a copy of a fitted network to be trained on, if it is of the kind just made.

    Parameters
    ----------
    fitted : Module
        What was trained, in a `StandardisedVelocity` or by itself.
    made : Module
        The network that parameters stand for now.

    Returns
    -------
    Module
        A copy of `fitted` whose parameters take gradients.

    Raises
    ------
    ValueError
        If it is of another kind.

    Examples
    --------
    >>> from sknsgf.networks import VelocityMLP
    >>> fitted = VelocityMLP(2, (16,)).requires_grad_(False)
    >>> go_on_with(fitted, VelocityMLP(2, (16,))) is fitted
    False
    """
    inner = fitted.network if isinstance(fitted, StandardisedVelocity) else fitted
    if _kind(inner) != _kind(made):
        raise ValueError(
            "network, hidden_layer_sizes or image_shape describe another network than the one "
            f"fitted, a {type(inner).__name__} that training would go on with. Set them back, or "
            "fit again with warm_start=False."
        )
    return copy.deepcopy(fitted).requires_grad_(True)


def suit_rate(learning_rate: float | str, network: nn.Module, perceptron: float) -> float:
    """Resolve "auto": perceptrons learn fastest at a rate that others would not survive."""
    if not isinstance(learning_rate, str):
        return float(learning_rate)
    return perceptron if isinstance(network, VelocityMLP | TimePredictor) else _OTHER_RATE


@undisturbed
def in_dtype(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a network that computes in single or double precision; it is kept in single."""
    return copy.deepcopy(network).double() if dtype == torch.float64 else network


@undisturbed
def _draw(seed: int, cls: Callable[..., nn.Module], *sizes: Any) -> nn.Module:
    """Make a network of this package and draw its weights, from a generator of their own.

    Torch's layers draw theirs from the global one. These are the same numbers, in the same order.
    """
    network = outline(cls, *sizes).to_empty(device="cpu")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            weights = list(layer.parameters(recurse=False))
            if type(layer) in (nn.Linear, nn.Conv2d):
                bound = 1 / math.sqrt(weights[0][0].numel())
                for weight in weights:
                    weight.uniform_(-bound, bound, generator=generator)
            elif weights:  # which begin as constants
                layer.reset_parameters()  # type: ignore[operator]
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator while a network of the user's is made, then restore it.

    Its layers draw from there, in the default precision. The lock keeps fits that run in threads
    from seeing each other's seed; it cannot keep it from threads of the user's.
    """
    with _seed_lock, torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone: no other is restored
        precision = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(precision)


def _check_images(image_shape: Any, n_features: int) -> None:
    """Raise unless rows of `n_features` are images of that shape."""
    check_image_shape(image_shape)
    sizes = tuple(image_shape)
    if math.prod(sizes) != n_features:
        raise ValueError(
            f"image_shape={sizes} has {math.prod(sizes)} values but the rows have {n_features}; "
            "pass the shape (C, H, W) that the images had before they were flattened, channels "
            "first."
        )


def _check_network(network: Any, n_features: int) -> None:
    if not isinstance(network, nn.Module):
        raise ValueError(
            "network must be a torch.nn.Module, or a callable that takes the shape of a row, or "
            f"image_shape, and returns one; got {type(network).__name__}."
        )
    t = torch.zeros(2, dtype=torch.float32, device="cpu")
    x = torch.linspace(-1, 1, 2 * n_features, dtype=t.dtype, device=t.device).reshape(2, -1)
    _try_network(network, t, x, "Images arrive as rows, too: reshape them inside the network.")
    hint = "It is trained in float32 but moves float64 rows in float64: follow the dtype of x."
    _try_network(network, t.double(), x.double(), hint)


def _try_network(network: nn.Module, t: Tensor, x: Tensor, hint: str) -> None:
    """Raise unless a network, called as it will be, returns velocities that can be learned."""
    shape, dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
    try:
        network = network.to(x).eval()  # in training statistics would be kept of these rows
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


def _kind(network: nn.Module) -> tuple[Any, ...]:
    description = describe_network(network)
    if description["class"] is not None:  # perceptrons of the first format go on as they are
        return type(network), description | {"layer_norm": None}
    return type(network), {name: value.shape for name, value in network.state_dict().items()}
