import inspect
import itertools
import threading

import joblib
import pytest
import torch

from sknsgf.flow import (
    Trajectories,
    TrajectoryPool,
    constant_schedule,
    follow_sinkhorn_flow,
    seeded_generator,
    simulate_by_number,
    simulate_sinkhorn_flow,
    sinkhorn_velocity,
    straight_schedule,
)
from sknsgf.ode import integrate
from sknsgf.sinkhorn import sinkhorn_divergence

EXACT = {"tol": 1e-10, "max_iter": 500}
sizes = pytest.mark.parametrize(("n", "m", "d"), [(9, 9, 2), (6, 11, 3), (12, 7, 5), (8, 8, 1)])


def clouds(n, m, d, device, batch=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*batch, n, d, dtype=torch.float64, generator=generator)
    y = 1 + 0.7 * torch.randn(*batch, m, d, dtype=torch.float64, generator=generator)
    return x.to(device), y.to(device)


def velocity_of(x, y, blur=0.4):
    flow = sinkhorn_velocity(x, y, blur=blur, **EXACT)
    assert flow.converged.all()
    return flow.velocity


def divergence_of(x, y, blur=0.4):
    result = sinkhorn_divergence(x, y, blur=blur, **EXACT)
    assert result.converged.all()
    return result.value


def assert_close(actual, expected, tol=1e-7):
    torch.testing.assert_close(actual, expected, rtol=tol, atol=tol)


def assert_same_bits(pool, other):
    for name in ("positions", "times", "marginal_error", "converged"):
        assert torch.equal(getattr(pool, name), getattr(other, name)), name


# The velocity


@sizes
@pytest.mark.parametrize("blur", [0.2, 0.4, 2.0])
def test_velocity_is_minus_n_times_the_gradient_of_the_divergence(n, m, d, blur, device):
    x, y = clouds(n, m, d, device)
    step = 1e-4
    nudges = step * torch.eye(n * d, dtype=x.dtype, device=device).reshape(n * d, n, d)
    ahead, behind = (
        divergence_of(x + sign * nudges, y.expand(n * d, m, d), blur) for sign in (1, -1)
    )
    gradient = ((ahead - behind) / (2 * step)).reshape(n, d)
    assert_close(velocity_of(x, y, blur), -n * gradient, tol=1e-5)


@sizes
def test_a_small_step_along_the_velocity_lowers_the_divergence(n, m, d, device):
    x, y = clouds(n, m, d, device)
    velocity, step_size = velocity_of(x, y), 1e-3
    fall = divergence_of(x, y) - divergence_of(x + step_size * velocity, y)
    # To first order: the chain rule with gradient -v / n.
    assert float(fall) == pytest.approx(step_size * float(velocity.square().sum()) / n, rel=0.01)


def test_particles_at_their_targets_rest(device):
    x, _ = clouds(12, 1, 3, device)
    assert_close(velocity_of(x, x), torch.zeros_like(x))
    assert_close(velocity_of(x, x.flip(0)), torch.zeros_like(x))


def test_without_self_transport_particles_at_their_targets_would_not_rest(device):
    # At a large blur the projection onto the targets is their mean; the velocity is not.
    x, _ = clouds(12, 1, 3, device)
    assert (x.mean(0) - x).norm() > 1
    assert velocity_of(x, x, blur=10).norm() < 1e-6


@pytest.mark.parametrize("blur", [0.1, 1.0, 10.0])
def test_velocity_towards_a_shifted_copy_is_the_shift(blur, device):
    x, _ = clouds(15, 1, 3, device)
    shift = torch.tensor([2.0, -1.0, 0.5], dtype=x.dtype, device=device)
    assert_close(velocity_of(x, x + shift, blur), shift.expand_as(x), tol=1e-6)


@sizes
def test_velocity_is_equivariant(n, m, d, device):
    x, y = clouds(n, m, d, device)
    velocity = velocity_of(x, y)
    generator = torch.Generator().manual_seed(1)

    shift = torch.randn(d, dtype=x.dtype, generator=generator).to(device)
    assert_close(velocity_of(x + 100 * shift, y + 100 * shift), velocity)

    rotation = torch.linalg.qr(torch.randn(d, d, dtype=x.dtype, generator=generator)).Q.to(device)
    assert_close(velocity_of(x @ rotation, y @ rotation), velocity @ rotation)

    order = torch.randperm(n, generator=generator).to(device)
    order_y = torch.randperm(m, generator=generator).to(device)
    assert_close(velocity_of(x[order], y), velocity[order])
    assert_close(velocity_of(x, y[order_y]), velocity)


def test_velocity_scales_with_the_units(device):
    x, y = clouds(9, 12, 2, device)
    assert_close(velocity_of(10 * x, 10 * y, blur=4.0), 10 * velocity_of(x, y, blur=0.4))


@sizes
def test_velocity_does_not_depend_on_how_often_each_cloud_repeats(n, m, d, device):
    # Uniform weights on repeated rows are the same measures.
    x, y = clouds(n, m, d, device)
    doubled = velocity_of(x.repeat(2, 1), y.repeat(3, 1))
    assert_close(doubled, velocity_of(x, y).repeat(2, 1))


@sizes
def test_single_clouds_and_batches_agree(n, m, d, device):
    x, y = clouds(n, m, d, device, batch=(4,))
    together = sinkhorn_velocity(x, y, blur=0.4, **EXACT)
    assert together.velocity.shape == x.shape
    assert together.marginal_error.shape == together.converged.shape == (4,)
    assert [part.shape for part in together.state[:4]] == [(4, m), (4, n), (4, m), (4, m)]
    for i in range(4):
        alone = sinkhorn_velocity(x[i], y[i], blur=0.4, **EXACT)
        assert alone.velocity.shape == (n, d)
        assert alone.marginal_error.shape == alone.converged.shape == ()
        assert alone.state.g.shape == alone.state.g_target.shape == (m,)
        assert alone.state.g_self.shape == (n,)
        assert_close(together.velocity[i], alone.velocity)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_velocity_keeps_dtype_and_device(dtype, device):
    x, y = (cloud.to(dtype) for cloud in clouds(6, 5, 2, device))
    flow = sinkhorn_velocity(x, y, blur=0.4)
    parts = (flow.velocity, flow.marginal_error, *flow.state[:4])
    assert {(part.dtype, part.device) for part in parts} == {(x.dtype, x.device)}


@pytest.mark.gradients
def test_a_network_can_learn_from_the_velocity(device):
    x, y = clouds(6, 5, 2, device)
    velocity = sinkhorn_velocity(x, y, blur=0.4).velocity
    weight = torch.ones_like(velocity, requires_grad=True)
    (weight * velocity).sum().backward()
    assert torch.equal(weight.grad, velocity)


def test_status_tells_solved_from_unsolved(device):
    x, y = clouds(30, 30, 2, device)
    solved = sinkhorn_velocity(x, y, blur=0.05, tol=1e-6)
    assert bool(solved.converged)
    assert float(solved.marginal_error) <= 1e-6
    unsolved = sinkhorn_velocity(x, y, blur=0.05, tol=1e-12, max_iter=1)
    assert not bool(unsolved.converged)
    assert float(unsolved.marginal_error) > 1e-12
    assert torch.isfinite(unsolved.velocity).all()


# Warm starts


@pytest.mark.parametrize("give_step_size", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
@sizes
def test_warm_start_gives_the_velocity_of_a_cold_start(n, m, d, give_step_size, as_tensor, device):
    x, y = clouds(n, m, d, device, batch=(3,))
    first = sinkhorn_velocity(x, y, blur=0.4, **EXACT)
    steps = torch.tensor([0.1, 0.5, 0.9], dtype=x.dtype, device=device)
    step_size = steps if as_tensor else 0.5
    x = x + (steps.view(-1, 1, 1) if as_tensor else 0.5) * first.velocity
    warm = sinkhorn_velocity(
        x,
        y,
        blur=0.4,
        state=first.state,
        step_size=step_size if give_step_size else None,
        **EXACT,
    )
    assert warm.converged.all()
    assert_close(warm.velocity, velocity_of(x, y))


def test_warm_start_survives_a_jump(device):
    x, y = clouds(10, 12, 2, device)
    state = sinkhorn_velocity(x, y, blur=0.4, **EXACT).state
    elsewhere = 3 - 2 * x.flip(0)
    warm = sinkhorn_velocity(elsewhere, y, blur=0.4, state=state, step_size=0.1, **EXACT)
    assert_close(warm.velocity, velocity_of(elsewhere, y))


def test_warm_start_foresees_straight_motion(device):
    # Towards a shifted copy the potential is linear in the shift that is left, so the guess
    # is already the solution, for every problem of a batch by its own step.
    x, _ = clouds(15, 1, 2, device, batch=(3,))
    shift = torch.tensor([2.0, -1.0], dtype=x.dtype, device=device)
    first = sinkhorn_velocity(x, x + shift, blur=0.4, **EXACT)
    steps = torch.tensor([0.2, 0.5, 0.9], dtype=x.dtype, device=device)
    moved = x + steps.view(-1, 1, 1) * first.velocity

    def error(step_size):
        warm = sinkhorn_velocity(
            moved, x + shift, blur=0.4, state=first.state, step_size=step_size, max_iter=0
        )
        return warm.marginal_error

    assert (error(steps) < 1e-6).all()
    assert (error(steps.flip(0))[[0, 2]] > 1e-3).all()


# Schedules


@pytest.mark.parametrize("n_steps", [1, 2, 5, 49, 100])
@pytest.mark.parametrize("t_end", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("jitter", [False, True])
def test_straight_steps_keep_to_the_straight_line(n_steps, t_end, jitter):
    generator = torch.Generator().manual_seed(0) if jitter else None
    times, step_sizes = straight_schedule(n_steps, t_end, generator)
    assert times.shape == (n_steps + 1,)
    assert step_sizes.shape == (n_steps,)
    assert times.dtype == step_sizes.dtype == torch.float64
    assert times[0] == 0
    assert times[-1] == t_end
    assert (times.diff() > 0).all()
    # A step of eta towards a target leaves 1 - eta of the way, and t is the way travelled.
    left = torch.cat([torch.ones(1).double(), (1 - step_sizes).cumprod(0)])
    torch.testing.assert_close(left, 1 - times, rtol=1e-9, atol=1e-12)
    if t_end == 1:
        assert step_sizes[-1] == 1


def test_small_straight_steps_take_the_flow_time_of_the_logarithm():
    times, step_sizes = straight_schedule(10_000, 0.9)
    flow_times = torch.cat([torch.zeros(1).double(), step_sizes.cumsum(0)])
    torch.testing.assert_close(flow_times, -torch.log(1 - times), rtol=1e-2, atol=1e-4)
    coarse = -torch.log(1 - times).diff()
    torch.testing.assert_close(step_sizes, coarse, rtol=1e-3, atol=0)


@pytest.mark.parametrize("t_end", [0.4, 1.0])
def test_jittered_times_stay_in_their_strata_and_fill_them(t_end):
    generator = torch.Generator().manual_seed(0)
    times = torch.stack([straight_schedule(5, t_end, generator).times for _ in range(500)])
    even = straight_schedule(5, t_end).times
    width = t_end / 5
    assert (times[:, [0, -1]] == even[[0, -1]]).all()
    offsets = (times - even)[:, 1:-1] / width
    assert offsets.abs().max() <= 0.5 + 1e-12
    assert (offsets.amin(0) < -0.48).all()
    assert (offsets.amax(0) > 0.48).all()
    assert offsets.mean(0).abs().max() < 4 * (1 / 12) ** 0.5 / 500**0.5


def test_jitter_follows_its_generator():
    first, again, other = (
        straight_schedule(5, generator=torch.Generator().manual_seed(seed)).times
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("n_steps", [1, 7, 49])
def test_constant_schedule_is_even(n_steps):
    times, step_sizes = constant_schedule(n_steps, 0.3)
    assert times[0] == 0
    assert times[-1] == 1
    torch.testing.assert_close(times * n_steps, torch.arange(n_steps + 1).double())
    assert step_sizes.tolist() == [0.3] * n_steps


# The flow


SCHEDULES = {
    "straight": lambda generator=None: straight_schedule(6, generator=generator),
    "straight, part of the way": lambda generator=None: straight_schedule(6, 0.6, generator),
    "constant": lambda generator=None: constant_schedule(6, 0.4),
}
each_schedule = pytest.mark.parametrize("make_schedule", SCHEDULES.values(), ids=SCHEDULES)


def follow(x, y, schedules, blur=0.4):
    """Simulate in float64; return the pool."""
    step_sizes = torch.stack([schedule.step_sizes for schedule in schedules])
    moved = follow_sinkhorn_flow(x, y, step_sizes, blur=blur, **EXACT)
    assert moved.converged.all()
    times = torch.stack([schedule.times for schedule in schedules])
    return TrajectoryPool(moved.positions.cpu(), times, moved.marginal_error, moved.converged)


def all_records(pool):
    """All records, each field in the shape (n_simulations, n_steps, n_particles, ...)."""
    n_simulations, n_times, n_particles, _ = pool.positions.shape
    shape = (n_simulations, n_times - 1, n_particles)
    return [part.unflatten(0, shape) for part in pool.records(torch.arange(len(pool)))]


def jittered(make_schedule, n):
    return [make_schedule(torch.Generator().manual_seed(i)) for i in range(n)]


@each_schedule
def test_plain_euler_replays_the_simulation(make_schedule, device):
    pool = follow(*clouds(7, 9, 2, device, batch=(3,)), jittered(make_schedule, 3))
    t, x, u = all_records(pool)
    step = iter(range(6))

    def recorded(times, states):
        k = next(step)
        assert torch.equal(times, t[:, k].flatten())
        assert_close(states, x[:, k].flatten(0, 1), tol=1e-12)
        return u[:, k].flatten(0, 1)

    times = pool.times.T.repeat_interleave(7, 1)  # each particle by its simulation's clock
    replayed = integrate(recorded, pool.positions[:, 0].flatten(0, 1), times).x
    assert_close(replayed, pool.positions.transpose(0, 1).flatten(1, 2), tol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_plain_euler_on_the_field_itself_replays_the_simulation(name, device):
    # The field the network should learn: v / (1 - t), or n_steps * step_size * v.
    x, y = clouds(8, 9, 2, device)
    schedule = SCHEDULES[name]()
    pool = follow(x[None], y[None], [schedule])

    def field(t, x):
        speed = 6 * 0.4 if name == "constant" else 1 / (1 - t[0])
        return speed * velocity_of(x, y)

    replayed = integrate(field, x, schedule.times.to(device))
    assert_close(replayed.x.cpu(), pool.positions[0], tol=1e-6)


@pytest.mark.parametrize("blur", [0.1, 2.0])
@pytest.mark.parametrize("t_end", [0.6, 1.0])
def test_a_shifted_cloud_moves_on_straight_lines_at_constant_speed(blur, t_end, device):
    x, _ = clouds(15, 1, 2, device, batch=(3,))
    shift = torch.tensor([2.0, -1.0], dtype=x.dtype, device=device)
    schedules = jittered(lambda generator: straight_schedule(6, t_end, generator), 3)
    pool = follow(x, x + shift, schedules, blur)
    *_, u = all_records(pool)
    assert_close(u, shift.cpu().expand_as(u), tol=1e-6)
    assert_close(pool.positions[:, -1], (x + t_end * shift).cpu(), tol=1e-6)


def test_single_points_land_on_their_targets(device):
    x, y = clouds(1, 1, 3, device, batch=(5,))
    pool = follow(x, y, [straight_schedule(4)] * 5)
    assert_close(pool.positions[:, -1], y.cpu(), tol=1e-12)


def test_well_separated_points_land_one_on_each_target(device):
    # The nearest assignment is not the order in which they are listed.
    axis = torch.arange(4.0, dtype=torch.float64)
    targets = 10 * torch.cartesian_prod(axis, axis)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    x, y = (targets + 1)[None].to(device), targets[order][None].to(device)
    pool = follow(x, y, [straight_schedule(5)])
    assert_close(pool.positions[0, -1], targets)


@each_schedule
def test_the_flow_lowers_the_divergence_at_every_step(make_schedule, device):
    x, y = clouds(20, 25, 2, device)
    pool = follow(x[None], y[None], [make_schedule()])
    path = pool.positions[0].to(device)
    values = divergence_of(path, y.expand(len(path), -1, -1))
    assert (values.diff() < 0).all()


def test_every_step_goes_on_from_where_the_last_one_left_off(device):
    # One iteration a step does not solve a cold problem, but warm ones get there in time.
    x, y = clouds(40, 40, 2, device, batch=(1,))
    steps = torch.full((30,), 1e-3)
    moved = follow_sinkhorn_flow(x, y, steps, blur=0.2, tol=1e-10, max_iter=1)
    assert moved.marginal_error.shape == moved.converged.shape == (1, 30)
    assert float(moved.marginal_error[0, -1]) < 0.1 * float(moved.marginal_error[0, 0])


def test_each_simulation_takes_its_own_steps(device):
    x, y = clouds(7, 9, 2, device, batch=(3,))
    schedules = jittered(SCHEDULES["straight"], 3)
    together = follow(x, y, schedules)
    for i, schedule in enumerate(schedules):
        alone = follow(x[i : i + 1], y[i : i + 1], [schedule])
        assert_close(together.positions[i], alone.positions[0], tol=1e-6)


# Many simulations

# More than one batch of simulations, small enough to be quick.
SIMULATION = {"n_particles": 200, "n_targets": 300, "n_simulations": 20, "blur": 0.3, "seed": 5}


def draw_source(n, generator):
    return torch.randn(n, 2, generator=generator)


def draw_target(n, generator):
    # A reduction: its bits could depend on the number of threads.
    return draw_source(n, generator) @ torch.full((2, 2), 0.6) + 2


def make_schedule(generator):
    return straight_schedule(3, generator=generator)


def simulate(device, draw_source=draw_source, **settings):
    return simulate_sinkhorn_flow(
        draw_source, draw_target, make_schedule, device=device, **{**SIMULATION, **settings}
    )


@pytest.fixture(scope="module")
def pool(device):
    return simulate(device)


def test_pool_is_filled(pool):
    assert pool.positions.shape == (20, 4, 200, 2)
    assert pool.times.shape == (20, 4)
    assert pool.marginal_error.shape == pool.converged.shape == (20, 3)
    assert torch.isfinite(pool.positions).all()
    assert pool.converged.all()
    assert (pool.marginal_error <= 1e-3).all()
    assert (pool.times.diff(dim=1) > 0).all()
    assert pool.positions.device.type == "cpu"


def test_every_simulation_starts_from_minibatches_of_its_own(device):
    n_source, n_target = [], []

    def draw(n, generator):
        n_source.append(n)
        return draw_source(n, generator)

    def draw_y(n, generator):
        n_target.append(n)
        return draw_target(n, generator)

    settings = {**SIMULATION, "n_particles": 5, "n_targets": 7}
    pool = simulate_sinkhorn_flow(draw, draw_y, make_schedule, device=device, **settings)
    assert n_source == [5] * 20
    assert n_target.count(7) == 20
    assert len(pool.positions[:, 0].reshape(20, -1).unique(dim=0)) == 20
    assert len(pool.positions[:, -1].reshape(20, -1).unique(dim=0)) == 20
    assert len(pool.times.unique(dim=0)) == 20


def test_simulation_draws_from_the_generator_of_its_number(pool):
    for i in (0, 7, 19):
        generator = seeded_generator(SIMULATION["seed"], i)
        schedule = make_schedule(generator)
        assert torch.equal(pool.times[i], schedule.times.float())
        assert torch.equal(pool.positions[i, 0], draw_source(200, generator).float())


def test_generators_differ_by_seed_and_by_number():
    seeds = {
        seeded_generator(seed, number).initial_seed() for seed in range(30) for number in range(30)
    }
    assert len(seeds) == 900
    assert seeded_generator(3, 4).initial_seed() == seeded_generator(3, 4).initial_seed()


def test_other_seed_other_pool(pool, device):
    other = simulate(device, seed=6)
    assert not torch.isclose(other.positions, pool.positions).all((1, 2, 3)).any()


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_bits_do_not_depend_on_n_jobs(n_jobs, pool, device, untouched_global_seeds):
    assert_same_bits(simulate(device, n_jobs=n_jobs), pool)


def draw_on_one_thread(n, generator):
    if torch.get_num_threads() != 1:
        raise RuntimeError(f"drawing on {torch.get_num_threads()} threads")
    return draw_source(n, generator)


@pytest.mark.parametrize(
    "config",
    [
        {"backend": "sequential"},
        {"backend": "threading", "n_jobs": 2},
        {"backend": "loky", "n_jobs": 2, "inner_max_num_threads": 2},
    ],
    ids=lambda config: config["backend"],
)
def test_bits_do_not_depend_on_the_joblib_backend(config, pool, device):
    with joblib.parallel_config(**config):
        assert_same_bits(simulate(device, draw_on_one_thread), pool)


def test_jobs_are_those_the_user_configured(device, monkeypatch):
    workers = set()

    def follow(*clouds, **settings):
        workers.add(threading.get_ident())
        return follow_sinkhorn_flow(*clouds, **settings)

    monkeypatch.setitem(
        inspect.unwrap(simulate_by_number).__globals__, "follow_sinkhorn_flow", follow
    )
    simulate(device)
    assert workers == {threading.get_ident()}
    with joblib.parallel_config(backend="threading", n_jobs=2):
        simulate(device)
    assert len(workers) > 1


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_simulations_draw_in_their_order(n_jobs, device):
    numbers = itertools.count()

    def draw(n, generator):
        return draw_source(n, generator) + 10 * next(numbers)

    pool = simulate(device, draw, n_jobs=n_jobs)
    nearest_tens = (pool.positions[:, 0].mean((1, 2)) / 10).round()
    assert torch.equal(nearest_tens, torch.arange(20.0))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_bits_do_not_depend_on_the_number_of_threads(n_threads, n_jobs, pool, device, threads):
    threads(n_threads)
    seen = []

    def draw(n, generator):
        seen.append(torch.get_num_threads())
        return draw_source(n, generator)

    assert_same_bits(simulate(device, draw, n_jobs=n_jobs), pool)
    assert set(seen) == {1}
    assert torch.get_num_threads() == n_threads


def test_number_of_threads_is_restored_after_an_error(device, threads):
    threads(3)

    def broken(n, generator):
        raise RuntimeError("no more data")

    with pytest.raises(RuntimeError, match="no more data"):
        simulate(device, broken)
    assert torch.get_num_threads() == 3


def test_no_global_seed_is_touched_or_read(pool, device, untouched_global_seeds):
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        assert_same_bits(simulate(device), pool)


def batch_sizes(device):
    sizes = []
    simulate(device, progress=sizes.append)
    return sizes


def test_progress_is_told_every_simulation_once(device):
    sizes = batch_sizes(device)
    assert sum(sizes) == 20
    if device.type == "cpu":
        assert len(sizes) > 2  # or the tests on n_jobs see one job only


@pytest.mark.parametrize("n_simulations", [1, 3, 13])
def test_simulation_does_not_depend_on_how_many_there_are(n_simulations, pool, device):
    fewer = simulate(device, n_simulations=n_simulations)
    whole = batch_sizes(device)[0] * (n_simulations // batch_sizes(device)[0])
    assert_same_bits(fewer[:whole], pool[:whole])
    assert torch.equal(fewer.times, pool.times[:n_simulations])
    assert torch.equal(fewer.positions[:, 0], pool.positions[:n_simulations, 0])
    # The solver stops a batch by its slowest problem, so the rest agrees to its tolerance.
    torch.testing.assert_close(
        fewer.positions, pool.positions[:n_simulations], rtol=0, atol=10 * 1e-3
    )


def test_pool_on_disk_is_the_pool_in_memory(pool, device, tmp_path):
    directory = tmp_path / "not yet there"
    on_disk = simulate(device, directory=directory, n_jobs=2)
    assert_same_bits(on_disk, pool)
    assert directory.is_dir() and not list(directory.iterdir())  # its file has no name
    another = simulate(device, directory=directory, seed=1)
    assert not torch.equal(another.positions, on_disk.positions)
    assert_same_bits(on_disk, pool)
    index = torch.arange(0, len(pool), 7)
    assert all(map(torch.equal, on_disk.records(index), pool.records(index)))


# The pool


@pytest.fixture
def small_pool():
    generator = torch.Generator().manual_seed(0)
    return TrajectoryPool(
        positions=torch.randn(3, 5, 4, 2, generator=generator, dtype=torch.float64),
        times=torch.rand(3, 5, generator=generator, dtype=torch.float64).cumsum(1),
        marginal_error=torch.rand(3, 4, generator=generator),
        converged=torch.rand(3, 4, generator=generator) < 0.5,
    )


def naive_records(pool):
    for i in range(3):
        for k in range(4):
            for p in range(4):
                x, x_next = pool.positions[i, k, p], pool.positions[i, k + 1, p]
                t, t_next = pool.times[i, k], pool.times[i, k + 1]
                yield t, x, (x_next - x) / (t_next - t)


def test_records_are_those_of_a_plain_loop(small_pool):
    assert len(small_pool) == 3 * 4 * 4
    expected = [torch.stack(parts) for parts in zip(*naive_records(small_pool), strict=True)]
    records = small_pool.records(torch.arange(48))
    assert all(map(torch.equal, records, expected))
    index = torch.tensor([47, 0, 13, 13])
    assert all(
        torch.equal(r, e[index]) for r, e in zip(small_pool.records(index), expected, strict=True)
    )


@pytest.mark.parametrize("simulations", [slice(0, 2), slice(1, 3), slice(2, None)])
def test_a_slice_of_the_pool_shares_its_memory(small_pool, simulations):
    part = small_pool[simulations]
    first = simulations.start
    assert len(part) == 16 * len(range(3)[simulations])
    for name in ("positions", "times", "marginal_error", "converged"):
        whole = getattr(small_pool, name)
        assert getattr(part, name).data_ptr() == whole[first].data_ptr()
    number = torch.arange(len(part))
    expected = small_pool.records(number + 16 * first)
    assert all(map(torch.equal, part.records(number), expected))


def test_store_writes_to_its_places_only(small_pool):
    pool = TrajectoryPool.allocate((3, 5, 4, 2))
    for part in (pool.positions, pool.times, pool.marginal_error):
        part.fill_(-1)
    pool.converged.fill_(False)
    moved = Trajectories(
        small_pool.positions[1:], small_pool.marginal_error[1:], torch.ones(2, 4).bool()
    )
    pool.store(slice(1, 3), small_pool.times[1:], moved)
    assert torch.equal(pool.positions[1:], small_pool.positions[1:].float())
    assert torch.equal(pool.times[1:], small_pool.times[1:].float())
    assert torch.equal(pool.marginal_error[1:], small_pool.marginal_error[1:].float())
    assert pool.converged[1:].all()
    assert all((part[0] == -1).all() for part in (pool.positions, pool.times))
    assert (pool.marginal_error[0] == -1).all()
    assert not pool.converged[0].any()


def test_draws_follow_their_generator(small_pool, untouched_global_seeds):
    first, again, other = (
        small_pool.draw(64, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert [part.shape for part in first] == [(64,), (64, 2), (64, 2)]
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.x, other.x)


def test_draws_are_uniform_over_the_records(small_pool):
    drawn = small_pool.draw(48 * 400, torch.Generator().manual_seed(0)).x
    rows = small_pool.records(torch.arange(48)).x
    counts = (drawn.unsqueeze(1) == rows).all(-1).sum(0)
    assert int(counts.sum()) == 48 * 400
    # Chi-squared with 47 degrees of freedom: its mean is 47, its deviation under 10.
    assert float((counts - 400).square().sum() / 400) < 47 + 4 * 10
