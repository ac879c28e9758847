"""The teachers: what a student is shown, batch by batch, each a function of its number."""

from __future__ import annotations

from typing import Protocol

from sknsgf._arguments import check_size
from sknsgf._random import seeded_generator
from sknsgf.flow._pool import Records, TrajectoryPool
from sknsgf.flow._status import Status
from sknsgf.flow._straight import Pairs, straight_records

_N_AT_ONCE = 16  # batches that are looked up together, as each look-up finds its caches cold
_ENTRIES_AT_ONCE = 2**20


class Teacher(Protocol):
    """What draws training records by number."""

    @property
    def status(self) -> Status:
        """How well the transport problems behind its records were solved."""

    def batch(self, number: int) -> Records:
        """Return the records of batch `number`."""


class PoolTeacher:
    """Records of simulated flows, drawn uniformly and with replacement.

    Parameters
    ----------
    pool : TrajectoryPool
        The simulations.
    batch_size : int
        Records at a time.
    seed : int
        Seed of the batches.
    tol : float
        The marginal error that the simulations were to reach.

    Raises
    ------
    ValueError
        If `batch_size` is not a positive integer.

    Examples
    --------
    >>> import torch
    >>> pool = TrajectoryPool(torch.arange(6.0).view(1, 3, 2, 1), torch.tensor([[0.0, 0.5, 1.0]]),
    ...                       torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    >>> teacher = PoolTeacher(pool, batch_size=5, seed=0, tol=1e-3)
    >>> bool((teacher.batch(7).x == teacher.batch(7).x).all())
    True
    """

    def __init__(self, pool: TrajectoryPool, batch_size: int, seed: int, tol: float):
        self.batch_size = check_size(batch_size, "batch_size")
        self.pool, self.seed, self.tol = pool, seed, tol
        most = _ENTRIES_AT_ONCE // (batch_size * pool.positions.shape[-1])
        self._n_at_once = max(1, min(_N_AT_ONCE, most))
        self._together: tuple[int, list[Records]] = (-1, [])  # batches last looked up

    @property
    def status(self) -> Status:
        """How well the transport problems of the simulations were solved."""
        return Status.of(self.pool.converged, self.pool.marginal_error, self.tol)

    def batch(self, number: int) -> Records:
        """Return the records of a batch.

        Parameters
        ----------
        number : int
            Its number, from 0.

        Returns
        -------
        Records
            A function of the seed and the number alone.
        """
        block, place = divmod(number, self._n_at_once)
        if self._together[0] != block:
            n_records = self.batch_size * self._n_at_once
            records = self.pool.draw(n_records, seeded_generator(self.seed, block))
            self._together = block, records.split(self.batch_size)
        return self._together[1][place]


class LineTeacher:
    """Records on straight lines between pairs of points, at uniform times.

    Parameters
    ----------
    pairs : callable (number) -> (Cloud, Cloud)
        Starts and ends, paired row by row.
    seed : int
        Seed of the times.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.flow import Cloud, IndependentPairs
    >>> ends = [lambda n, number, k=k: Cloud(torch.full((n, 1), k)) for k in (0.0, 1.0)]
    >>> records = LineTeacher(IndependentPairs(*ends, batch_size=3), seed=0).batch(0)
    >>> bool((records.x == records.t[:, None]).all())
    True
    """

    def __init__(self, pairs: Pairs, seed: int):
        self.pairs, self.seed = pairs, seed

    @property
    def status(self) -> Status:
        """How well the transport problems behind the pairs met so far were solved."""
        return self.pairs.status

    def batch(self, number: int) -> Records:
        """Return the records of a batch.

        Parameters
        ----------
        number : int
            Its number, from 0.

        Returns
        -------
        Records
            A function of the seed and the number alone.
        """
        start, end = self.pairs(number)
        t, x, u = straight_records(start.x, end.x, seeded_generator(self.seed, number))
        return Records(t, x, u, weight=end.weight, condition=end.condition)


def first_records(teacher: Teacher, n: int) -> Records:
    """Gather the first batches of a teacher until there are n records or more."""
    batches = [teacher.batch(0)]
    while len(batches) * len(batches[0].t) < n:
        batches.append(teacher.batch(len(batches)))
    return Records.joined(batches)
