"""Random numbers by name: functions of a seed, a stream and a number alone."""

import itertools
import pickle

import pytest
import torch

from sknsgf._random import deal_indices, seeded_generator, stream
from sknsgf.flow import (
    Cloud,
    CoupledPairs,
    GaussianNoise,
    IndependentPairs,
    LargePairs,
    LineTeacher,
    PoolTeacher,
    Rows,
    TrajectoryPool,
    by_number,
)

N_ROWS = pytest.mark.parametrize("n_rows", [1, 2, 3, 10, 49, 50, 1000])


@N_ROWS
def test_every_round_is_a_permutation(n_rows):
    rounds = deal_indices(3, 0, 5 * n_rows, n_rows).reshape(5, n_rows)
    for dealt in rounds:
        assert torch.equal(dealt.sort().values, torch.arange(n_rows))
    if n_rows >= 10:
        assert len(rounds.unique(dim=0)) == 5


@N_ROWS
@pytest.mark.parametrize("n", [1, 3, 64])
def test_what_is_dealt_does_not_depend_on_how_much_is_dealt_at_a_time(n_rows, n):
    whole = deal_indices(1, 0, 10 * n, n_rows)
    parts = [deal_indices(1, n * number, n, n_rows) for number in range(10)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_shuffle_favours_no_row_and_no_pair_of_rows():
    """Chi-squared of rows by place, and of pairs of rows by pairs of places."""
    n, n_rounds = 8, 14000
    rounds = deal_indices(0, 0, n * n_rounds, n).reshape(n_rounds, n)
    for place in range(n):
        counts = rounds[:, place].bincount(minlength=n)
        assert float((counts - n_rounds / n).square().sum() / (n_rounds / n)) < 7 + 5 * 14**0.5
    for one, other in itertools.combinations(range(n), 2):
        pairs = (n * rounds[:, one] + rounds[:, other]).bincount(minlength=n * n)
        expected = n_rounds / (n * (n - 1))
        counts = pairs[~torch.eye(n, dtype=torch.bool).flatten()]
        assert float((counts - expected).square().sum() / expected) < 55 + 5 * 110**0.5


def test_seeds_and_rounds_have_orders_of_their_own():
    orders = [deal_indices(seed, 0, 2000, 1000).reshape(2, 1000) for seed in range(5)]
    agree = [
        float((a == b).float().mean()) for a, b in itertools.combinations(torch.cat(orders), 2)
    ]
    assert max(agree) < 0.01  # one in a thousand by chance


def test_streams_differ_by_seed_and_by_name():
    names = ("", "a", "b", "ab", "batches", "simulate")
    assert len({stream(seed, name) for seed in range(50) for name in names}) == 300
    assert stream(3, "a") == stream(3, "a")


def test_a_generator_is_of_the_cpu_whatever_the_default_device():
    torch.set_default_device("meta")
    try:
        assert seeded_generator(0, 1).device.type == "cpu"
    finally:
        torch.set_default_device(None)


# Teachers

X = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
Y = 2 * torch.randn(70, 2, generator=torch.Generator().manual_seed(1)) + 3


def draws(source=None):
    return by_number(source or Rows(X), 5), by_number(Rows(Y), 6)


def pool():
    positions = torch.randn(4, 6, 10, 2, generator=torch.Generator().manual_seed(2))
    times = torch.linspace(0, 1, 6).expand(4, 6).clone()
    return TrajectoryPool(positions, times, torch.zeros(4, 5), torch.ones(4, 5).bool())


TEACHERS = {
    "pool": lambda: PoolTeacher(pool(), 16, seed=1, tol=1e-2),
    "independent": lambda: LineTeacher(IndependentPairs(*draws(), 16), seed=1),
    "noise": lambda: LineTeacher(IndependentPairs(*draws(GaussianNoise(2)), 16), seed=1),
    "coupled": lambda: LineTeacher(CoupledPairs(*draws(), 16, seed=2, blur=0.3), seed=1),
    "large": lambda: LineTeacher(
        LargePairs(*draws(), seed=2, batch_size=16, n_source=40, n_target=70), seed=1
    ),
    "large, anew": lambda: LineTeacher(
        LargePairs(*draws(), seed=2, batch_size=16, n_source=40, n_target=30, fixed_target=False),
        seed=1,
    ),
}
EACH = pytest.mark.parametrize("name", TEACHERS)
NUMBERS = [0, 1, 7, 8, 33, 70, 31, 2]


def assert_same(batch, other):
    for part, same in zip(vars(batch).values(), vars(other).values(), strict=True):
        assert part is same is None or torch.equal(part, same)


@EACH
def test_a_batch_alone_is_the_batch_in_the_run(name):
    run = TEACHERS[name]()
    batches = [run.batch(number) for number in range(max(NUMBERS) + 1)]
    for number in NUMBERS:
        assert_same(TEACHERS[name]().batch(number), batches[number])
    jumping = TEACHERS[name]()
    for number in NUMBERS:
        assert_same(jumping.batch(number), batches[number])


@EACH
def test_teachers_can_be_pickled_at_any_time(name):
    teacher = TEACHERS[name]()
    teacher.batch(5)
    again = pickle.loads(pickle.dumps(teacher))
    for number in (5, 6, 40):
        assert_same(again.batch(number), teacher.batch(number))


@EACH
def test_batches_differ(name):
    teacher = TEACHERS[name]()
    starts = torch.stack([teacher.batch(number).x for number in range(20)])
    assert len(starts.unique(dim=0)) == 20


@pytest.mark.parametrize("n", [3, 16, 64])
def test_rows_are_dealt_evenly(n):
    draw = by_number(Rows(X), 0)
    counts = torch.zeros(90)
    for number in range(60):
        drawn = draw(n, number).x
        counts += (drawn[:, None] == X).all(-1).sum(0)
    assert counts.sum() == 60 * n
    assert counts.max() - counts.min() <= 1


def test_what_a_cloud_carries_goes_with_its_points():
    cloud = Cloud(X, weight=torch.arange(90.0), condition=torch.arange(180.0).view(90, 2))
    index = torch.tensor([3, 3, 50])
    taken = cloud.take(index)
    assert torch.equal(taken.x, X[index])
    assert torch.equal(taken.weight, torch.tensor([3.0, 3.0, 50.0]))
    assert torch.equal(taken.condition[:, 0], 2 * taken.weight)
    assert Cloud(X).take(index).weight is None


@pytest.mark.parametrize("kind", ["independent", "coupled", "large"])
def test_records_carry_what_the_end_of_their_line_carries(kind):
    def draw_target(n, number):
        cloud = by_number(Rows(Y), 6)(n, number)
        return cloud._replace(weight=cloud.x[:, 0], condition=cloud.x)

    sides = by_number(Rows(X), 5), draw_target
    pairs = {
        "independent": lambda: IndependentPairs(*sides, 16),
        "coupled": lambda: CoupledPairs(*sides, 16, seed=2, blur=0.3),
        "large": lambda: LargePairs(*sides, seed=2, batch_size=16, n_source=40, n_target=70),
    }[kind]()
    records = LineTeacher(pairs, seed=1).batch(9)
    ends = records.x + (1 - records.t[:, None]) * records.u
    torch.testing.assert_close(records.condition, ends, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(records.weight, ends[:, 0], rtol=1e-5, atol=1e-5)
    moved = records.to("meta")
    assert moved.weight.is_meta and moved.condition.is_meta
