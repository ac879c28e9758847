"""A sampler derived from the base of all: three methods, and everything else works."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from sknsgf.algorithms import Learned, NetworkSpec
from sknsgf.flow import Records, Status
from sknsgf.ode import Inverse, Solution
from sknsgf.samplers import BaseFlowSampler
from sknsgf.training import Training, velocity_matching_loss

X = np.random.default_rng(0).normal(size=(60, 2))
Y = X + np.array([5.0, -3.0])


@dataclass(frozen=True)
class ShiftMap:
    """Points moved by one vector."""

    shift: torch.Tensor
    n_states = 2

    def forward(self, x):
        return x + self.shift

    def path(self, x):
        return Solution(torch.tensor([0.0, 1.0]), torch.stack([x, self.forward(x)]), 0)

    def backward(self, x):
        states = torch.stack([x, x - self.shift])
        return Inverse(torch.tensor([1.0, 0.0]), states, 0, x.new_zeros(len(x)))


@dataclass(frozen=True)
class MeanShift:
    """The vector between two means: nothing is trained."""

    def stages(self, ends):
        return 0

    def learn(self, ends, run, start=None):
        generator = torch.Generator().manual_seed(run.stream("source"))
        x = ends.source.draw(1000, generator)
        return Learned(ShiftMap(ends.target.mean(0) - x.mean(0)), {}, {}, {})


class MeanShiftSampler(BaseFlowSampler):
    __fitted_kinds__: ClassVar = {**BaseFlowSampler.__fitted_kinds__, "shift_": [np.ndarray]}

    def __init__(self, *, source=None, random_state=None):
        super().__init__(source=source, random_state=random_state)

    def _algorithm(self, n_features):
        return MeanShift()

    def _attributes(self, learned, algorithm, common):
        return {"shift_": learned.shift.numpy()}

    def _learned_map(self, dtype):
        return ShiftMap(torch.from_numpy(self.shift_).to(dtype))


@parametrize_with_checks([MeanShiftSampler(source="gaussian", random_state=0)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_points_are_moved_and_come_back():
    flow = MeanShiftSampler().fit(X, Y)
    np.testing.assert_allclose(flow.transform(X).mean(0), Y.mean(0), atol=0.2)
    np.testing.assert_allclose(flow.inverse_transform(flow.transform(X)), X)
    np.testing.assert_array_equal(flow.trajectory(X).states[-1], flow.transform(X))
    assert flow.score(X, Y) > flow.score(X, Y + 1)


def test_it_is_saved_and_drawn_from(tmp_path):
    flow = MeanShiftSampler(source="gaussian", random_state=0).fit(Y)
    flow.save(tmp_path / "flow.npz")
    loaded = MeanShiftSampler.load(tmp_path / "flow.npz")
    np.testing.assert_array_equal(flow.sample(30), loaded.sample(30))


def test_what_is_not_trained_has_no_history():
    flow = MeanShiftSampler().fit(X, Y)
    assert flow.history_ == {} and flow.n_iter_ == 0


class Zeros:
    """Teaches points to stay where they are."""

    status = Status(n_problems=10, n_unsolved=5, tol=0.1)

    def batch(self, number):
        x = torch.ones(8, 2, dtype=torch.float32)
        return Records(torch.zeros_like(x[:, 0]), x, torch.zeros_like(x))


@dataclass(frozen=True)
class TrainedShift(MeanShift):
    """A shift beside which networks are trained, one a stage."""

    names: tuple[str, ...]

    def stages(self, ends):
        return len(self.names)

    def learn(self, ends, run, start=None):
        histories = {}
        for name in self.names:
            network = NetworkSpec(2, hidden_layer_sizes=(4,)).make(run.stream(name))
            training = Training(network, max_iter=3, learning_rate=0.5, ema_decay=0.9)
            _, histories[name] = run.train(name, training, Zeros(), self.loss)
        statuses = {name: Zeros.status for name in self.names}
        rates = dict.fromkeys(self.names, 0.5)
        learned = super().learn(ends, run)
        return learned._replace(histories=histories, statuses=statuses, learning_rates=rates)

    def loss(self, network, records):
        return velocity_matching_loss(network, records.t, records.x, records.u)


class DivergingShift(TrainedShift):
    def loss(self, network, records):
        return super().loss(network, records) * torch.inf


class TrainedShiftSampler(MeanShiftSampler):
    def __init__(self, *, algorithm=None, source=None, random_state=None):
        super().__init__(source=source, random_state=random_state)
        self.algorithm = algorithm

    def _algorithm(self, n_features):
        return self.algorithm


@pytest.mark.filterwarnings("ignore:50%")
def test_one_history_is_alone_and_several_have_names():
    one = TrainedShiftSampler(algorithm=TrainedShift(("a",))).fit(X, Y)
    two = TrainedShiftSampler(algorithm=TrainedShift(("a", "b"))).fit(X, Y)
    assert len(one.history_) == one.n_iter_ == 3
    assert {name: len(history) for name, history in two.history_.items()} == {"a": 3, "b": 3}
    assert one.partial_fit(X, Y).n_iter_ == len(one.history_) == 6
    assert two.partial_fit(X, Y).n_iter_ == 12 and len(two.history_["b"]) == 6


def test_what_went_wrong_is_warned_of():
    with pytest.warns(ConvergenceWarning, match="50% of the transport problems of the a stopped"):
        TrainedShiftSampler(algorithm=TrainedShift(("a",))).fit(X, Y)
    with (
        pytest.warns(ConvergenceWarning, match="Lower learning_rate=0.5"),
        pytest.warns(ConvergenceWarning, match="50%"),
    ):
        TrainedShiftSampler(algorithm=DivergingShift(("a",))).fit(X, Y)
