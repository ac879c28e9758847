"""Pickles of networks that are told apart by their values alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ByValue:
    """A network that is pickled as the values it holds, for equal networks to look equal.

    Torch pickles with a tensor the address it lies at, so that no copy of a network has the
    pickle, or the hash, of the network. Whoever unpickles one of these gets the network itself.

    Parameters
    ----------
    network : Module
        It is not copied until it is pickled.

    Examples
    --------
    >>> import copy, joblib, torch
    >>> network = torch.nn.Linear(2, 2)
    >>> joblib.hash(network) == joblib.hash(copy.deepcopy(network))
    False
    >>> joblib.hash(ByValue(network)) == joblib.hash(ByValue(copy.deepcopy(network)))
    True
    """

    def __init__(self, network: nn.Module):
        self.network = network

    def __reduce__(self) -> tuple[Any, ...]:
        """Stand something in for the tensors that have values to be looked at."""
        network, kinds = self.network, (Tensor, nn.Parameter)
        stand_ins = {
            id(tensor): _Values(tensor)
            for tensor in [*network.parameters(), *network.buffers()]
            if type(tensor) in kinds and tensor.layout == torch.strided and not tensor.is_meta
        }
        return _unchanged, (copy.deepcopy(network, stand_ins),)


class _Values:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        tensor = self.tensor.detach().cpu().contiguous()
        values = tensor.reshape(-1).view(torch.uint8).numpy()  # numpy lacks some of the types
        like = tensor.shape, tensor.dtype, str(self.tensor.device), self.tensor.requires_grad
        return _tensor, (values, isinstance(self.tensor, nn.Parameter), *like)


def _tensor(
    values: NDArray,
    is_parameter: bool,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
    requires_grad: bool,
) -> Tensor:
    tensor = torch.from_numpy(values.copy()).view(dtype).reshape(shape).to(device)
    if is_parameter:
        return nn.Parameter(tensor, requires_grad)
    return tensor.requires_grad_(requires_grad)


def _unchanged(network: nn.Module) -> nn.Module:
    return network
