"""The algorithms on tensors: what is learned, by numbers alone, and cut off at any step."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from sknsgf import NSGFPlusPlus, NSGFSampler
from sknsgf.algorithms import (
    Ends,
    GaussianNoise,
    NetworkSpec,
    Rows,
    Run,
    SinkhornFlow,
    TwoPhases,
)

X = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
Y = torch.rand(150, 2, generator=torch.Generator().manual_seed(1)) + 4
SPEC = NetworkSpec(2, hidden_layer_sizes=(8, 8))
FLOW = SinkhornFlow(SPEC, blur=0.2, n_steps=3, max_iter=100, batch_size=16, n_particles=40)
FIRST = replace(FLOW, t_end=0.5)
PHASES = TwoPhases(FIRST, SPEC, max_iter=100, batch_size=16)
ALGORITHMS = {
    "flow": FLOW,
    "flow, stopping": replace(FLOW, early_stopping=True),
    "phases": PHASES,
    "phases, minibatches": replace(PHASES, coupling="minibatch"),
    "phases, stopping": replace(PHASES, first=replace(FIRST, early_stopping=True)),
    "phases of the paper": replace(PHASES, straight_from="source"),
    "phases, fixed": replace(PHASES, straight_from="source", switch="fixed"),
}
STAGES = {
    name: ["sinkhorn_flow.train", "straight"] if "phases" in name else ["train"]
    for name in ALGORITHMS
}
STAGES["phases of the paper"] += ["predictor"]
ENDS = {"rows": Ends(Rows(X), Y), "noise": Ends(GaussianNoise(2), Y)}
EACH = pytest.mark.parametrize("name", ALGORITHMS)


def weights(learned):
    """All that was learned in one row."""
    first = getattr(learned.map, "first", learned.map)
    networks = [first.network]
    if first is not learned.map:
        networks += [learned.map.network]
        networks += [] if learned.map.predictor is None else [learned.map.predictor]
    return torch.cat([p.flatten() for network in networks for p in network.state_dict().values()])


@EACH
@pytest.mark.parametrize("ends", ENDS)
def test_equal_seeds_learn_equally_and_others_do_not(name, ends):
    first, second, other = (
        ALGORITHMS[name].learn(ENDS[ends], Run(seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


@EACH
def test_jobs_change_no_bit(name):
    one, two = (ALGORITHMS[name].learn(ENDS["rows"], Run(n_jobs=n)) for n in (1, 2))
    assert torch.equal(weights(one), weights(two))


@EACH
def test_points_are_moved_to_the_target_and_back(name):
    longer = replace(ALGORITHMS[name], max_iter=400)
    if hasattr(longer, "first"):
        longer = replace(longer, first=replace(longer.first, max_iter=400))
    learned = longer.learn(ENDS["rows"], Run()).map
    moved = learned.forward(X)
    torch.testing.assert_close(moved.mean(0), Y.mean(0), rtol=0, atol=0.15)
    path = learned.path(X)
    torch.testing.assert_close(path.x[-1], moved)
    torch.testing.assert_close(path.x[0], X, rtol=0, atol=0)
    assert len(path.x) <= learned.n_states
    if name == "phases of the paper":  # leaves the straight flow where it need not have entered
        return
    back = learned.backward(moved)
    reached = back.error < 1e-4
    assert reached.float().mean() > 0.9
    assert (back.x[-1] - X)[reached].abs().median() < 1e-2


class Cut(Exception):
    """The power goes off."""


class Kept:
    """A checkpoint: the state of the last stage, taken at one step of it, after which all ends."""

    def __init__(self, states, stage=None, at=None):
        self.states, self.stage, self.at = states, stage, at

    def begin(self, stage, training):
        if stage in self.states:
            training.restore(self.states[stage])

    def step(self, stage, training):
        if (stage, training.iteration) == (self.stage, self.at):
            self.states[stage] = training.state()
            raise Cut
        if not training.running:
            self.states[stage] = training.state()


RESUME = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_algorithms import ALGORITHMS, ENDS, Kept, Run, weights
torch.set_num_threads(int(sys.argv[4]))
states = torch.load(sys.argv[2], weights_only=True)
learned = ALGORITHMS[sys.argv[3]].learn(ENDS["rows"], Run(checkpoint=Kept(states)))
losses = [history.loss for history in learned.histories.values()]
torch.save([weights(learned), *losses], sys.argv[2])
"""


@pytest.mark.parametrize(
    "name, stage", [(name, stage) for name in ALGORITHMS for stage in STAGES[name]]
)
def test_a_run_cut_off_goes_on_in_a_new_process_to_the_bit(name, stage, tmp_path):
    """In any stage: 50 steps, its state, and 50 more elsewhere are 100 steps.

    The fiftieth step is one after which those that stop early are judged.
    """
    whole = ALGORITHMS[name].learn(ENDS["rows"], Run())
    states = {}
    with pytest.raises(Cut):
        ALGORITHMS[name].learn(ENDS["rows"], Run(checkpoint=Kept(states, stage, at=50)))
    torch.save(states, tmp_path / "states")
    arguments = [tmp_path / "states", name, torch.get_num_threads()]
    folder = __file__.rpartition("/")[0]
    command = [sys.executable, "-c", RESUME, folder, *map(str, arguments)]
    subprocess.run(command, check=True)
    resumed, *losses = torch.load(tmp_path / "states", weights_only=True)
    assert torch.equal(resumed, weights(whole))
    for loss, history in zip(losses, whole.histories.values(), strict=True):
        assert torch.equal(loss, history.loss)


@EACH
def test_going_on_keeps_what_was_learned(name):
    algorithm = ALGORITHMS[name]
    still = replace(algorithm, learning_rate=1e-12)
    if hasattr(still, "first"):
        still = replace(still, first=replace(still.first, learning_rate=1e-12))
    learned = algorithm.learn(ENDS["rows"], Run(seed=0))
    before = weights(learned).clone()
    later = still.learn(ENDS["rows"], Run(seed=1), learned.map)
    torch.testing.assert_close(weights(later), before, rtol=0, atol=1e-7)
    assert torch.equal(weights(learned), before)


def test_every_stage_is_told_and_can_be_ended():
    class Watch:
        def __init__(self, told, path=()):
            self.told, self.path = told, path

        @contextmanager
        def stage(self, name, total):
            done = []
            yield lambda n, snapshot=None: done.append(n) or sum(done) == 30
            self.told.append((*self.path, name, total, sum(done)))

        @contextmanager
        def nested(self, name, n_stages):
            told = []
            yield Watch(told, (*self.path, name))
            assert len(told) == n_stages
            self.told += told

    told = []
    algorithm = ALGORITHMS["phases of the paper"]
    learned = algorithm.learn(ENDS["rows"], Run(watch=Watch(told)))
    assert [stage[:-2] for stage in told] == [
        ("sinkhorn_flow", "simulate"),
        ("sinkhorn_flow", "train"),
        ("straight",),
        ("predictor",),
    ]
    assert [stage[-1] for stage in told[1:]] == [30] * 3
    assert {len(history) for history in learned.histories.values()} == {30}


def test_a_snapshot_is_a_map_of_the_average_so_far():
    taken = []

    class Watch:
        @contextmanager
        def stage(self, name, total):
            def advance(n, snapshot=None):
                if snapshot is not None:
                    taken.append(snapshot())
                return False

            yield advance

    learned = FLOW.learn(ENDS["rows"], Run(watch=Watch()))
    assert len(taken) == 100
    assert torch.equal(taken[-1].forward(X), learned.map.forward(X))
    assert not torch.equal(taken[50].forward(X), learned.map.forward(X))


def test_unsolved_problems_come_back_as_data():
    far = torch.cat([Y, torch.full_like(Y[:1], 1e6)])
    learned = FLOW.learn(Ends(Rows(X), far), Run())
    assert learned.statuses["sinkhorn_flow"].share_unsolved > 0.05
    assert FLOW.learn(ENDS["rows"], Run()).statuses["sinkhorn_flow"].share_unsolved == 0
    statuses = PHASES.learn(ENDS["rows"], Run()).statuses
    assert statuses["straight_flow"].n_problems == 1


@pytest.mark.parametrize(
    "estimator, algorithm",
    [
        (NSGFSampler(max_iter=20, random_state=0), "SinkhornFlow"),
        (NSGFPlusPlus(max_iter=20, random_state=0), "TwoPhases"),
    ],
)
def test_estimators_move_as_their_maps_do(estimator, algorithm):
    estimator.fit(X.numpy(), Y.numpy())
    learned = estimator.learned_map(torch.float64)
    rows = torch.from_numpy((X.double().numpy() - estimator.mean_) / estimator.scale_)
    moved = learned.forward(rows).numpy() * estimator.scale_ + estimator.mean_
    np.testing.assert_allclose(moved, estimator.transform(X.double().numpy()), rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must hold positive integers"),
        ({"image_shape": (1, 2, 2)}, "has 4 values but the rows have 2"),
        ({"network": "unet"}, "needs to know the images"),
    ],
)
def test_networks_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec(2, **arguments)


def test_a_run_that_stopped_early_is_not_trained_on(tmp_path):
    """What is kept of a training that has ended says so."""
    few = Ends(Rows(X[:30]), Y[:30])
    algorithm = replace(FLOW, early_stopping=True, max_iter=600, learning_rate=1e-2)
    states = {}
    whole = algorithm.learn(few, Run(checkpoint=Kept(states)))
    assert whole.histories["sinkhorn_flow"].status == "stopped early"
    again = algorithm.learn(few, Run(checkpoint=Kept(states)))
    assert torch.equal(weights(again), weights(whole))
    assert len(again.histories["sinkhorn_flow"]) == len(whole.histories["sinkhorn_flow"])
    for at in range(12, len(whole.histories["sinkhorn_flow"]), 60):
        states = {}
        with pytest.raises(Cut):
            algorithm.learn(few, Run(checkpoint=Kept(states, "train", at)))
        resumed = algorithm.learn(few, Run(checkpoint=Kept(states)))
        assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    "change",
    [
        {"n_steps": 0},
        {"n_particles": 2.5},
        {"batch_size": 0},
        {"max_iter": True},
        {"n_simulations": -1},
        {"blur": 0},
        {"blur": float("nan")},
        {"step_size": -1},
        {"step_size": 2.0},
        {"schedule": "bogus"},
        {"early_stopping": "nope"},
        {"t_end": 2.0},
        {"straight_from": "bogus"},
        {"coupling": "bogus"},
        {"switch": "bogus"},
        {"straight_step_size": 0},
        {"n_straight_steps": None},
    ],
    ids=str,
)
def test_impossible_values(change):
    (name,) = change
    algorithm = FLOW if hasattr(FLOW, name) else PHASES
    with pytest.raises(ValueError, match=name):
        replace(algorithm, **change)


@pytest.mark.parametrize(
    "source, target, error, message",
    [
        (X, Y, TypeError, r"source must have draw.*Rows\(x\)"),
        (Rows(X), Y.double(), TypeError, "target must be a float32 tensor, got torch.float64"),
        (Rows(X.double()), Y, TypeError, "source must be a float32 tensor"),
        (Rows(X), Y.numpy(), TypeError, "got ndarray"),
        (Rows(X[:0]), Y, ValueError, r"source must have shape \(n, d\)"),
        (Rows(X), Y[0], ValueError, "target must have shape"),
        (Rows(X[:, :1]), Y, ValueError, "source has 1 columns but target has 2"),
    ],
)
def test_impossible_ends(source, target, error, message):
    with pytest.raises(error, match=message):
        Ends(source, target)
