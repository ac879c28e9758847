"""What every algorithm is given, and what it gives back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sknsgf._arguments import shown
from sknsgf._random import stream
from sknsgf.flow import Ends, Records, Status, Teacher
from sknsgf.networks import StandardisedVelocity
from sknsgf.ode import Inverse, Solution
from sknsgf.training import Training, TrainingHistory, learn, velocity_matching_loss

Advance = Callable[..., bool]
"""Called as ``advance(n, snapshot)`` when n more pieces of a stage are done; True ends it."""


class Map(Protocol):
    """What was learned: it moves points, in the precision that its networks are in."""

    @property
    def n_states(self) -> int:
        """States that a path has."""

    def forward(self, x: Tensor) -> Tensor:
        """Move points (n, d) to the end of the flow."""

    def path(self, x: Tensor) -> Solution:
        """Return all states on the way."""

    def backward(self, x: Tensor) -> Inverse:
        """Return the way back, and how far from the points it leads from there."""


class Learned(NamedTuple):
    """What an algorithm gives back.

    Attributes
    ----------
    map : Map
        Moves points.
    histories : dict of str to TrainingHistory
        What happened in training, stage by stage.
    statuses : dict of str to Status
        How well the transport problems behind the stages were solved.
    learning_rates : dict of str to float
        The peak learning rates of the stages.
    """

    map: Any
    histories: dict[str, TrainingHistory]
    statuses: dict[str, Status]
    learning_rates: dict[str, float]


class Watch(Protocol):
    """Who is told of the stages of a run."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Open a stage of so many pieces of work."""

    def nested(self, name: str, n_stages: int) -> AbstractContextManager[Watch]:
        """Open a stage that has stages inside."""


class Unwatched:
    """Nobody is told."""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """Open a stage that never ends early."""
        yield lambda *_: False

    @contextmanager
    def nested(self, name: str, n_stages: int) -> Iterator[Watch]:
        """Open a stage that has stages inside."""
        yield self


class Checkpoint(Protocol):
    """Keeps the states of trainings, so that a run that was cut off goes on from there."""

    def begin(self, stage: str, training: Training) -> None:
        """Restore the training of a stage, if there is a state of it."""

    def step(self, stage: str, training: Training) -> None:
        """Take note of a step."""


@dataclass(frozen=True, eq=False)
class Run:
    """What an algorithm is given beside its data.

    Parameters
    ----------
    seed : int, default=0
        Seed of all random numbers.
    device : torch.device or str, default="cpu"
        Where to compute.
    n_jobs : int, default=None
        Simulations computed in parallel on the CPU, through joblib.
    watch : Watch, default=Unwatched()
        Told of every stage, and may end it.
    checkpoint : Checkpoint, default=None
        Told of every step of a training, and may restore it.
    path : str, default=""
        Names of the stages around, each with a dot behind it.

    Raises
    ------
    ValueError
        If `seed` is not a whole number, 0 or more.

    Examples
    --------
    >>> Run(seed=7).stream("network") == Run(seed=7).stream("network")
    True
    """

    seed: int = 0
    device: torch.device | str = "cpu"
    n_jobs: int | None = None
    watch: Watch = field(default_factory=Unwatched)
    checkpoint: Checkpoint | None = None
    path: str = ""

    def __post_init__(self) -> None:
        """Raise unless random numbers can be drawn by the seed."""
        is_integer = isinstance(self.seed, Integral) and not isinstance(self.seed, bool)
        if not is_integer or self.seed < 0:
            raise ValueError(f"seed must be a whole number, 0 or more, got {shown(self.seed)}.")

    def stream(self, name: str) -> int:
        """Return the seed of the random numbers of a name.

        Parameters
        ----------
        name : str
            What they are for.

        Returns
        -------
        int
            A function of the seed of the run and the name alone.
        """
        return stream(self.seed, name)

    @contextmanager
    def nested(self, name: str, n_stages: int) -> Iterator[Run]:
        """Open the run of an algorithm inside, as a stage with random numbers of its own.

        Parameters
        ----------
        name : str
            Of the stage.
        n_stages : int
            How many stages it has inside.

        Yields
        ------
        Run
            What the algorithm inside is given.
        """
        with self.watch.nested(name, n_stages) as watch:
            path = f"{self.path}{name}."
            yield replace(self, seed=self.stream(name), watch=watch, path=path)

    def train(
        self,
        stage: str,
        training: Training,
        teacher: Teacher,
        loss: Callable[[nn.Module, Records], Tensor],
        unseen: Records | None = None,
        snapshot: Callable[[nn.Module], Any] | None = None,
    ) -> tuple[nn.Module, TrainingHistory]:
        """Train a network on the batches of a teacher, as a stage.

        Parameters
        ----------
        stage : str
            Its name.
        training : Training
            The network, as it begins.
        teacher : Teacher
            Draws batch after batch.
        loss : callable (network, records) -> Tensor of shape ()
            What is minimised.
        unseen : Records, default=None
            Held out: training stops when the loss on them stops falling.
        snapshot : callable (network) -> Map or None, default=None
            Makes a map of a network in training, if it can.

        Returns
        -------
        network : Module
            Trained.
        history : TrainingHistory
            What happened.
        """
        name = self.path + stage
        if self.checkpoint is not None:
            self.checkpoint.begin(name, training)
        held_out_loss = None
        if unseen is not None:
            held_out = unseen.to(self.device)

            def held_out_loss(network: nn.Module) -> Tensor:
                return loss(network, held_out)

        def objective(network: nn.Module, number: int) -> Tensor:
            return loss(network, teacher.batch(number).to(self.device))

        with self.watch.stage(stage, training.max_iter) as advance:

            def after_step(training: Training) -> None:
                if advance(
                    1, lambda: snapshot and snapshot(copy.deepcopy(training.average).eval())
                ):
                    training.stop()
                if self.checkpoint is not None:
                    self.checkpoint.step(name, training)

            if training.iteration and advance(training.iteration):  # where it goes on
                training.stop()
            learn(
                training,
                objective,
                held_out_loss=held_out_loss,
                after_step=after_step,
            )
        return training.result()


def velocity_loss(
    student: StandardisedVelocity,
) -> Callable[[nn.Module, Records], Tensor]:
    """Return the velocity matching loss relative to the variance of the velocities."""
    unit = float(student.u_scale) ** 2

    def loss(network: nn.Module, records: Records) -> Tensor:
        return velocity_matching_loss(network, records.t, records.x, records.u) / unit

    return loss


class Algorithm(Protocol):
    """A paper's algorithm: plain values that learn a map from tensors."""

    def stages(self, ends: Ends) -> int:
        """Count the stages of a run."""

    def learn(self, ends: Ends, run: Run, start: Any = None) -> Learned:
        """Learn a map; `start` is one to go on from."""
