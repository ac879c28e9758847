"""Networks in words: how to build one again before its weights are filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknsgf._surroundings import undisturbed
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._predictor import ConvolutionalTimePredictor, TimePredictor
from sknsgf.networks._standardised import StandardisedVelocity
from sknsgf.networks._unet import VelocityUNet

# Each keeps in `arguments` what it was built from: numbers and sequences of them.
_CLASSES: dict[str, Callable[..., nn.Module]] = {
    cls.__name__: cls
    for cls in (VelocityMLP, VelocityUNet, TimePredictor, ConvolutionalTimePredictor)
}

Description = dict[str, Any]


def describe_network(network: nn.Module) -> Description:
    """Say how to build a network again.

    Parameters
    ----------
    network : Module
        Any network.

    Returns
    -------
    dict
        The class and the arguments of a network of this package, for JSON to hold; of any
        other only that it is foreign, ``{"class": None}``.

    Examples
    --------
    >>> from sknsgf.networks import VelocityMLP
    >>> describe_network(VelocityMLP(2, (16,)))
    {'class': 'VelocityMLP', 'n_features': 2, 'hidden_layer_sizes': [16], 'layer_norm': True}
    """
    if type(network) is StandardisedVelocity:
        inner = describe_network(network.network)
        return {"class": "StandardisedVelocity", "t_end": network.t_end, "network": inner}
    name = type(network).__name__
    if _CLASSES.get(name) is not type(network):
        return {"class": None}
    arguments: Any = network.arguments
    return {"class": name, **{key: np.asarray(value).tolist() for key, value in arguments.items()}}


def outline(cls: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Build a network in single precision, without memory and without drawing any weight."""
    with torch.device("meta"):
        return cls(*args, **kwargs).float()


@undisturbed
def rebuild_network(
    description: Description, state: Mapping[str, Tensor], foreign: Callable[[], nn.Module]
) -> nn.Module:
    """Build a network from its description and its state.

    Parameters
    ----------
    description : dict
        From `describe_network`; it need not be trusted.
    state : mapping of str to Tensor
        Its ``state_dict()``.
    foreign : callable () -> Module
        Asked for a network that is not of this package.

    Returns
    -------
    Module
        The network, in evaluation mode and without gradients.

    Raises
    ------
    ValueError
        If the class is unknown, or the state is not one of the network described.

    Examples
    --------
    >>> from sknsgf.networks import VelocityMLP
    >>> old = VelocityMLP(2, (16,))
    >>> new = rebuild_network(describe_network(old), old.state_dict(), foreign=None)
    >>> bool((new.layers[0].weight == old.layers[0].weight).all())
    True
    """
    network = _build(description, state, foreign)
    _check_state(network, state)
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False)


def _build(
    description: Description, state: Mapping[str, Tensor], foreign: Callable[[], nn.Module]
) -> nn.Module:
    arguments = dict(description)
    name = arguments.pop("class")
    if name is None:
        return foreign()
    if name == "StandardisedVelocity":
        start = "network."
        inner = {key[len(start) :]: state[key] for key in state if key.startswith(start)}
        network = _build(arguments["network"], inner, foreign)
        row = torch.zeros(1, state["u_mean"].shape[0], dtype=torch.float32, device="cpu")
        return StandardisedVelocity(network, row, row, float(arguments["t_end"]), row)
    if name == "VelocityMLP":  # of the first format had no such thing
        arguments.setdefault("layer_norm", False)
    if name not in _CLASSES:
        raise ValueError(f"there is no network {name!r}")
    if any(isinstance(value, list) and len(value) > len(state) for value in arguments.values()):
        raise ValueError(f"it has weights for fewer layers than the {name} described")
    network = outline(_CLASSES[name], **arguments)
    _check_state(network, state)  # before there is memory: a few digits can ask for any amount
    return network.to_empty(device="cpu")


def _check_state(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    expected = {key: (value.shape, value.dtype) for key, value in network.state_dict().items()}
    came = {key: (value.shape, value.dtype) for key, value in state.items()}
    if came != expected:
        differing = sorted(key for key in {*expected, *came} if came.get(key) != expected.get(key))
        raise ValueError(
            f"its weights are not those of a {type(network).__name__} so built; the first that "
            f"differs in presence, shape or type is {differing[0]!r}"
        )
