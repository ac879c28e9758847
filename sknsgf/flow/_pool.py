"""The trajectory pool: what the teacher hands to the student."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sknsgf._arguments import check_size


@dataclass(frozen=True, eq=False)
class Records:
    """A batch of training records.

    What every record has can be unpacked, ``t, x, u = records``; what some carry goes by name.

    Attributes
    ----------
    t : Tensor of shape (n,)
        Times.
    x : Tensor of shape (n, d)
        Positions at those times.
    u : Tensor of shape (n, d)
        Velocities dx/dt, per unit of network time t.
    weight : Tensor of shape (n,) or None
        Weights; None where all weigh the same.
    condition : Tensor of shape (n, k) or None
        What each was observed under; None where nothing was.

    Examples
    --------
    >>> import torch
    >>> one = Records(torch.zeros(1), torch.ones(1, 2), torch.ones(1, 2), weight=torch.ones(1))
    >>> t, x, u = Records.joined([one, one]).to("cpu")
    >>> x.shape
    torch.Size([2, 2])
    """

    t: Tensor
    x: Tensor
    u: Tensor
    weight: Tensor | None = None
    condition: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Go through times, positions and velocities."""
        return iter((self.t, self.x, self.u))

    def split(self, n: int) -> list[Records]:
        """Cut the records into batches.

        Parameters
        ----------
        n : int
            Records a batch; the last may have fewer.

        Returns
        -------
        list of Records
            The batches; nothing is copied.
        """
        parts = {name: part.split(n) for name, part in vars(self).items() if part is not None}
        batches = zip(*parts.values(), strict=True)
        return [Records(**dict(zip(parts, batch, strict=True))) for batch in batches]

    def to(self, device: torch.device | str) -> Records:
        """Bring the records to a device.

        Parameters
        ----------
        device : torch.device or str
            The device.

        Returns
        -------
        Records
            The records there.
        """
        parts = {n: part.to(device) for n, part in vars(self).items() if part is not None}
        return Records(**parts)

    @classmethod
    def joined(cls, batches: Sequence[Records]) -> Records:
        """Put batches behind each other.

        Parameters
        ----------
        batches : sequence of Records
            Batches that carry the same.

        Returns
        -------
        Records
            All of them.
        """
        carried = [name for name, part in vars(batches[0]).items() if part is not None]
        return cls(**{n: torch.cat([getattr(batch, n) for batch in batches]) for n in carried})


class Trajectories(NamedTuple):
    """A batch of simulations.

    Attributes
    ----------
    positions : Tensor of shape (B, n_steps + 1, n, d)
        Particles at each time.
    marginal_error : Tensor of shape (B, n_steps)
        Marginal error behind each step.
    converged : bool Tensor of shape (B, n_steps)
        Whether each step's transport problems were solved to tolerance.
    """

    positions: Tensor
    marginal_error: Tensor
    converged: Tensor


class TrajectoryPool:
    """Positions and times of many simulations; velocities follow from consecutive positions.

    Parameters
    ----------
    positions : Tensor of shape (n_simulations, n_steps + 1, n_particles, d)
        Where every particle was; may be memory-mapped.
    times : Tensor of shape (n_simulations, n_steps + 1)
        When, increasing from 0.
    marginal_error : Tensor of shape (n_simulations, n_steps)
        Marginal error of the transport problems behind each step.
    converged : bool Tensor of shape (n_simulations, n_steps)
        Whether each of them reached its tolerance.

    Examples
    --------
    >>> import torch
    >>> from sknsgf.flow import Trajectories, TrajectoryPool
    >>> pool = TrajectoryPool.allocate((1, 3, 1, 1))  # one simulation, two steps, one particle
    >>> moved = Trajectories(
    ...     torch.tensor([0.0, 1.0, 4.0]).view(1, 3, 1, 1),
    ...     marginal_error=torch.zeros(1, 2), converged=torch.ones(1, 2, dtype=torch.bool))
    >>> pool.store(slice(0, 1), torch.tensor([[0.0, 0.5, 1.0]]), moved)
    >>> pool.records(torch.tensor([0, 1])).u.squeeze()
    tensor([2., 6.])
    """

    def __init__(
        self, positions: Tensor, times: Tensor, marginal_error: Tensor, converged: Tensor
    ):
        self.positions = positions
        self.times = times
        self.marginal_error = marginal_error
        self.converged = converged

    @classmethod
    def allocate(
        cls, shape: tuple[int, int, int, int], *, directory: str | Path | None = None
    ) -> TrajectoryPool:
        """Make room for a pool, on disk if given a directory.

        Parameters
        ----------
        shape : tuple (n_simulations, n_steps + 1, n_particles, d)
            Shape of the positions.
        directory : path, optional
            Where to keep them in a memory-mapped file instead of in memory.

        Returns
        -------
        TrajectoryPool
            Not yet filled.

        Raises
        ------
        ValueError
            If `shape` is not made of positive integers.
        """
        n_simulations, n_times, *_ = (check_size(size, "shape") for size in shape)
        if directory is None:
            positions = torch.empty(shape, dtype=torch.float32, device="cpu")
        else:
            Path(directory).mkdir(parents=True, exist_ok=True)
            # A file of its own, that vanishes with the pool: other fits may share the directory.
            with tempfile.TemporaryFile(dir=directory) as file:
                positions = torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))
        status = n_simulations, n_times - 1
        return cls(
            positions=positions,
            times=torch.empty(n_simulations, n_times, dtype=torch.float32, device="cpu"),
            marginal_error=torch.empty(status, dtype=torch.float32, device="cpu"),
            converged=torch.empty(status, dtype=torch.bool, device="cpu"),
        )

    def store(self, simulations: slice, times: Tensor, moved: Trajectories) -> None:
        """Write some simulations into their places.

        Parameters
        ----------
        simulations : slice
            Their places.
        times : Tensor of shape (B, n_steps + 1)
            Their times.
        moved : Trajectories
            Positions, and the solver's status at every step.
        """
        self.times[simulations] = times.to(self.times)
        self.positions[simulations] = moved.positions.to(self.positions)
        self.marginal_error[simulations] = moved.marginal_error.to(self.marginal_error)
        self.converged[simulations] = moved.converged.to(self.converged)

    def __len__(self) -> int:
        """Count the records: one a simulation, step and particle."""
        n_simulations, n_times, n_particles, _ = self.positions.shape
        return n_simulations * (n_times - 1) * n_particles

    def __getitem__(self, simulations: slice) -> TrajectoryPool:
        """Return the pool of some of the simulations; nothing is copied."""
        return TrajectoryPool(
            self.positions[simulations],
            self.times[simulations],
            self.marginal_error[simulations],
            self.converged[simulations],
        )

    def records(self, index: Tensor) -> Records:
        """Look up records by number.

        Parameters
        ----------
        index : integer Tensor of shape (n,)
            Numbers from 0 to ``len(pool) - 1``.

        Returns
        -------
        Records
            Times, positions and velocities.
        """
        _, n_times, n_particles, d = self.positions.shape
        # A simulation has one position of every particle more than it has records of it.
        place = index + index // (n_particles * (n_times - 1)) * n_particles
        now = place // n_particles
        rows, times = self.positions.reshape(-1, d), self.times.reshape(-1)
        x, u = rows.index_select(0, place), rows.index_select(0, place + n_particles)
        t, t_next = times[now], times[now + 1]
        return Records(t, x, u.sub_(x).div_((t_next - t).unsqueeze(-1)))

    def draw(self, n_records: int, generator: torch.Generator) -> Records:
        """Draw records uniformly, with replacement.

        Parameters
        ----------
        n_records : int
            How many.
        generator : torch.Generator
            Source of randomness.

        Returns
        -------
        Records
            Times, positions and velocities.
        """
        device = generator.device
        index = torch.randint(len(self), (n_records,), device=device, generator=generator)
        return self.records(index)
