"""Networks as the user asked for them: made, checked, and told about when training fails."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sknsgf.flow import Records
from sknsgf.networks import VelocityMLP
from sknsgf.training import TrainingHistory

_seed_lock = threading.Lock()


def make_network(
    network: Any, hidden_layer_sizes: Sequence[int], n_features: int, seed: int
) -> nn.Module:
    """Make the velocity network a `network` parameter stands for, with seeded weights."""
    if isinstance(network, nn.Module):
        with torch.inference_mode(False):
            made: Any = copy.deepcopy(network)
    else:
        with seeded(seed):
            if isinstance(network, str):
                made = VelocityMLP(n_features, hidden_layer_sizes)
            else:
                made = network((n_features,))
    _check_network(made, n_features)
    return made.float()


def check_hidden_layer_sizes(hidden_layer_sizes: Sequence[int]) -> None:
    """Raise unless they are positive integers."""
    if not all(isinstance(width, Integral) and width > 0 for width in hidden_layer_sizes):
        raise ValueError(
            f"hidden_layer_sizes must hold positive integers, got {hidden_layer_sizes!r}."
        )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator for as long as a network is initialised, then restore it.

    The lock keeps fits that run in threads from seeing each other's seed.
    """
    with _seed_lock, torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone: no other is restored
        yield


def _check_network(network: Any, n_features: int) -> None:
    if not isinstance(network, nn.Module):
        raise ValueError(
            "network must be a torch.nn.Module, or a callable that takes the shape of a row and "
            f"returns one; got {type(network).__name__}."
        )
    network = network.float()
    t, x = (torch.zeros(shape, dtype=torch.float32) for shape in ((2,), (2, n_features)))
    try:
        with torch.no_grad():
            shape = tuple(network(t, x).shape)
    except Exception as error:
        raise ValueError(
            f"network(t, x) failed for t of shape (2,) and x of shape (2, {n_features}): {error}"
        ) from error
    if shape != (2, n_features):
        raise ValueError(
            f"network(t, x) must return the shape of x, (2, {n_features}) for two rows; got "
            f"{shape}."
        )


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


def move_records(records: Records, device: torch.device) -> Records:
    """Bring a batch to the device of its network."""
    return Records(*(field.to(device) for field in records))


def warn_diverged(history: TrainingHistory, learning_rate: float) -> None:
    """Tell the user that training ended early, and what to do."""
    if history.status == "diverged":
        warnings.warn(
            f"Training stopped after {len(history.loss)} steps because the loss was no longer "
            f"finite; the last finite average is kept. Lower learning_rate={learning_rate:g} "
            "or remove far outliers from the data.",
            ConvergenceWarning,
            stacklevel=4,
        )
