"""
An algorithm of your own
========================

Estimators are thin here. Behind each is an algorithm that knows tensors
alone, and a map that it learns. Write these two, and
:class:`~sknsgf.samplers.BaseFlowSampler` makes an estimator of them: arrays
and units, pipelines, inverses, seeds, progress bars, files. Here: flow
matching, in a hundred lines.
"""

# %%
# A teacher
# ---------
# Flow matching asks a network for the velocity along straight lines from
# random starts to random ends. Whatever teaches has a `status`, which counts
# transport problems (there are none here), and a `batch(number)`. A batch is
# a function of the seed and its number alone: so fits repeat to the bit.

import copy
from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from sknsgf import NSGFSampler
from sknsgf.algorithms import Ends, Learned, NetworkSpec, Rows
from sknsgf.datasets import make_8gaussians, make_moons
from sknsgf.flow import Status, seeded_generator, straight_records
from sknsgf.metrics import energy_distance
from sknsgf.networks import go_on_with
from sknsgf.ode import integrate, invert
from sknsgf.plotting import plot_particles, plot_trajectories
from sknsgf.samplers import BaseFlowSampler
from sknsgf.training import Training, velocity_matching_loss


@dataclass(frozen=True)
class RandomLines:
    """Points on lines between starts and ends that are drawn at random."""

    ends: Ends
    seed: int
    status = Status()

    def batch(self, number):
        """Return times, positions and velocities."""
        generator = seeded_generator(self.seed, number)
        x = self.ends.source.draw(256, generator)
        y = Rows(self.ends.target).draw(256, generator)
        return straight_records(x, y, generator)


# %%
# A map
# -----
# What is learned moves points: forward, back, and with all states on the way.


@dataclass(frozen=True)
class EulerMap:
    """Points moved by Euler steps along the velocity of a network."""

    network: nn.Module
    n_steps: int

    @property
    def n_states(self):
        """States on a path."""
        return self.n_steps + 1

    def forward(self, x):
        """Move points (n, d) to the end."""
        return self.path(x).x[-1]

    @torch.no_grad()
    def path(self, x):
        """Return all states on the way."""
        return integrate(self.network, x, self._times())

    @torch.no_grad()
    def backward(self, x):
        """Return the way back."""
        return invert(self.network, x, self._times(), tol=1e-5)

    def _times(self):
        return torch.linspace(0, 1, self.n_states)


# %%
# An algorithm
# ------------
# Plain values that `learn` a map. The run has a seed for every name and knows
# the device; `run.train` tells progress bars and callbacks of every step.
# `start` is the map to go on from, in a `partial_fit`.


@dataclass(frozen=True)
class FlowMatching:
    """Lipman et al., Flow Matching for Generative Modeling, ICLR 2023."""

    network: NetworkSpec
    n_steps: int
    max_iter: int
    learning_rate: float

    def stages(self, ends):
        """Count the stages of a run: training is all there is."""
        return 1

    def learn(self, ends, run, start=None):
        """Train, and return the map."""
        network = self.network.make(run.stream("network"))
        if start is not None:
            network = go_on_with(start.network, network)
        teacher = RandomLines(ends, run.stream("lines"))
        training = Training(
            network.to(run.device),
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
            ema_decay=0.995,
        )
        network, history = run.train("train", training, teacher, loss)
        return Learned(
            EulerMap(network, self.n_steps),
            histories={"train": history},
            statuses={"train": teacher.status},
            learning_rates={"train": self.learning_rate},
        )


def loss(network, records):
    """Miss the velocities by this much."""
    return velocity_matching_loss(network, records.t, records.x, records.u)


# %%
# An estimator
# ------------
# Three methods: which algorithm the parameters stand for, what is kept of
# the map, and how the map is made of it again. `save` holds the attributes
# that are named in `__fitted_kinds__`.


class FlowMatchingSampler(BaseFlowSampler):
    """Flow matching for arrays."""

    __fitted_kinds__: ClassVar = {
        **BaseFlowSampler.__fitted_kinds__,
        "velocity_network_": [nn.Module],
    }

    def __init__(
        self,
        *,
        n_steps=10,
        hidden_layer_sizes=(128, 128, 128),
        max_iter=1500,
        learning_rate=3e-3,
        source=None,
        random_state=None,
    ):
        super().__init__(source=source, random_state=random_state)
        self.n_steps = n_steps
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.learning_rate = learning_rate

    def _algorithm(self, n_features):
        sizes = self.hidden_layer_sizes
        return FlowMatching(
            NetworkSpec(n_features, hidden_layer_sizes=sizes),
            n_steps=self.n_steps,
            max_iter=self.max_iter,
            learning_rate=self.learning_rate,
        )

    def _attributes(self, learned, algorithm, common):
        return {"velocity_network_": learned.network}

    def _learned_map(self, dtype):
        """Return what was learned, for tensors of a precision."""
        network = copy.deepcopy(self.velocity_network_).to(dtype)
        return EulerMap(network, self.n_steps)


# %%
# Does it work?
# -------------
# Beside the package's own estimator, with the same network, trained and
# sampled in as many steps. Lines between random pairs cross, and where they
# cross the network learns their mean: paths bend, and ten steps cut the
# corners. Particles of the Sinkhorn flow head for targets near by, on paths
# that are all but straight.

X, Y = make_8gaussians(4000, random_state=0), make_moons(4000, random_state=1)
X_new = make_8gaussians(2000, random_state=2)
Y_new = make_moons(4000, random_state=3)
shared = {
    "hidden_layer_sizes": (128, 128, 128),
    "max_iter": 1500,
    "random_state": 0,
}
flows = [FlowMatchingSampler(**shared), NSGFSampler(**shared)]

figure, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for ax, flow in zip(axes, flows, strict=True):
    path = flow.fit(X, Y).trajectory(X_new)
    plot_particles(path.states[-1], ax=ax, s=3)
    plot_trajectories(path.states[:, :100], ax=ax)
    length = np.linalg.norm(np.diff(path.states, axis=0), axis=2).sum(0)
    straight = np.linalg.norm(path.states[-1] - path.states[0], axis=1)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.set_title(
        f"{type(flow).__name__}: paths "
        f"{length.mean() / straight.mean() - 1:.0%} longer than straight"
    )
distance = flows[0].evaluate(energy_distance, X_new, X_target=Y_new)
print(f"flow matching, energy distance to fresh moons: {distance:.4f}")
plt.show()
