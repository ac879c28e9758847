import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from sknsgf.networks import VelocityMLP
from sknsgf.training import Training, train, velocity_matching_loss

pytestmark = pytest.mark.gradients

SETTINGS = {"max_iter": 100, "learning_rate": 0.01, "ema_decay": 0.9}


class Point(nn.Module):
    """A network that is a point: what training does to it can be read off."""

    def __init__(self, *start):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, t, x):
        return self.at.expand_as(x)


@pytest.fixture
def point(device):
    return Point(1.0, -2.0).to(device)


@pytest.fixture(autouse=True)
def same_weights_every_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def downhill(network):
    """A loss of unit gradient: under Adam every step is as long as its learning rate."""
    return network.at.sum() / math.sqrt(len(network.at))


def towards_zero(network):
    return network.at.square().mean()


def follow(network, loss, **settings):
    """Train; return every iterate too, the start first."""
    iterates = [network.at.detach().clone()]
    fitted, history = train(
        network,
        loss,
        progress=lambda _: iterates.append(network.at.detach().clone()),
        **{**SETTINGS, **settings},
    )
    return fitted, history, torch.stack(iterates)


class Counted:
    """A loss that misbehaves at one of its calls."""

    def __init__(self, loss, at_call, spoil):
        self.loss, self.at_call, self.spoil, self.calls = loss, at_call, spoil, 0

    def __call__(self, network):
        self.calls += 1
        value = self.loss(network)
        return self.spoil(network, value) if self.calls == self.at_call else value


# The average


@pytest.mark.parametrize("ema_decay", [0.0, 0.9, 0.9999])
def test_average_of_a_constant_is_the_constant(point, ema_decay):
    start = point.at.detach().clone()
    fitted, _ = train(point, lambda f: 0 * downhill(f), **{**SETTINGS, "ema_decay": ema_decay})
    assert torch.equal(point.at, start)
    assert torch.equal(fitted.at, start)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9, 0.9999])
def test_average_of_one_iterate_is_that_iterate(point, ema_decay):
    fitted, _, iterates = follow(point, downhill, max_iter=1, ema_decay=ema_decay)
    assert not torch.equal(iterates[0], iterates[1])
    assert torch.equal(fitted.at, iterates[1])


@pytest.mark.parametrize("max_iter", [2, 5, 50])
def test_average_never_remembers_the_start(point, max_iter):
    # The iterates walk one way, so an average that holds some of the start lies behind the
    # first of them.
    fitted, _, iterates = follow(point, downhill, max_iter=max_iter, ema_decay=0.9999)
    assert (iterates.diff(dim=0) < 0).all()
    assert (iterates[-1] < fitted.at).all()
    assert (fitted.at < iterates[1]).all()


def test_more_decay_averages_over_more(point):
    behind = []
    for decay in (0.0, 0.5, 0.9, 0.99):
        fitted, _, iterates = follow(copy.deepcopy(point), downhill, ema_decay=decay)
        behind.append(float((fitted.at - iterates[-1]).norm()))
    assert behind[0] == 0
    assert behind == sorted(set(behind))


def test_buffers_are_those_of_the_trained_network(device):
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double().to(device)
    x = 5 + torch.arange(8.0, dtype=torch.float64, device=device).reshape(4, 2)
    fitted, _ = train(network, lambda f: f(x).square().mean(), **SETTINGS)
    for kept, current in zip(fitted.buffers(), network.buffers(), strict=True):
        assert torch.equal(kept, current)
    assert fitted[1].num_batches_tracked == SETTINGS["max_iter"]


def test_returned_network_is_ready_to_use(point):
    fitted, _, _ = follow(point, downhill)
    assert fitted is not point
    assert not fitted.training
    assert not any(p.requires_grad for p in fitted.parameters())


# The learning rate


@pytest.mark.parametrize("max_iter", [10, 100, 1000])
def test_learning_rate_warms_up_and_ends_near_zero(device, max_iter):
    _, _, iterates = follow(Point(0.0).to(device), downhill, max_iter=max_iter)
    rates = -iterates.diff(dim=0).squeeze(-1) / SETTINGS["learning_rate"]
    top = int(rates.argmax())
    assert rates.max() == pytest.approx(1, rel=1e-6)
    assert top <= max(1, max_iter // 10)
    assert (rates[: top + 1].diff() > 0).all()
    torch.testing.assert_close(
        rates[:top], rates[0] * torch.arange(1, top + 1).to(rates), rtol=1e-5, atol=0
    )
    assert (rates[top + 2 :].diff() < 0).all()
    assert 0 < rates[-1] < (0.01 if max_iter >= 100 else 0.1)


def test_learning_rate_falls_as_a_cosine(device):
    _, _, iterates = follow(Point(0.0).to(device), downhill, max_iter=1000)
    rates = -iterates.diff(dim=0).squeeze(-1) / SETTINGS["learning_rate"]
    middle = rates[50:].cpu()
    # A cosine is symmetric about its middle: high and low shoulders add up.
    torch.testing.assert_close(
        middle + middle.flip(0), torch.full_like(middle, 1.005), rtol=0, atol=0.01
    )
    assert middle[len(middle) // 4] == pytest.approx((1 + math.sqrt(0.5)) / 2, abs=0.01)


# What goes wrong


def test_a_huge_gradient_moves_no_further_than_a_large_one(point):
    runs = []
    for scale in (1, 1e3, 1e8):
        loss = Counted(downhill, 20, lambda _, value, scale=scale: scale * value)
        runs.append(follow(copy.deepcopy(point), loss)[2])
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(runs[2], runs[0], rtol=1e-6, atol=1e-6)


def test_gradients_are_clipped_by_their_joint_norm(device):
    network = Point(0.0, 0.0).to(device)
    seen = []
    network.at.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad))
    train(network, lambda f: 300 * f.at[0] + 400 * f.at[1], **{**SETTINGS, "max_iter": 1})
    torch.testing.assert_close(seen[0].cpu(), torch.tensor([0.6, 0.8]).double())


SPOILERS = {
    "loss is nan": lambda network, value: value * math.nan,
    "loss is inf": lambda network, value: value * math.inf,
    "only the loss is inf": lambda network, value: value + math.inf,
    # The derivative of the root is infinite at zero.
    "gradient is nan": lambda network, value: value + (0 * network.at).sum().sqrt(),
    "gradient is inf": lambda network, value: (
        value + (network.at - network.at.detach()).sum().sqrt()
    ),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
@pytest.mark.parametrize("at_call", [1, 2, 37])
def test_what_is_not_finite_stops_before_it_touches_the_weights(point, spoiler, at_call):
    same = copy.deepcopy(point)
    loss = Counted(towards_zero, at_call, SPOILERS[spoiler])
    fitted, history, iterates = follow(point, loss)
    _, clean_history, clean = follow(same, towards_zero)
    assert history.status == "diverged"
    assert loss.calls == at_call
    assert len(history.loss) == at_call - 1 == len(iterates) - 1
    assert torch.equal(history.loss, clean_history.loss[: at_call - 1])
    assert torch.equal(iterates, clean[:at_call])
    assert torch.equal(point.at, iterates[-1])
    assert torch.isfinite(fitted.at).all()


def test_loss_that_is_finite_but_whose_spoiled_gradient_is_not(point):
    value = SPOILERS["gradient is nan"](point, towards_zero(point))
    assert torch.isfinite(value)
    value.backward()
    assert not torch.isfinite(point.at.grad).all()


def test_divergence_keeps_the_best_average_so_far(point):
    loss = Counted(towards_zero, 90, SPOILERS["loss is nan"])
    fitted, history, _ = follow(point, loss, validation_loss=towards_zero)
    assert history.status == "diverged"
    assert float(towards_zero(fitted)) == pytest.approx(float(history.validation_loss.min()))


@pytest.mark.parametrize("rate", [1e6, 1e30, 1e200])
@pytest.mark.parametrize("max_iter", [1, 2, 100])
def test_exploding_training_returns_what_was_good(rate, max_iter):
    point = Point(1.0, -2.0)
    start = float(towards_zero(point).detach())
    fitted, history = train(
        point, towards_zero, max_iter=max_iter, learning_rate=rate, ema_decay=0.9
    )
    assert history.status == "diverged"
    assert float(towards_zero(fitted)) <= 100 * start


def test_a_training_that_recovers_has_not_diverged(point):
    settings = {"max_iter": 1000, "learning_rate": 300.0, "ema_decay": 0.9}
    fitted, history = train(point, towards_zero, **settings)
    assert history.loss.max() > history.loss[0]
    assert history.status == "completed"
    assert towards_zero(fitted) < history.loss[0]


def test_frozen_and_unused_matrices_stay_as_they_are():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.Parameter(torch.ones(2, 2, dtype=torch.float32), requires_grad=False)
            self.unused = nn.Parameter(torch.ones(2, 2, dtype=torch.float32))
            self.used = nn.Parameter(torch.ones(2, 2, dtype=torch.float32))

    network = Partly()
    fitted, _ = train(network, lambda f: (f.used @ f.frozen).square().sum(), **SETTINGS)
    for matrix in (network.frozen, network.unused, fitted.frozen, fitted.unused):
        assert (matrix == 1).all()
    assert (fitted.used != 1).all()


def test_a_training_that_has_ended_takes_no_step(point):
    settings = {"max_iter": 2, "learning_rate": 0.1, "ema_decay": 0.9}
    training = Training(point, **settings)
    steps = [training.step(lambda network, _: towards_zero(network)) for _ in range(4)]
    assert steps == [True, True, False, False]
    assert training.iteration == 2


# Early stopping


def scripted(values, seen=None):
    """A held-out loss with a will of its own; it remembers the networks it judged."""
    remaining = iter(values)

    def validation_loss(network):
        assert not network.training
        assert not torch.is_grad_enabled()
        if seen is not None:
            seen.append(network.at.detach().clone())
        return torch.tensor(next(remaining))

    return validation_loss


def test_training_stops_when_the_held_out_loss_has_not_fallen_for_a_fifth_of_the_run(point):
    seen = []
    values = [5.0, 4.0, 3.0, 3.5, 2.0, *[2.0 + i % 3 for i in range(100)]]
    fitted, history, iterates = follow(
        point, downhill, max_iter=500, validation_loss=scripted(values, seen)
    )
    assert history.status == "stopped early"
    best = int(history.validation_loss.argmin())
    assert best == 4
    last = int(history.validation_iter[-1])
    assert len(history.loss) == len(iterates) - 1 == last
    assert last - int(history.validation_iter[best]) == 500 // 5
    assert torch.equal(fitted.at, seen[best])
    assert not torch.equal(fitted.at, seen[-1])


def test_training_goes_on_while_the_held_out_loss_falls(point):
    values = [1 / (1 + i // 9) for i in range(101)]  # never flat for ten validations
    _, history, _ = follow(point, downhill, max_iter=500, validation_loss=scripted(values))
    assert history.status == "completed"
    assert len(history.loss) == 500


def test_held_out_loss_is_that_of_the_returned_network(point):
    fitted, history, _ = follow(point, towards_zero, validation_loss=towards_zero)
    assert len(history.validation_iter) == len(history.validation_loss) > 10
    assert float(towards_zero(fitted)) == pytest.approx(float(history.validation_loss.min()))


def test_watching_changes_nothing(point):
    watched, same = copy.deepcopy(point), point
    _, _, iterates = follow(watched, towards_zero, validation_loss=towards_zero)
    assert torch.equal(iterates, follow(same, towards_zero)[2])
    assert watched.training


@pytest.mark.parametrize("max_iter", [1, 3, 49, 51])
def test_short_runs_are_watched_too(point, max_iter):
    _, history, _ = follow(point, downhill, max_iter=max_iter, validation_loss=downhill)
    assert history.status == "completed"
    assert len(history.loss) == int(history.validation_iter[-1]) == max_iter


# Velocity matching


def linear_field(t, x):
    matrix = torch.tensor([[0.5, -1.0], [1.0, 0.3]], dtype=x.dtype, device=x.device)
    return x @ matrix.T + torch.stack([t, 1 - 2 * t], -1)


def draw_linear_field(n, generator, device):
    t = torch.rand(n, dtype=torch.float64, generator=generator).to(device)
    x = torch.randn(n, 2, dtype=torch.float64, generator=generator).to(device)
    return t, x, linear_field(t, x)


def fit_linear_field(network, device, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return train(
        network,
        lambda f: velocity_matching_loss(f, *draw_linear_field(256, generator, device)),
        **{"max_iter": 800, "learning_rate": 5e-3, "ema_decay": 0.99, **settings},
    )


def test_velocity_matching_recovers_a_linear_field(device):
    network, history = fit_linear_field(VelocityMLP(2, (64, 64)).double().to(device), device)
    t, x, u = draw_linear_field(1000, torch.Generator().manual_seed(1), device)
    assert (network(t, x) - u).norm() < 0.03 * u.norm()
    assert history.status == "completed"
    assert history.loss[-100:].mean() < 0.01 * history.loss[0]


@pytest.fixture
def three_alike(device):
    network = VelocityMLP(2, (16,)).double().to(device)
    return network, copy.deepcopy(network), copy.deepcopy(network)


def test_training_twice_gives_the_same_bits(device, three_alike, untouched_global_seeds):
    runs = [
        fit_linear_field(network, device, seed, max_iter=50)
        for network, seed in zip(three_alike, (0, 0, 1), strict=True)
    ]
    (first, history), (second, history_again), (other, _) = runs
    assert torch.equal(history.loss, history_again.loss)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not any(map(torch.equal, first.parameters(), other.parameters()))


def test_loss_is_its_formula(device):
    t, x, u = draw_linear_field(10, torch.Generator().manual_seed(0), device)
    network = VelocityMLP(2, (8,)).double().to(device)
    squares = [sum((network(t, x)[i, k] - u[i, k]) ** 2 for k in range(2)) for i in range(10)]
    torch.testing.assert_close(velocity_matching_loss(network, t, x, u), sum(squares) / 20)
    assert velocity_matching_loss(linear_field, t, x, u) == 0


def test_where_records_disagree_their_mean_is_learned(device):
    t, x = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    u = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    records = [part.to(device) for part in (t, x, u)]
    fitted, _ = train(
        Point(0.0).to(device),
        lambda f: velocity_matching_loss(f, *records),
        **{**SETTINGS, "max_iter": 1000},
    )
    assert float(fitted.at) == pytest.approx(1, abs=1e-3)


class Weight(nn.Module):
    """One weight that a constant gradient moves, in a module that counts as false."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def __len__(self):
        return 0


def stop_early(held_out, max_iter):
    losses = iter(held_out)
    return train(
        Weight(),
        lambda network: network.weight,
        max_iter=max_iter,
        learning_rate=0.1,
        ema_decay=0,
        validation_loss=lambda network: torch.tensor(next(losses)),
    )


@pytest.mark.parametrize("max_iter", [5, 40, 99, 100, 1000])
def test_patience_is_a_fifth_of_the_run(max_iter):
    _, history = stop_early([1.0] + [2.0] * max_iter, max_iter)
    first = int(history.validation_iter[0])
    every = max(1, max_iter // 50)
    assert history.status == "stopped early"
    assert 0 <= len(history.loss) - first - 0.2 * max_iter < every


def test_a_held_out_loss_that_starts_as_nan_is_improved_upon():
    _, history = stop_early([math.nan, math.nan, *(1 / k for k in range(1, 100))], 50)
    assert history.status == "completed" and len(history.loss) == 50


def test_the_best_network_is_returned_whatever_its_truth_value():
    best, _ = stop_early([1.0] + [2.0] * 50, 50)
    last, _ = stop_early([2.0] + [1 / k for k in range(1, 51)], 50)
    assert 0 > float(best.weight) > float(last.weight)


def test_history_without_validation_is_empty_and_typed():
    _, history = train(Weight(), lambda f: f.weight, max_iter=2, learning_rate=0.1, ema_decay=0)
    assert history.validation_iter.dtype == torch.int64 and len(history.validation_loss) == 0


class TestHistory:
    @pytest.fixture
    def history(self, point):
        """Of 100 iterations, validated after every second."""
        return train(point, downhill, validation_loss=downhill, **SETTINGS)[1]

    def test_counts_from_one(self, history):
        assert len(history) == 100
        assert history.iter.tolist() == list(range(1, 101))
        assert [record.iter for record in history] == history.iter.tolist()

    def test_one_iteration(self, history):
        assert history[0].loss == float(history.loss[0])
        assert math.isnan(history[0].validation_loss)
        assert history[-1] == (100, float(history.loss[-1]), float(history.validation_loss[-1]))
        with pytest.raises(IndexError):
            history[100]

    @pytest.mark.parametrize("window", [slice(7, 23), slice(-10, None), slice(1, None, 3)])
    def test_a_window_has_the_records_of_its_iterations(self, history, window):
        part = history[window]
        assert str(list(part)) == str(list(history)[window])  # by text: NaN equals nothing
        validated = [record.iter for record in part if not math.isnan(record.validation_loss)]
        assert part.validation_iter.tolist() == validated
        assert part.status == history.status

    def test_the_two_parts_make_the_whole_again(self, history):
        first, second = history[:37], history[37:]
        counted_on = dataclasses.replace(
            second, iter=second.iter - 37, validation_iter=second.validation_iter - 37
        )
        assert str(list(first + counted_on)) == str(list(history))
        nothing = history[:0]
        assert str(list(nothing + history)) == str(list(history + nothing)) == str(list(history))


def test_training_stops_when_asked(point):
    asked = []

    def should_stop(iteration, network):
        asked.append(network.at.detach().clone())
        return iteration == 7

    fitted, history = train(point, downhill, should_stop=should_stop, **SETTINGS)
    assert history.status == "stopped early"
    assert len(history) == len(asked) == 7
    assert torch.equal(fitted.at, asked[-1])


def test_no_steps_are_none(point):
    fitted, history = train(point, downhill, **{**SETTINGS, "max_iter": 0})
    assert (len(history), history.status) == (0, "completed")
    assert torch.equal(fitted.at, point.at)
