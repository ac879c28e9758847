"""Whatever a caller has set around a call: results are the same bits, and nothing is moved."""

import ast
import copy
import random
import sys
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import sknsgf
from sknsgf import NSGFPlusPlus, NSGFSampler, datasets, metrics, ode, sinkhorn
from sknsgf._random import seeded_generator
from sknsgf._surroundings import undisturbed, without_autocast
from sknsgf.algorithms import Run, SinkhornFlow, TwoPhases
from sknsgf.flow import (
    Ends,
    GaussianNoise,
    Rows,
    coupled_pairs,
    large_pairs,
    simulate_sinkhorn_flow,
    sinkhorn_velocity,
    straight_schedule,
)
from sknsgf.networks import NetworkSpec, VelocityMLP, describe_network, rebuild_network
from sknsgf.training import train

SPREAD = np.random.default_rng(0)
X, Y = SPREAD.normal(size=(60, 2)), SPREAD.uniform(size=(50, 2)) + 3
IMAGES = SPREAD.uniform(size=(30, 16)).astype(np.float32)
XS, YS = (torch.from_numpy(rows).float() for rows in (X, Y))
LARGE = torch.from_numpy(SPREAD.normal(size=(2, 6000, 2))).float()
QUICK = {"hidden_layer_sizes": (16,), "max_iter": 6, "random_state": 0}
SHORT = QUICK | {"n_steps": 4, "n_simulations": 4}


class Downhill(nn.Module):
    """A network of the user's own: minus the gradient of a potential."""

    def __init__(self, d):
        super().__init__()
        self.potential = nn.Sequential(nn.Linear(d + 1, 16), nn.Softplus(), nn.Linear(16, 1))

    def forward(self, t, x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            height = self.potential(torch.cat([x, t[:, None]], 1)).sum()
            return -torch.autograd.grad(height, x, create_graph=True)[0]


DOWNHILL, LINE = Downhill(2), nn.Linear(2, 2)


# What is done, and what comes of it. Data is made above, outside of any world.


def use(flow, *data, tmp_path):
    """Call every public method of a sampler; return all numbers that come."""
    flow.fit(*data)
    rows = data[-1][:10]
    path = tmp_path / "flow.npz"
    flow.save(path)
    own = {} if isinstance(flow.network, str) else {"network": flow.network}
    loaded = type(flow).load(path, **own)
    for same in (flow, loaded):
        yield from (same.transform(rows), same.sample(30, random_state=1))
    yield from (flow.transform(rows.astype(np.float32)), flow.inverse_transform(rows))
    yield from (flow.round_trip_error(rows), flow.trajectory(rows).states)
    yield from (flow.score(*data), flow.evaluate(metrics.energy_distance, *data))
    if isinstance(flow, NSGFSampler):
        yield flow.velocity(0.3, rows)
    if hasattr(flow, "score_samples"):
        yield flow.score_samples(rows)
    yield from _weights(flow)
    yield flow.partial_fit(*data).transform(rows)


def nsgf(tmp_path):
    return use(NSGFSampler(source="gaussian", **SHORT), Y, tmp_path=tmp_path)


def nsgf_of_rows(tmp_path):
    flow = NSGFSampler(early_stopping=True, n_jobs=2, ode_method="rk4", **SHORT)
    return use(flow, X, Y, tmp_path=tmp_path)


def nsgf_with_a_module(tmp_path):
    return use(NSGFSampler(source="gaussian", network=DOWNHILL, **SHORT), Y, tmp_path=tmp_path)


def nsgf_with_a_factory(tmp_path):
    flow = NSGFSampler(network=lambda shape: Downhill(*shape), **SHORT)
    return use(flow, X, Y, tmp_path=tmp_path)


def plusplus(tmp_path):
    flow = NSGFPlusPlus(sinkhorn_flow=NSGFSampler(t_end=0.5, **SHORT), **QUICK)
    return use(flow, X, Y, tmp_path=tmp_path)


def plusplus_with_predictor(tmp_path):
    flow = NSGFPlusPlus(source="gaussian", straight_from="source", coupling="minibatch", **QUICK)
    return use(flow, Y, tmp_path=tmp_path)


def images(tmp_path):
    flow = NSGFPlusPlus(
        source="gaussian",
        straight_from="source",
        image_shape=(1, 4, 4),
        sinkhorn_flow=NSGFSampler(n_steps=2, t_end=0.5, max_iter=2),
        n_straight_steps=2,
        max_iter=2,
        batch_size=32,
        random_state=0,
    )
    return use(flow, IMAGES, tmp_path=tmp_path)


def algorithms(tmp_path):
    spec = NetworkSpec(2, hidden_layer_sizes=(16,))
    first = SinkhornFlow(spec, blur=0.1, n_steps=4, t_end=0.5, max_iter=6)
    for ends in (Ends(Rows(XS), YS), Ends(GaussianNoise(2), YS)):
        flow = first.learn(ends, Run()).map
        both = TwoPhases(first, spec, max_iter=6).learn(ends, Run()).map
        for learned in (flow, both):
            yield from (learned.forward(XS), learned.path(XS).x, learned.backward(YS).x)
            yield learned.velocity(XS[:, 0].clamp(0, 0.4), XS)
        yield flow.volumes(flow.path(XS[:5]).x).log_det


def transports(tmp_path):
    yield sinkhorn.transport(*LARGE, epsilon=0.05).projection
    for x, y in ((XS, YS), (XS.double(), YS.double())):
        solved = sinkhorn.transport(x, y, epsilon=0.05)
        yield from (solved.projection, solved.potentials.g)
        yield sinkhorn.self_transport(x, epsilon=0.05).projection
        yield sinkhorn.sinkhorn_divergence(x, y, blur=0.2).value
        yield sinkhorn.coupling(x, y, solved.potentials)
        yield sinkhorn.barycentric_projection(x, y, solved.potentials.g, 0.05)
        yield sinkhorn.squared_cost(x, y)


def flows(tmp_path):
    wide = torch.cat(40 * [XS], 1), torch.cat(40 * [YS], 1)  # whose products are carried along
    for x, y in ((XS, YS), wide):
        state = None
        for _ in range(3):
            v = sinkhorn_velocity(x, y, blur=0.3, state=state, step_size=state and 0.2)
            x, state = x + 0.2 * v.velocity, v.state
            yield v.velocity
    rows, targets = Rows(XS).draw, Rows(YS).draw
    pool = simulate_sinkhorn_flow(
        rows,
        targets,
        lambda generator: straight_schedule(4, generator=generator),
        n_particles=32,
        n_targets=32,
        n_simulations=4,
        blur=0.1,
    )
    yield from (pool.positions, pool.times, *pool.draw(20, seeded_generator(0, 0)))
    yield from next(
        coupled_pairs(
            lambda g: rows(16, g), lambda g: targets(16, g), seeded_generator(0, 1), blur=0.1
        )
    )
    yield from next(
        large_pairs(rows, targets, seeded_generator(0, 2), batch_size=8, n_source=60, n_target=50)
    )


def steps(tmp_path):
    grid = torch.linspace(0, 1, 6, dtype=torch.float64, device="cpu")
    x = XS.double()

    def field(t, x):
        return (x * x).sin() - t[:, None] * x

    for method in ode.METHODS:
        there = ode.integrate(field, x, grid, method=method).x
        yield from (there, ode.invert(field, there[-1], grid, method=method, tol=1e-9).x)
        yield ode.volumes(field, there, grid, method=method).log_det


def training(tmp_path):
    with torch.inference_mode(False):  # what is made there cannot be trained
        line = copy.deepcopy(LINE)
    network, history = train(
        line,
        lambda network: (network(XS[:50]) - YS).square().mean(),
        validation_loss=lambda network: network(XS).square().mean(),
        max_iter=20,
        learning_rate=0.1,
        ema_decay=0.9,
    )
    yield from (*network.parameters(), history.loss, history.validation_loss)


def networks(tmp_path):
    for spec in (NetworkSpec(2), NetworkSpec(16, image_shape=(1, 4, 4)), NetworkSpec(2, own)):
        made = spec.make(seed=3)
        yield from _weights(made)
        predictor = spec.make_predictor(seed=3)
        yield from _weights(predictor)
        rebuilt = rebuild_network(
            describe_network(predictor), predictor.state_dict(), foreign=None
        )
        yield from _weights(rebuilt)


def own(shape):
    return VelocityMLP(*shape, (8,))


def judged(tmp_path):
    yield from (metrics.w2_distance(X, Y), metrics.energy_distance(X, Y))
    yield metrics.sinkhorn_divergence(X, Y, blur=0.2)
    yield metrics.two_sample_auc(X, Y - 2, random_state=0)


def drawn(tmp_path):
    for task in datasets.TASKS:
        yield from datasets.make_task(task, 50, random_state=0)


WALKS = [
    nsgf,
    nsgf_of_rows,
    nsgf_with_a_module,
    nsgf_with_a_factory,
    plusplus,
    plusplus_with_predictor,
    images,
    algorithms,
    transports,
    flows,
    steps,
    training,
    networks,
    judged,
    drawn,
]


def _weights(holder):
    modules = [holder] if isinstance(holder, nn.Module) else vars(holder).values()
    for module in modules:
        if isinstance(module, nn.Module):
            yield from module.state_dict().values()


def outcome(walk, tmp_path):
    return [
        part.detach().numpy().copy() if isinstance(part, torch.Tensor) else np.asarray(part)
        for part in walk(tmp_path)
    ]


@pytest.fixture(scope="module", params=WALKS, ids=lambda walk: walk.__name__)
def walk(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    return request.param, folder, outcome(request.param, folder)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::UserWarning")
def test_bits_are_the_same_elsewhere(walk, elsewhere, untouched_global_seeds):
    way, folder, here = walk
    there = outcome(way, folder)
    assert len(here) == len(there)
    for a, b in zip(here, there, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(b, a)


# Who makes a tensor says where, and in which precision.

MAKERS = set(
    "arange asarray as_tensor empty eye full linspace logspace normal ones rand randint randn "
    "randperm scalar_tensor tensor zeros Generator".split()
)
WHOLE = {"arange", "randint", "randperm", "Generator"}  # of integers, whatever the default is


def unnamed(package):
    """Every call that makes a tensor by what is the default in the process or the thread."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                made, named = node.func.attr, {keyword.arg for keyword in node.keywords}
                wanted = {"device"} if made in WHOLE else {"device", "dtype"}
                if ast.unparse(node.func.value) == "torch" and made in MAKERS:
                    for word in sorted(wanted - named):
                        yield f"{path.name}:{node.lineno} torch.{made} names no {word}"


def test_every_tensor_is_made_somewhere_and_in_some_precision():
    assert list(unnamed(Path(sknsgf.__file__).parent)) == []


@pytest.mark.parametrize(
    "line, n",
    [
        ("torch.zeros(3)", 2),
        ("torch.zeros(3, device=x.device)", 1),
        ("torch.linspace(0, 1, 3, dtype=x.dtype, device='cpu')", 0),
        ("torch.randperm(3, generator=generator)", 1),
        ("torch.Generator()", 1),
        ("torch.zeros_like(x)", 0),
        ("x.new_zeros(3)", 0),
        ("np.zeros(3)", 0),
    ],
)
def test_an_unnamed_place_or_precision_is_found(tmp_path, line, n):
    (tmp_path / "module.py").write_text(f"def make(x):\n    return {line}\n")
    assert len(list(unnamed(tmp_path))) == n


# What leaves the surroundings


def test_inside_there_is_neither_autocast_nor_inference_mode():
    @undisturbed
    def look(x, *, y):
        return torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), x, y

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.ones(2, device="cpu")
        inferring, casting, *seen = look(x, y=x)
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
    assert not inferring and not casting
    assert not any(value.is_inference() for value in seen)
    assert look(XS, y=YS)[2:] == (XS, YS)  # what can be used is not copied


def test_a_network_may_choose_autocast_for_itself():
    @without_autocast()
    def outer():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return LINE(XS).dtype

    assert outer() == torch.bfloat16


# Global generators: a thread of the user's draws on as if it were alone.


class Watcher(threading.Thread):
    """Draws from all global generators until told to end."""

    def __init__(self):
        super().__init__()
        self.drawn, self.precisions, self.ended = [], set(), threading.Event()

    def run(self):
        while not self.ended.is_set():
            self.drawn.append(draw())
            self.precisions.add(torch.get_default_dtype())


def draw():
    return float(torch.rand((), device="cpu")), np.random.rand(), random.random()  # noqa: NPY002


def seed_all():
    torch.default_generator.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)


@pytest.fixture
def watched():
    """Compare what a second thread draws during a test with what it draws alone."""
    seed_all()
    watcher, interval = Watcher(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    watcher.start()
    yield
    watcher.ended.set()
    watcher.join()
    sys.setswitchinterval(interval)
    seed_all()
    assert len(watcher.drawn) > 100
    assert watcher.drawn == [draw() for _ in watcher.drawn]
    assert watcher.precisions == {torch.get_default_dtype()}


QUIET = [nsgf, plusplus_with_predictor, images, judged]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::UserWarning")
@pytest.mark.parametrize("walk", QUIET, ids=lambda walk: walk.__name__)
def test_another_thread_draws_what_it_would_have_drawn(walk, watched, tmp_path):
    outcome(walk, tmp_path)


@pytest.mark.parametrize("shape", [None, (1, 4, 4)])
def test_making_a_network_is_not_seen_from_another_thread(shape, watched):
    spec = NetworkSpec(16, image_shape=shape)
    for seed in range(30):
        spec.make(seed), spec.make_predictor(seed)


def test_networks_begin_as_torch_would_have_them_begin():
    """The numbers of the global generator, seeded alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        layers = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    made = NetworkSpec(2, hidden_layer_sizes=(8, 8)).make(seed=7)
    for a, b in zip(layers.parameters(), made.parameters(), strict=True):
        assert torch.equal(a, b)


def test_pot_may_draw_when_it_is_imported(tmp_path, monkeypatch):
    """As JAX does, which it looks for."""
    (tmp_path / "jax.py").write_text("import numpy\nnumpy.random.rand(5)\n")
    (tmp_path / "ot.py").write_text("import jax\ndef emd2(*_, **__):\n    return 0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with mock.patch.dict(sys.modules):
        for name in ("ot", "jax"):
            sys.modules.pop(name, None)
        seed_all()
        metrics.w2_distance([[0.0]], [[1.0]])
        assert sys.modules["ot"].__file__ == str(tmp_path / "ot.py")
        after = draw()
    seed_all()
    assert after == draw()
