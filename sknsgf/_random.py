"""Every random number has a name: a seed, a stream of it, and a number in the stream.

What is drawn is a function of these alone, so that batch k is the same in any order and in any
process, and nothing has to be kept of the batches before it.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from sknsgf._arguments import shown

_N_ROUNDS = 8  # of the shuffle; four make it hard to tell from a random one
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1

Bits = TypeVar("Bits", int, NDArray[np.uint64])


def as_random_state(random_state: Any) -> np.random.RandomState:
    """Return the random numbers that a `random_state` parameter stands for.

    Raises
    ------
    ValueError
        If it stands for none.
    """
    try:
        if isinstance(random_state, bool | np.bool_):
            raise ValueError("a boolean is no seed")
        return check_random_state(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "random_state must be None, an integer from 0 to 2**32 - 1 or a "
            f"numpy.random.RandomState, got {shown(random_state)}."
        ) from error


def stream(seed: int, name: str) -> int:
    """Return the seed of the random numbers of a name."""
    state = np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def seeded_generator(seed: int, number: int) -> torch.Generator:
    """Make the generator of one draw: a function of the seed and its number alone.

    Parameters
    ----------
    seed : int
        Seed of the whole run.
    number : int
        Number of the draw, of a simulation say.

    Returns
    -------
    torch.Generator
        On the CPU.

    Examples
    --------
    >>> import torch
    >>> first, again = (seeded_generator(0, 7) for _ in range(2))
    >>> bool((torch.rand(3, generator=first) == torch.rand(3, generator=again)).all())
    True
    """
    return torch.Generator(device="cpu").manual_seed(_key(seed, number) >> 1)


def deal_indices(seed: int, start: int, n: int, n_rows: int) -> Tensor:
    """Deal indices below n_rows from a deck that is shuffled anew in every round.

    The ones at the places start, …, start + n − 1 of all that are ever dealt. Each index comes
    once a round, and any place can be looked up at a cost that does not grow with n_rows: the
    order of a round is a keyed permutation, a Feistel network on the next square, walked until it
    lands below n_rows.
    """
    rounds, index = np.divmod(np.arange(start, start + n, dtype=np.uint64), np.uint64(n_rows))
    first, last = int(rounds[0]), int(rounds[-1])
    keys = np.array([_key(seed, k) for k in range(first, last + 1)], np.uint64)[rounds - rounds[0]]
    side = np.uint64(isqrt(n_rows - 1) + 1)
    outside = np.arange(n)
    while len(outside):
        index[outside] = _shuffle(index[outside], keys[outside], side)
        outside = outside[index[outside] >= n_rows]
    return torch.from_numpy(index.astype(np.int64))


def _key(seed: int, number: int) -> int:
    return _mix((_mix(seed) + _GOLDEN * (number + 1)) & _WORD)


def _shuffle(
    index: NDArray[np.uint64], keys: NDArray[np.uint64], side: np.uint64
) -> NDArray[np.uint64]:
    """Permute the integers below side², in a way of its own for each key."""
    left, right = np.divmod(index, side)
    for _ in range(_N_ROUNDS):
        keys = _mix(keys)
        left, right = right, (left + _mix(keys ^ right)) % side
    return left * side + right


def _mix(x: Bits) -> Bits:
    """Scatter 64-bit integers over all 64-bit integers (splitmix64, Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor & _WORD  # type: ignore[assignment]
    return x ^ (x >> 31)  # type: ignore[return-value]
