"""Entropic transport keeps its laws: marginals, symmetries, closed forms, and its word."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sknsgf.flow import sinkhorn_velocity
from sknsgf.sinkhorn import (
    SinkhornPotentials,
    barycentric_projection,
    coupling,
    self_transport,
    sinkhorn_divergence,
    squared_cost,
    transport,
)
from sknsgf.sinkhorn._blocked import BlockedKernel, make_kernel
from sknsgf.sinkhorn._cells import in_cells
from sknsgf.sinkhorn._kernel import ScaledKernel
from sknsgf.sinkhorn._solver import _absorb, _guess_large, _iterate, _newton_solution, solve_batch

TIGHT = {"tol": 1e-9, "max_iter": 500}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def clouds(generator, device):
    """Two clouds of unequal size, five units apart."""
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    y = 2 * torch.randn(30, 2, generator=generator, dtype=torch.float64) + 5
    return x.to(device), y.to(device)


def reference_sinkhorn(x, y, epsilon, n_iter=20_000):
    """Plain log-domain Sinkhorn, written from the optimality conditions."""
    cost = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1) / 2
    log_n, log_m = math.log(x.shape[-2]), math.log(y.shape[-2])
    g = torch.zeros_like(cost[0])
    for _ in range(n_iter):
        f = epsilon * (log_m - torch.logsumexp((g - cost) / epsilon, 1))
        g_before, g = g, epsilon * (log_n - torch.logsumexp((f[:, None] - cost) / epsilon, 0))
        if (g - g_before).abs().max() < 1e-13 * epsilon:
            break
    return f, g


def marginal_error(x, y, potentials):
    """Mass by which the columns of the coupling miss their target, recomputed."""
    columns = coupling(x, y, potentials).sum(-2)
    return (columns - 1 / y.shape[-2]).abs().sum(-1)


def centred(potential):
    return potential - potential.mean(-1, keepdim=True)


def rotation(angle, device):
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = [[cosine, -sine], [sine, cosine]]
    return torch.tensor(matrix, dtype=torch.float64, device=device)


# Against the definition


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 30.0])
def test_potentials_match_plain_sinkhorn(clouds, epsilon):
    x, y = clouds
    f, g = reference_sinkhorn(x, y, epsilon)
    result = transport(x, y, epsilon=epsilon, **TIGHT)
    torch.testing.assert_close(centred(result.potentials.f), centred(f), atol=1e-6, rtol=0)
    torch.testing.assert_close(centred(result.potentials.g), centred(g), atol=1e-6, rtol=0)
    total = result.potentials.f.mean() + result.potentials.g.mean()
    torch.testing.assert_close(total, f.mean() + g.mean(), atol=1e-8, rtol=0)


def test_self_potentials_match_plain_sinkhorn(clouds):
    x, _ = clouds
    f, g = reference_sinkhorn(x, x, 0.3)
    potentials = self_transport(x, epsilon=0.3, **TIGHT).potentials
    torch.testing.assert_close(potentials.f, (f + g) / 2, atol=1e-7, rtol=0)
    torch.testing.assert_close(potentials.f, potentials.g, atol=1e-7, rtol=0)


def test_projection_is_the_mean_of_the_coupling(clouds):
    x, y = clouds
    result = transport(x, y, epsilon=0.5, **TIGHT)
    plan = coupling(x, y, result.potentials)
    torch.testing.assert_close(result.projection, len(x) * plan @ y)
    again = barycentric_projection(x, y, result.potentials.g, 0.5)
    torch.testing.assert_close(result.projection, again)


@pytest.mark.gradients
def test_barycentric_projection_is_x_minus_the_gradient_of_f(clouds):
    x, y = clouds
    g = transport(x, y, epsilon=0.5).potentials.g
    query = x.clone().requires_grad_()
    f = -0.5 * torch.logsumexp((g - squared_cost(query, y)) / 0.5, -1)
    (gradient,) = torch.autograd.grad(f.sum(), query)
    torch.testing.assert_close(barycentric_projection(x, y, g, 0.5), x - gradient)


def test_coupling_has_the_marginals(clouds):
    x, y = clouds
    plan = coupling(x, y, transport(x, y, epsilon=0.5, **TIGHT).potentials)
    uniform_rows, uniform_columns = (
        torch.full_like(x[:, 0], 1 / 40),
        torch.full_like(y[:, 0], 1 / 30),
    )
    torch.testing.assert_close(plan.sum(1), uniform_rows)
    torch.testing.assert_close(plan.sum(0), uniform_columns, atol=1e-8, rtol=0)


@pytest.mark.parametrize("dim", [1, 2, 3, 50])
def test_squared_cost_matches_the_definition(dim, generator, device):
    x = torch.randn(2, 5, dim, generator=generator, dtype=torch.float64).to(device)
    y = torch.randn(2, 7, dim, generator=generator, dtype=torch.float64).to(device)
    torch.testing.assert_close(squared_cost(x, y), torch.cdist(x, y).square() / 2)


# Symmetries


def test_translation_moves_only_the_projection(clouds):
    x, y = clouds
    shift = torch.tensor([3.0, -7.0], dtype=x.dtype, device=x.device)
    before = transport(x, y, epsilon=0.5, **TIGHT)
    after = transport(x + shift, y + shift, epsilon=0.5, **TIGHT)
    torch.testing.assert_close(after.projection, before.projection + shift)
    torch.testing.assert_close(after.potentials.f, before.potentials.f, atol=1e-7, rtol=0)


def test_velocity_turns_with_the_clouds(clouds):
    x, y = clouds
    turn = rotation(0.7, x.device)
    before = sinkhorn_velocity(x, y, blur=0.6, **TIGHT).velocity
    after = sinkhorn_velocity(x @ turn.T, y @ turn.T, blur=0.6, **TIGHT).velocity
    torch.testing.assert_close(after, before @ turn.T, atol=1e-7, rtol=0)


def test_velocity_follows_its_particles(clouds, generator):
    x, y = clouds
    rows = torch.randperm(len(x), generator=generator)
    columns = torch.randperm(len(y), generator=generator)
    before = sinkhorn_velocity(x, y, blur=0.6, **TIGHT).velocity
    after = sinkhorn_velocity(x[rows], y[columns], blur=0.6, **TIGHT).velocity
    torch.testing.assert_close(after, before[rows], atol=1e-7, rtol=0)


def test_divergence_is_symmetric_and_zero_on_the_diagonal(clouds):
    x, y = clouds
    forwards = sinkhorn_divergence(x, y, blur=0.5, **TIGHT).value
    backwards = sinkhorn_divergence(y, x, blur=0.5, **TIGHT).value
    torch.testing.assert_close(forwards, backwards)
    assert abs(float(sinkhorn_divergence(x, x.clone(), blur=0.5, **TIGHT).value)) < 1e-9


# Closed forms


def test_a_shift_costs_half_its_square(clouds):
    x, _ = clouds
    shift = torch.tensor([1.0, -2.0], dtype=x.dtype, device=x.device)
    value = sinkhorn_divergence(x, x + shift, blur=0.5, **TIGHT).value
    torch.testing.assert_close(value, shift.square().sum() / 2)
    velocity = sinkhorn_velocity(x, x + shift, blur=0.5, **TIGHT).velocity
    torch.testing.assert_close(velocity, shift.expand_as(x), atol=1e-7, rtol=0)


def gaussian_divergence(mean_gap, std_x, std_y, epsilon):
    """Closed form between N(0, a² I) and N(gap, b² I), Janati et al. 2020, theorem 1."""

    def bures(a, b):
        # Their sigma² is half of epsilon for the cost |x − y|²: epsilon for its half.
        root = math.sqrt(4 * a**2 * b**2 + epsilon**2)
        return (
            a**2 + b**2 - (root - epsilon * math.log((root + epsilon) / (2 * epsilon)) - epsilon)
        )

    debiased = bures(std_x, std_y) - (bures(std_x, std_x) + bures(std_y, std_y)) / 2
    return (mean_gap @ mean_gap + len(mean_gap) * debiased) / 2


def test_divergence_between_gaussians_matches_the_closed_form(generator, device):
    gap = torch.tensor([2.0, -1.0], dtype=torch.float64)
    x = torch.randn(1500, 2, generator=generator, dtype=torch.float64)
    y = 1.7 * torch.randn(1500, 2, generator=generator, dtype=torch.float64) + gap
    value = float(sinkhorn_divergence(x.to(device), y.to(device), blur=1.0).value)
    assert value == pytest.approx(float(gaussian_divergence(gap, 1.0, 1.7, 1.0)), rel=0.05)


def test_one_particle_goes_to_the_mean(clouds):
    _, y = clouds
    result = transport(y[:1], y, epsilon=0.1)
    torch.testing.assert_close(result.projection, y.mean(0, keepdim=True), atol=1e-4, rtol=0)


def test_one_target_draws_every_particle(clouds):
    x, y = clouds
    result = sinkhorn_velocity(x, y[:1], blur=1e-3)
    torch.testing.assert_close(result.velocity, y[:1] - x)
    assert result.converged


def test_small_blur_on_the_line_sorts(generator, device):
    x = torch.arange(20, dtype=torch.float64, device=device).unsqueeze(-1)
    order = torch.randperm(20, generator=generator).to(device)
    result = transport(x, 100 + 3 * x[order], epsilon=1e-2)
    torch.testing.assert_close(result.projection, 100 + 3 * x)


# The velocity is a gradient


def test_velocity_is_minus_n_times_the_gradient_of_the_divergence(clouds):
    x, y = clouds
    velocity = sinkhorn_velocity(x, y, blur=0.8, tol=1e-11, max_iter=500).velocity

    def divergence(cloud):
        return float(sinkhorn_divergence(cloud, y, blur=0.8, tol=1e-11, max_iter=500).value)

    for row, column in ((0, 0), (7, 1), (39, 0)):
        nudge = torch.zeros_like(x)
        nudge[row, column] = 1e-4
        slope = (divergence(x + nudge) - divergence(x - nudge)) / 2e-4
        assert float(velocity[row, column]) == pytest.approx(-len(x) * slope, abs=1e-6)


def test_a_small_step_along_the_velocity_lowers_the_divergence(clouds):
    x, y = clouds
    before = sinkhorn_divergence(x, y, blur=0.5).value
    moved = x + 0.05 * sinkhorn_velocity(x, y, blur=0.5).velocity
    assert sinkhorn_divergence(moved, y, blur=0.5).value < before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("blur", [0.03, 0.3, 3.0])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
def test_divergence_of_equal_clouds_is_zero_to_its_tolerance(dtype, blur, tol, generator, device):
    for n, d in ((2, 1), (40, 2), (150, 5), (90, 30)):
        x = torch.randn(n, d, generator=generator).to(device, dtype)
        for y in (x, x.flip(0), x.repeat(2, 1)):
            value = sinkhorn_divergence(x, y, blur=blur, tol=tol).value
            assert 0 <= value <= 2 * tol * blur**2 + 20 * torch.finfo(dtype).eps * max(d, blur**2)


# Large clouds


@pytest.fixture
def small_memory(monkeypatch):
    shrink_memory(monkeypatch)


def shrink_memory(patch):
    """Set limits so low that forty points do not fit."""
    limits = {
        "_kernel._TOGETHER_CPU": 400,
        "_blocked.STORED": 400,
        "_blocked._KEPT": 400,
        "_blocked._SAMPLE": 200,
        "_blocked._BLOCK_CPU": 300,
        "_blocked._GROUP": 4,
    }
    for name, limit in limits.items():
        patch.setattr(f"sknsgf.sinkhorn.{name}", limit)
    patch.setattr("sknsgf.sinkhorn._solver._SUBSAMPLE", 15)


@pytest.mark.parametrize("dim", [2, 6])
def test_blocked_equals_dense(dim, generator, device, request):
    x = torch.randn(40, dim, generator=generator, dtype=torch.float64).to(device)
    y = 2 * torch.randn(30, dim, generator=generator, dtype=torch.float64).to(device) + 3
    dense = _everything(x, y)
    request.getfixturevalue("small_memory")
    blocked = _everything(x, y)
    for one, other in zip(dense, blocked, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.fixture
def crowded(generator, device):
    """Two clouds of which many points share a cell at a blur of 1 in a plane."""
    x = torch.randn(1, 400, 2, generator=generator, dtype=torch.float64).to(device)
    y = 0.8 * torch.randn(1, 300, 2, generator=generator, dtype=torch.float64).to(device) + 1
    return x, y


def test_a_mass_is_a_repeated_point(clouds):
    x, y = (cloud.unsqueeze(0) for cloud in clouds)
    repeats = [torch.arange(cloud.shape[1], device=x.device) % 4 + 1 for cloud in (x, y)]
    masses = tuple((r / r.double().mean()).unsqueeze(0) for r in repeats)
    weighted, *_ = solve_batch(x, y, 0.5, 1e-9, 200, masses=masses)
    many = [cloud.repeat_interleave(r, 1) for cloud, r in zip((x, y), repeats, strict=True)]
    repeated, *_ = solve_batch(*many, 0.5, 1e-9, 200)
    assert weighted.converged
    first = [r.cumsum(0) - r for r in repeats]
    gap = repeated.f[:, first[0]].unsqueeze(-1) + repeated.g[:, first[1]].unsqueeze(-2)
    gap = gap - weighted.f.unsqueeze(-1) - weighted.g.unsqueeze(-2)
    assert gap.abs().max() < 1e-7


def test_cells_keep_mass_and_means(crowded):
    points, _ = crowded
    cells = in_cells(points, 0.5)
    n = points.shape[1]
    assert cells.masses.numel() < n / 4
    counts = cells.masses * n / cells.masses.numel()
    torch.testing.assert_close(counts[0], cells.cell_of.bincount().double())
    torch.testing.assert_close((counts @ cells.centres[0])[0], points[0].sum(0))
    reach = (points[0] - cells.centres[0, cells.cell_of]).abs().max()
    assert reach <= 0.5  # points of one cell lie within it
    values = points[..., 0]
    torch.testing.assert_close(cells.average(values), cells.centres[..., 0])
    product = (cells.spread(cells.masses) * values).sum()  # gathering is adjoint to spreading
    torch.testing.assert_close(product, (cells.masses * cells.gather(values)).sum())


def test_newton_steps_of_cells_solve_for_the_points(crowded, request):
    x, y = crowded
    dense = transport(x, y, epsilon=1.0, **TIGHT)
    request.getfixturevalue("small_memory")
    for g in (None, 0.9 * dense.potentials.g):
        potentials, kernel, _ = solve_batch(x, y, 1.0, 1e-9, 30, g)
        assert kernel.coarse_step is not None
        assert potentials.converged
        assert potentials.n_iter <= 7  # sweeps alone take 10
        measured = marginal_error(x, y, potentials)
        assert measured < 1.1e-9
        gap = centred(potentials.f) - centred(dense.potentials.f)
        assert gap.abs().max() < 1e-7


def test_newton_steps_of_cells_are_dropped_where_they_fail(crowded, request):
    x, y = crowded
    request.getfixturevalue("small_memory")
    kernel = make_kernel(x, y)
    scaling, _ = _guess_large(kernel, 1.0, 1e-3, None)
    kernel.coarse_step = lambda missing, trust: -30 * missing
    after = _iterate(kernel, scaling)
    assert kernel.coarse_step is None
    assert after.error < scaling.error
    assert _iterate(kernel, after).error < 0.3 * after.error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_too_far_to_matter_are_dropped(dtype, generator, device, request):
    x = torch.randn(1, 300, 2, generator=generator, dtype=dtype).to(device)
    y = 2 * torch.randn(1, 200, 2, generator=generator, dtype=dtype).to(device) + 1
    g = transport(x, y, epsilon=0.01).potentials.g
    request.getfixturevalue("small_memory")
    blocked, dense = BlockedKernel(x, y), ScaledKernel(x, y)
    # As far as log v may move before it is absorbed.
    signs = torch.randint(2, (1, 200), generator=generator).to(device, dtype)
    v = (blocked.reach * (2 * signs - 1)).exp()
    for kernel in (blocked, dense):
        kernel.absorb(g, 0.01)
    assert sum(block.plan.numel() for block in blocked._blocks()) < 0.5 * 300 * 200
    (u, mass), (dense_u, dense_mass) = blocked.balance(v), dense.balance(v)
    rounding = 1e3 * torch.finfo(dtype).eps
    gap = blocked.potential(u) - dense.potential(dense_u)
    assert gap.abs().max() < rounding * float(squared_cost(x, y).max())
    assert (mass - dense_mass).abs().sum() < 300 * rounding


def _everything(x, y):
    g = y.sum(-1)
    velocity = sinkhorn_velocity(x, y, blur=0.6, **TIGHT)
    assert velocity.converged
    warm = sinkhorn_velocity(x, y, blur=0.6, **TIGHT, state=velocity.state)
    divergence = sinkhorn_divergence(x, y, blur=0.6, **TIGHT).value
    return velocity.velocity, warm.velocity, divergence, barycentric_projection(x, y, g, 0.4)


def test_a_batch_is_solved_in_parts(clouds, small_memory):
    x, y = (torch.stack([cloud, cloud + 1, 2 * cloud]) for cloud in clouds)
    together = transport(x, y, epsilon=0.5, **TIGHT)
    alone = transport(x[2], y[2], epsilon=0.5, **TIGHT)
    torch.testing.assert_close(together.projection[2], alone.projection)
    assert together.potentials.converged.shape == (3,)
    warm = transport(x, y, epsilon=0.5, **TIGHT, g=together.potentials.g)
    torch.testing.assert_close(warm.projection, together.projection, atol=1e-7, rtol=0)


@pytest.mark.parametrize("distance", [0, 1e4])
def test_no_gradient_is_asked_of_the_solver(distance, clouds):
    x, y = clouds
    x = (x + distance).requires_grad_()
    projection, potentials, _ = transport(x, y, epsilon=0.5)
    value = sinkhorn_divergence(x, y, blur=0.7).value
    assert not any(a.requires_grad for a in (projection, potentials.f, potentials.g, value))


# Hazards


def hazard_pairs():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(16, 3, generator=generator, dtype=torch.float64) + 2
    outlier = y.clone()
    outlier[0] = 1e4
    return {
        "one particle": (x[:1], y),
        "one target": (x, y[:1]),
        "one of each": (x[:1], y[:1]),
        "identical": (x, x.clone()),
        "all points equal": (x[:1].expand(9, 3), x[:1].expand(5, 3)),
        "duplicates": (x[:4].repeat(5, 1), y[:3].repeat(7, 1)),
        "an outlier": (x, outlier),
        "far from the origin": (x + 1e3, y + 1e3),
        "far from each other": (x, y + 1e3),
        "one dimension": (x[:, :1], y[:, :1]),
        "many dimensions": (x.repeat(1, 200), y.repeat(1, 200)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("blur", [1e-3, 0.5, 1e4])
@pytest.mark.parametrize("hazard", hazard_pairs())
def test_hazards_stay_finite_and_report_the_truth(hazard, blur, dtype, device):
    x, y = (cloud.to(device, dtype) for cloud in hazard_pairs()[hazard])
    result = sinkhorn_velocity(x, y, blur=blur)
    assert result.velocity.isfinite().all()
    assert all(potential.isfinite().all() for potential in result.state[:4])
    assert 0 <= result.marginal_error <= 2
    assert bool(result.converged) == bool(result.marginal_error <= 1e-3)
    assert sinkhorn_divergence(x, y, blur=blur).value.isfinite()


@pytest.mark.parametrize("blur", [1e-3, 0.5, 1e4])
@pytest.mark.parametrize("hazard", hazard_pairs())
def test_hazards_of_large_kernels(hazard, blur, device, small_memory):
    x, y = (cloud.to(device).float() for cloud in hazard_pairs()[hazard])
    result = sinkhorn_velocity(x, y, blur=blur)
    assert result.velocity.isfinite().all()
    assert bool(result.converged) == bool(result.marginal_error <= 1e-3)
    warm = sinkhorn_velocity(x, y, blur=blur, state=result.state)
    assert warm.velocity.isfinite().all()


@pytest.mark.parametrize("dim", [2, 40])
def test_costs_far_from_the_origin_keep_their_digits(dim, generator, device):
    x = torch.randn(20, dim, generator=generator).to(device) + 1e3
    y = torch.cat([x[:5], torch.randn(10, dim, generator=generator).to(device) + 1e3])
    cost, exact = squared_cost(x, y), squared_cost(x.double(), y.double())
    assert (cost >= 0).all()
    assert (cost - exact).abs().max() < 1e-4 * exact.max()  # 1e6 · 6e-8 without centring: .06


def test_costs_of_neighbours_keep_their_digits_in_a_plane(generator, device):
    x = 1e2 * torch.randn(20, 2, generator=generator).to(device)
    y = x + 1e-3 * torch.randn(20, 2, generator=generator).to(device)
    cost, exact = squared_cost(x, y), squared_cost(x.double(), y.double())
    torch.testing.assert_close(cost.diagonal(), exact.diagonal().float(), rtol=1e-5, atol=0)


def test_a_self_kernel_is_one_on_its_diagonal_and_nowhere_above(generator, device):
    x = 1e3 * torch.randn(1, 10, 40, generator=generator).to(device).repeat(1, 2, 1)
    x = x + 1e-3 * torch.randn(1, 20, 40, generator=generator).to(device)
    kernel = ScaledKernel(x, x, same=True)
    kernel.absorb(torch.zeros_like(x[..., 0]), 1e-2)  # rounding alone is a hundred of these
    assert (kernel.plan.diagonal(0, -2, -1) == 1).all()
    assert (kernel.plan <= 1).all()


def test_near_assignment_is_solved(generator, device):
    x = torch.randn(64, 200, generator=generator).to(device)
    y = 2 * torch.randn(64, 200, generator=generator).to(device)
    assert float(squared_cost(x, y).max()) / 0.25 > 87  # plain kernels underflow here
    result = transport(x, y, epsilon=0.25)
    assert result.potentials.converged
    winners = coupling(x, y, result.potentials).argmax(-1)
    assert len(winners.unique()) == 64


def test_clusters_move_as_a_whole(generator, device):
    # At a small blur clusters hardly exchange mass: a Newton step must keep its direction.
    angle = torch.randint(8, (1024,), generator=generator) * (math.pi / 4)
    centres = 5 * torch.stack([angle.cos(), angle.sin()], -1)
    y = (centres + 0.5 * torch.randn(1024, 2, generator=generator)).double().to(device)
    x = torch.randn(1024, 2, generator=generator).double().to(device)
    moved = x + 0.2 * (transport(x, y, epsilon=0.01).projection - x)
    assert transport(moved, y, epsilon=0.01, max_iter=30).potentials.converged


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("blur", [0.14, 0.3])
def test_tails_do_not_hold_up_a_large_cloud(seed, blur, device, monkeypatch):
    limits = {
        "_blocked.STORED": 2**14,
        "_blocked._KEPT": 2**16,
        "_blocked._SAMPLE": 2**15,
        "_blocked._GROUP": 16,
        "_solver._SUBSAMPLE": 64,
    }
    for name, limit in limits.items():
        monkeypatch.setattr(f"sknsgf.sinkhorn.{name}", limit)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 1000, 2, generator=generator).double().to(device)
    assert transport(x, 0.8 * y + 0.3, epsilon=blur**2, max_iter=10).potentials.converged


def test_a_stored_large_kernel_may_be_asked_for_all_rows(clouds):
    x, y = (cloud.unsqueeze(0) for cloud in clouds)
    kernel = BlockedKernel(x, y)
    kernel.absorb(torch.zeros_like(y[..., 0]), 0.5)
    u, mass = kernel.balance(torch.ones_like(y[..., 0]))
    kernel.distrust_hessian(failed=True)
    sampled, _ = kernel.curvature(torch.ones_like(mass), u, mass)
    torch.testing.assert_close(sampled, mass)


@pytest.mark.parametrize("trust", [0.5, 4.0])
def test_newton_steps_keep_within_the_trust_in_them(trust, clouds, monkeypatch):
    monkeypatch.setattr("sknsgf.sinkhorn._solver._CG_GOAL", 1e-24)
    monkeypatch.setattr("sknsgf.sinkhorn._solver._MAX_CG", 1000)
    x, y = (cloud.unsqueeze(0) for cloud in clouds)
    kernel = make_kernel(x, y)
    scaling = _absorb(kernel, 3 * torch.sin(torch.arange(30.0).to(y)).unsqueeze(0), 0.1)
    missing = kernel.demand - scaling.column_mass
    step, free = (
        _newton_solution(kernel, scaling, missing, torch.full_like(scaling.error, limit))
        for limit in (trust, 1e9)
    )
    # Centred by their mean, steps within the trust spread over at most twice as much.
    assert step.max() - step.min() <= 2 * trust * (1 + 1e-6)
    assert free.max() - free.min() > 2 * trust


def test_trust_is_lost_in_failure_and_won_back(clouds, monkeypatch):
    x, y = (cloud.unsqueeze(0) for cloud in clouds)
    kernel = make_kernel(x, y)
    scaling = _absorb(kernel, transport(x, y, epsilon=0.5, tol=0.1).potentials.g, 0.5)
    with monkeypatch.context() as patch:
        away = "sknsgf.sinkhorn._solver._newton_step"
        patch.setattr(away, lambda kernel, scaling: 9 * torch.arange(30.0).to(y).unsqueeze(0))
        failed = _iterate(kernel, scaling)
    assert (failed.trust < scaling.trust).all()
    assert (failed.error <= scaling.error).all()
    assert (_iterate(kernel, failed).trust > failed.trust).all()


def test_a_slow_problem_does_not_disturb_the_others(generator, device):
    easy = torch.randn(3, 30, 2, generator=generator, dtype=torch.float64).to(device)
    x, y = easy, easy.roll(1, 0)
    hard_x, hard_y = x[:1], 300 * y[:1]
    both = transport(torch.cat([x, hard_x]), torch.cat([y, hard_y]), epsilon=0.05, tol=1e-8)
    alone = transport(x, y, epsilon=0.05, tol=1e-8)
    torch.testing.assert_close(both.projection[:3], alone.projection, atol=1e-6, rtol=0)


def test_solved_problems_do_not_iterate_with_the_slow_one(generator, device, monkeypatch):
    x = torch.randn(4, 30, 2, generator=generator, dtype=torch.float64).to(device)
    y = x.roll(1, 0)
    g = transport(x, y, epsilon=0.05, **TIGHT).potentials.g
    g[2] += 0.002 * torch.sin(torch.arange(30.0).to(g))
    sizes, balance = [], ScaledKernel.balance

    def counted(kernel, v):
        sizes.append(len(v))
        return balance(kernel, v)

    monkeypatch.setattr(ScaledKernel, "balance", counted)
    transport(x, y, epsilon=0.05, tol=1e-8, g=g)
    assert sizes[:3] == [4, 4, 4]  # the guess and one step of all
    assert set(sizes[3:]) == {1}


def test_each_problem_has_its_own_status(generator, device):
    x = torch.randn(3, 30, 2, generator=generator, dtype=torch.float64).to(device)
    y = x + torch.randn(3, 30, 2, generator=generator, dtype=torch.float64).to(device)
    epsilon = float(squared_cost(x[0], y[0]).max())  # a hot problem, solved in few iterations
    y = y * torch.tensor([1.0, 1e3, 1.0], device=device).view(-1, 1, 1).to(x)
    result = transport(x, y, epsilon=epsilon, tol=1e-6, max_iter=2)
    assert result.potentials.converged.tolist() == [True, False, True]
    measured = marginal_error(x, y, result.potentials)
    torch.testing.assert_close(measured, result.potentials.marginal_error, atol=1e-9, rtol=1e-6)


def test_not_converged_is_an_answer(clouds):
    x, y = clouds
    result = sinkhorn_velocity(x, y, blur=0.05, tol=1e-12, max_iter=1)
    assert not result.converged
    assert result.marginal_error > 1e-12
    assert result.velocity.isfinite().all()


def test_a_bad_guess_is_overcome(clouds):
    x, y = clouds
    guess = 50 * torch.sin(torch.arange(30.0, dtype=x.dtype, device=x.device))
    result = transport(x, y, epsilon=0.1, tol=1e-8, g=guess)
    assert result.potentials.converged
    cold = transport(x, y, epsilon=0.1, tol=1e-8)
    torch.testing.assert_close(result.projection, cold.projection, atol=1e-6, rtol=0)


@pytest.fixture(params=["stored", "in blocks"])
def either_kernel(request):
    if request.param == "in blocks":
        request.getfixturevalue("small_memory")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e30, math.inf, math.nan])
def test_a_warm_start_is_never_worse_than_a_cold_one(
    size, dtype, clouds, generator, either_kernel
):
    x, y = (cloud.to(dtype) for cloud in clouds)
    problem = {"epsilon": 0.02, "tol": 1e-4, "max_iter": 60}
    cold = transport(x, y, **problem)
    assert cold.potentials.converged
    one = torch.zeros_like(y[:, 0])
    one[4] = 1
    noise = torch.randn(len(y), generator=generator).to(y)
    for guess in (size * noise, cold.potentials.g + size * one, cold.potentials.g - size * one):
        warm = transport(x, y, **problem, g=guess)
        assert warm.potentials.converged
        gap = (warm.projection - cold.projection).abs().max()
        assert gap < 1e-2
        noise_self = torch.randn(len(x), generator=generator).to(x)
        bad_self = self_transport(x, **problem, g=size * noise_self)
        assert bad_self.potentials.converged


@pytest.mark.parametrize(("n", "m"), [(100, 40), (30, 200)])
def test_no_particle_stays_on_the_wrong_side_of_a_gap(n, m, generator, device):
    centres = 3 * torch.randn(5, 100, generator=generator)
    x = torch.randn(n, 100, generator=generator).to(device).double()
    y = (torch.randn(m, 100, generator=generator) + centres[torch.arange(m) % 5]).to(x)
    state = None
    for _ in range(12):
        velocity, _, converged, state = sinkhorn_velocity(
            x, y, blur=0.07, state=state, step_size=0.3
        )
        assert converged
        x = x + 0.3 * velocity


def test_warm_start_follows_the_flow(clouds):
    x, y = clouds
    state = None
    for _ in range(5):
        warm = sinkhorn_velocity(x, y, blur=0.5, tol=1e-8, state=state, step_size=0.3)
        cold = sinkhorn_velocity(x, y, blur=0.5, tol=1e-8)
        torch.testing.assert_close(warm.velocity, cold.velocity, atol=1e-6, rtol=0)
        x, state = x + 0.3 * warm.velocity, warm.state


@pytest.mark.parametrize("blur", [2.0, 6.0, 12.0])  # particles alone, and among neighbours
def test_inner_products_follow_the_flow(blur, generator, device):
    x = torch.randn(3, 12, 90, generator=generator, dtype=torch.float64).to(device)
    y = 2 * torch.randn(3, 15, 90, generator=generator, dtype=torch.float64).to(device)
    steps = torch.tensor([0.2, 0.3, 0.4], dtype=x.dtype, device=device)
    state = None
    for _ in range(4):
        warm = sinkhorn_velocity(x, y, blur=blur, **TIGHT, state=state, step_size=steps)
        cold = sinkhorn_velocity(x, y, blur=blur, **TIGHT)
        torch.testing.assert_close(warm.velocity, cold.velocity, atol=1e-6, rtol=0)
        inner = warm.state.products.onto_targets.inner
        torch.testing.assert_close(inner, x @ y.mT, atol=1e-9, rtol=0)
        inner = warm.state.products.onto_itself.inner
        torch.testing.assert_close(inner, x @ x.mT, atol=1e-9, rtol=0)
        x, state = x + steps.view(-1, 1, 1) * warm.velocity, warm.state


def test_particles_that_moved_otherwise_are_noticed(generator, device):
    x = torch.randn(12, 90, generator=generator, dtype=torch.float64).to(device)
    y = 2 * torch.randn(15, 90, generator=generator, dtype=torch.float64).to(device)
    before = sinkhorn_velocity(x, y, blur=2.0, **TIGHT)
    assert before.state.products is not None
    elsewhere = x + 0.31 * before.velocity
    warm = sinkhorn_velocity(elsewhere, y, blur=2.0, **TIGHT, state=before.state, step_size=0.3)
    cold = sinkhorn_velocity(elsewhere, y, blur=2.0, **TIGHT)
    torch.testing.assert_close(warm.velocity, cold.velocity, atol=1e-6, rtol=0)


BROKEN_PROMISES = {
    "rotated": lambda x, y, turn: (x @ turn, y),
    "mirrored": lambda x, y, turn: (-x, y),
    "permuted": lambda x, y, turn: (x.flip(-2), y),
    "two swapped": lambda x, y, turn: (x[[1, 0, *range(2, len(x))]], y),
    "other targets": lambda x, y, turn: (x, y.roll(1, -1)),
    "one other target": lambda x, y, turn: (x, torch.cat([-y[:1], y[1:]])),
    "targets permuted": lambda x, y, turn: (x, y.flip(-2)),
    "rotated in what targets do not span": lambda x, y, turn: (x @ _aside(y, turn), y),
    "fewer coordinates": lambda x, y, turn: (x[:, :60], y[:, :60]),
}


def _aside(y, turn):
    """A rotation of the space that leaves y where it is."""
    basis = torch.linalg.qr(y.T, mode="complete")[0]
    inner = torch.eye(len(turn)).to(turn)
    inner[len(y) :, len(y) :] = torch.linalg.qr(turn[len(y) :, len(y) :])[0]
    return basis @ inner @ basis.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", BROKEN_PROMISES)
def test_whatever_else_happened_costs_only_time(change, dtype, generator, device):
    x = torch.randn(12, 90, generator=generator, dtype=torch.float64).to(device)
    y = 2 * torch.randn(15, 90, generator=generator, dtype=torch.float64).to(device)
    square = torch.randn(90, 90, generator=generator, dtype=torch.float64).to(device)
    turn = torch.linalg.qr(square)[0]
    start = sinkhorn_velocity(x.to(dtype), y.to(dtype), blur=6.0)
    assert start.state.products is not None
    x = x + 0.3 * start.velocity.double()
    x, y = BROKEN_PROMISES[change](x, y, turn)
    state = start.state
    for _ in range(3):  # what is kept must not spoil the next steps either
        cold = sinkhorn_velocity(x, y, blur=6.0, **TIGHT).velocity
        warm = sinkhorn_velocity(x.to(dtype), y.to(dtype), blur=6.0, state=state, step_size=0.3)
        assert warm.converged
        assert (warm.velocity.double() - cold).norm() < 3e-3 * cold.norm()
        inner = warm.state.products.targets
        assert (inner - y @ y.mT).abs().max() < 1e-4 * y.square().sum(-1).max()
        x, state = x + 0.3 * warm.velocity.double(), warm.state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_promise_that_was_kept_is_believed(dtype, generator, device, monkeypatch):
    x = torch.randn(2, 12, 3000, generator=generator).to(device, dtype)
    y = 2 * torch.randn(2, 15, 3000, generator=generator).to(device, dtype)
    known, formed = [], ScaledKernel._make_room
    monkeypatch.setattr(
        ScaledKernel,
        "_make_room",
        lambda k, inner: known.append(inner is not None) or formed(k, inner),
    )
    state = None
    for _ in range(8):
        result = sinkhorn_velocity(x, y, blur=20.0, state=state, step_size=0.1)
        x, state = x + 0.1 * result.velocity, result.state
    assert known == [False] * 3 + [True] * 14


def test_a_promise_that_was_broken_costs_only_time(clouds):
    x, y = clouds
    state = sinkhorn_velocity(x, y, blur=0.5, **TIGHT).state
    elsewhere = y[:1] - 2 * x
    warm = sinkhorn_velocity(elsewhere, y, blur=0.5, **TIGHT, state=state, step_size=0.3)
    cold = sinkhorn_velocity(elsewhere, y, blur=0.5, **TIGHT)
    assert warm.converged
    torch.testing.assert_close(warm.velocity, cold.velocity, atol=1e-6, rtol=0)


def test_single_precision_agrees_with_double(clouds):
    x, y = clouds
    double = sinkhorn_velocity(x, y, blur=0.5, tol=1e-4).velocity
    single = sinkhorn_velocity(x.float(), y.float(), blur=0.5, tol=1e-4).velocity
    assert (single - double).norm() < 1e-3 * double.norm()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 3), "same space"),
        (torch.zeros(3, 2), torch.zeros(1, 3, 2), "same size"),
        (torch.zeros(3, 2), torch.zeros(3, 2).double(), "convert one"),
        (torch.zeros(0, 2), torch.zeros(3, 2), "no empty dimension"),
        (torch.zeros(3, 2).long(), torch.zeros(3, 2).long(), "convert it first"),
    ],
)
def test_clouds_that_do_not_fit_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        transport(x, y, epsilon=1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan, 1e-60])
def test_impossible_temperatures_are_refused(epsilon):
    with pytest.raises(ValueError, match="positive and finite"):
        transport(torch.zeros(3, 2), torch.zeros(3, 2), epsilon=epsilon)


CALLS = {
    "transport": lambda x, y: transport(x, y, epsilon=1.0),
    "transport from a guess": lambda x, y: transport(x, y, epsilon=1.0, g=torch.zeros(len(y))),
    "self transport": lambda x, y: self_transport(x, epsilon=1.0) and self_transport(y, epsilon=1),
    "divergence": lambda x, y: sinkhorn_divergence(x, y, blur=1.0),
    "velocity": lambda x, y: sinkhorn_velocity(x, y, blur=1.0),
    "projection": lambda x, y: barycentric_projection(x, y, torch.zeros(len(y)), 1.0),
    "cost": squared_cost,
    "coupling": lambda x, y: coupling(
        x, y, transport(torch.zeros(len(x), 1), torch.zeros(len(y), 1), epsilon=1.0).potentials
    ),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_what_is_no_tensor_is_refused(call):
    tensor = torch.zeros(3, 2)
    for other in (tensor.numpy(), tensor.tolist()):
        for pair in ((other, tensor), (tensor, other)):
            with pytest.raises(TypeError, match="must be a tensor, got"):
                call(*pair)


@every_call
@pytest.mark.parametrize("dim", [2, 40])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_value_that_is_not_finite_is_refused(call, dim, bad, generator):
    good = torch.randn(200, dim, generator=generator)
    spoilt = good.clone()
    spoilt[101, 1] = bad  # where a sample of the rows would miss it
    for pair in ((good, spoilt), (spoilt, good)):
        with pytest.raises(ValueError, match="NaN, infinity"):
            call(*pair)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_to_nowhere_is_refused(bad, generator):
    x, y = torch.randn(2, 12, 90, generator=generator)
    state = sinkhorn_velocity(x, y, blur=6.0).state
    with pytest.raises(ValueError, match="NaN, infinity"):
        sinkhorn_velocity(
            x.index_fill(0, torch.tensor(7), bad), y, blur=6.0, state=state, step_size=0.3
        )
    for step_size in (bad, torch.tensor(bad), torch.tensor([0.1, 0.2])):
        with pytest.raises(ValueError, match="step_size must be"):
            sinkhorn_velocity(x, y, blur=6.0, state=state, step_size=step_size)


@pytest.mark.parametrize("step_size", [None, 0.3])
def test_a_state_of_other_clouds_is_refused(step_size, generator):
    x, y = torch.randn(2, 12, 90, generator=generator)
    state = sinkhorn_velocity(x, y, blur=6.0).state
    others = [
        (x[:9], y),
        (x, y[:9]),
        (x.double(), y.double()),
        (x.expand(2, 12, 90), y.expand(2, 12, 90)),
    ]
    for pair in others:
        with pytest.raises(ValueError, match=r"state is of particles \(12,\) and targets \(12,\)"):
            sinkhorn_velocity(*pair, blur=6.0, state=state, step_size=step_size)


@pytest.mark.parametrize("blur", [-1.0, 0.0, math.nan, math.inf, 1e200, 1e-200, 1e-30, 1e30])
def test_impossible_blurs_are_refused(blur):
    x = torch.zeros(3, 2)
    for call in (sinkhorn_velocity, sinkhorn_divergence):
        with pytest.raises(ValueError, match=r"blur.* must be positive and finite"):
            call(x, x, blur=blur)


@pytest.mark.parametrize(
    "setting",
    [{"tol": 0.0}, {"tol": -1.0}, {"tol": math.nan}, {"max_iter": -1}, {"max_iter": 2.5}],
    ids=str,
)
def test_impossible_settings_are_refused(setting):
    x = torch.zeros(3, 2)
    calls = [
        lambda: transport(x, x, epsilon=1.0, **setting),
        lambda: self_transport(x, epsilon=1.0, **setting),
        lambda: sinkhorn_divergence(x, x, blur=1.0, **setting),
        lambda: sinkhorn_velocity(x, x, blur=1.0, **setting),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"{next(iter(setting))} must be"):
            call()


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("blur must be a number", lambda x: sinkhorn_velocity(x, x, blur="a")),
        ("blur must be a number", lambda x: sinkhorn_divergence(x, x, blur=None)),
        ("tol must be a number", lambda x: transport(x, x, epsilon=1.0, tol="1")),
        ("epsilon must be a number", lambda x: self_transport(x, epsilon=1j)),
        ("step_size must be a number", lambda x: sinkhorn_velocity(x, x, blur=1.0, step_size="a")),
        ("state must be", lambda x: sinkhorn_velocity(x, x, blur=1.0, state={})),
        ("potentials must be", lambda x: coupling(x, x, None)),
    ],
)
def test_other_types_are_refused(message, call):
    with pytest.raises(TypeError, match=message):
        call(torch.zeros(3, 2))


def test_what_belongs_to_other_clouds_is_refused():
    x, y = torch.zeros(3, 2), torch.zeros(4, 2)
    potentials = transport(x, y, epsilon=1.0).potentials
    calls = {
        "g": lambda: transport(x, y, epsilon=1.0, g=torch.zeros(3)),
        "inner": lambda: transport(x, y, epsilon=1.0, inner=torch.zeros(3, 4)),
        "g ": lambda: self_transport(x, epsilon=1.0, g=torch.zeros(1, 3)),
        " g": lambda: barycentric_projection(x, y, torch.zeros(3), 1.0),
        "potentials.f": lambda: coupling(y, y, potentials),
        "potentials.g": lambda: coupling(x, x, potentials),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name.strip()} must be a tensor of shape"):
            call()


# Properties of any problem


@st.composite
def problems(draw, dtypes=(torch.float32, torch.float64)):
    """Batches of clouds of any scale, apart, overlapping, repeated or identical."""
    n, m = draw(st.integers(1, 64)), draw(st.integers(1, 64))
    dim, scale = draw(st.integers(1, 100)), 10.0 ** draw(st.integers(-6, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    y = torch.randn(2, m, dim, generator=generator, dtype=torch.float64)
    shape = draw(st.sampled_from(["overlapping", "apart", "duplicates", "identical"]))
    if shape == "apart":
        y = y + 20
    elif shape == "duplicates":
        x = x[:, torch.arange(n) // 2]
    elif shape == "identical":
        y = x.clone()
    blur = scale * draw(st.sampled_from([0.03, 0.3, 3.0, 30.0]))
    dtype = draw(st.sampled_from(dtypes))
    return (scale * x).to(dtype), (scale * y).to(dtype), blur


both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

SEARCH = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SEARCH
@given(problem=problems())
def test_any_problem_is_finite_and_honest(problem, device):
    x, y, blur = problem[0].to(device), problem[1].to(device), problem[2]
    projection, potentials, _ = transport(x, y, epsilon=blur**2, max_iter=60)
    assert projection.isfinite().all()
    assert potentials.f.isfinite().all()
    assert potentials.g.isfinite().all()
    # Recomputed in double precision; the slack is the rounding of single-precision
    # potentials, a few ulp of the largest cost, in units of the temperature.
    exact = SinkhornPotentials(potentials.f.double(), potentials.g.double(), *potentials[2:])
    rounding = 8 * torch.finfo(x.dtype).eps * float(squared_cost(x, y).max()) / blur**2
    if rounding < 0.1:
        measured = marginal_error(x.double(), y.double(), exact)
        assert (measured[potentials.converged] <= 1e-3 + 2 * rounding).all()


@SEARCH
@given(problem=problems())
def test_any_cloud_onto_itself_is_finite_and_honest(problem, device):
    x, blur = problem[0].to(device), problem[2]
    projection, potentials, _ = self_transport(x, epsilon=blur**2, max_iter=60)
    assert projection.isfinite().all()
    assert potentials.g.isfinite().all()
    exact = SinkhornPotentials(potentials.f.double(), potentials.g.double(), *potentials[2:])
    rounding = 8 * torch.finfo(x.dtype).eps * float(squared_cost(x, x).max()) / blur**2
    if rounding < 0.1:
        measured = marginal_error(x.double(), x.double(), exact)
        assert (measured[potentials.converged] <= 1e-3 + 2 * rounding).all()


def in_precision(problem, dtype, device):
    """A problem, how tightly to solve it, and how far apart two solutions may then be.

    Solutions within the tolerance of the same masses differ by a thousand times that at most,
    in units of the clouds. Exponents in single precision are off by a few roundings of the
    largest cost over the temperature, which is as good as masses that are off by as much.
    """
    x, y = (cloud.to(device, dtype) for cloud in problem[:2])
    blur, largest = problem[2], float(squared_cost(x, y).max())
    single = dtype == torch.float32
    tol, rounding = (1e-5, 8 * torch.finfo(dtype).eps * largest / blur**2) if single else (1e-8, 0)
    settings = {"tol": tol, "max_iter": 100}
    return x, y, blur, settings, 1e3 * (tol + rounding) * max(math.sqrt(largest), blur)


@both_precisions
@SEARCH
@given(problem=problems(dtypes=(torch.float64,)))
def test_batched_equals_one_by_one(problem, dtype, device):
    x, y, blur, settings, slack = in_precision(problem, dtype, device)
    together = sinkhorn_velocity(x, y, blur=blur, **settings)
    for b in range(2):
        alone = sinkhorn_velocity(x[b], y[b], blur=blur, **settings)
        if alone.converged and together.converged[b]:
            assert (together.velocity[b] - alone.velocity).abs().max() <= slack


@both_precisions
@SEARCH
@given(problem=problems(dtypes=(torch.float64,)))
def test_dense_equals_blocked(problem, dtype, device):
    x, y, blur, settings, slack = in_precision(problem, dtype, device)
    dense = transport(x, y, epsilon=blur**2, **settings)
    with pytest.MonkeyPatch.context() as patch:
        shrink_memory(patch)
        blocked = transport(x, y, epsilon=blur**2, **settings)
    assert gap_where_solved(dense, blocked) <= slack


@both_precisions
@SEARCH
@given(problem=problems(dtypes=(torch.float64,)))
def test_warm_equals_cold(problem, dtype, device):
    x, y, blur, settings, slack = in_precision(problem, dtype, device)
    cold = transport(x, y, epsilon=blur**2, **settings)
    warm = transport(x, y, epsilon=blur**2, **settings, g=0.9 * cold.potentials.g)
    assert gap_where_solved(cold, warm) <= slack


def gap_where_solved(one, other):
    both = one.potentials.converged & other.potentials.converged
    gap = (other.projection - one.projection)[both].abs()
    return gap.max() if both.any() else 0.0


@pytest.mark.parametrize("distance", [1e1, 1e2, 1e3, 1e4, 1e5])
def test_distance_between_clouds_costs_no_more_than_its_digits(distance, device):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 100, 2, generator=generator).to(device) for _ in range(2))
    shift = torch.tensor([distance, -distance], device=device)
    near, far = (transport(start, y, epsilon=0.01, tol=1e-4) for start in (x, x + shift))
    rounding = distance * torch.finfo(x.dtype).eps
    # A particle known to within `rounding` moves its projection by at most radius² / epsilon
    # times that, and the tolerance stands for as much again.
    slack = 400 * rounding + 0.02
    assert (near.projection - far.projection).abs().max() < slack


def test_potentials_of_far_clouds_solve_their_problem(device):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(60, 3, generator=generator).to(device).double() for _ in range(2))
    x = x + 1e3
    potentials = transport(x, y, epsilon=0.5, tol=1e-9).potentials
    plan = coupling(x, y, potentials)
    torch.testing.assert_close(
        plan.sum(-1), torch.full_like(plan[:, 0], 1 / 60), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(plan.sum(-2), torch.full_like(plan[0], 1 / 60), rtol=1e-6, atol=0)
    again = transport(x, y, epsilon=0.5, tol=1e-9, g=potentials.g)
    assert again.potentials.n_iter <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize("dim", [2, 50])
def test_a_coupling_has_its_marginals_at_any_distance(dim, distance, dtype, generator, device):
    x, y = (torch.randn(2, n, dim, generator=generator).to(device, dtype) for n in (40, 30))
    x = x + distance
    projection, potentials, _ = transport(x, y, epsilon=0.2 * dim)
    assert potentials.converged.all()
    plan = coupling(x, y, potentials)
    assert plan.dtype == dtype
    rounding = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        plan.sum(-1), torch.full_like(x[..., 0], 1 / 40), rtol=rounding, atol=0
    )
    columns = (plan.sum(-2) - 1 / 30).abs().sum(-1)
    assert (columns <= potentials.marginal_error + 1e-4).all()
    again = barycentric_projection(x, y, potentials.g, 0.2 * dim)
    torch.testing.assert_close(again, projection, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [1e1, 1e2, 1e4, 1e6])
def test_divergence_of_a_moved_cloud_follows_its_means(distance, dtype, generator, device):
    x, y = (torch.randn(2, n, 3, generator=generator).to(device, dtype) for n in (40, 30))
    way = distance * torch.tensor([1.0, -2.0, 0.5], dtype=dtype, device=device)
    far = x + way
    x = far.double() - way.double()  # where rounding has put it
    near = sinkhorn_divergence(x, y.double(), blur=0.5, tol=1e-6).value
    law = (
        near + (x.mean(-2) - y.double().mean(-2)) @ way.double() + way.double().square().sum() / 2
    )
    found = sinkhorn_divergence(far, y, blur=0.5)
    assert found.converged.all()
    rounding = 1e-6 if dtype == torch.float32 else 1e-9  # and the tolerance, to second order
    torch.testing.assert_close(found.value.double(), law, rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(7, 1), (1, 7), (10, 3), (17, 33)])
def test_clouds_of_equal_points_whose_mean_rounds(n, m, dtype, device):
    x = torch.full((n, 2), 0.1, dtype=dtype, device=device)
    y = torch.full((m, 2), 0.2, dtype=dtype, device=device)
    torch.testing.assert_close(transport(x, y, epsilon=0.01).projection, y[:1].expand(n, 2))
    velocity = sinkhorn_velocity(x, y, blur=0.1).velocity
    torch.testing.assert_close(velocity, y[:1] - x, atol=1e-6, rtol=0)
    value = sinkhorn_divergence(x, y, blur=0.1).value
    torch.testing.assert_close(value, torch.full_like(value, 0.01), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1e-18, 1e-15, 1e15, 1e18])
def test_velocity_of_tiny_and_huge_clouds_scales_with_them(scale, generator, device):
    x, y = (torch.randn(n, 2, generator=generator).to(device) for n in (20, 15))
    expected = sinkhorn_velocity(x, y, blur=0.5).velocity
    result = sinkhorn_velocity(scale * x, scale * y, blur=0.5 * scale)
    assert result.converged
    torch.testing.assert_close(result.velocity / scale, expected, atol=1e-2, rtol=0)


# Precision


@contextmanager
def under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield lambda: torch.is_autocast_enabled("cpu")


@contextmanager
def at_medium_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield lambda: torch.get_float32_matmul_precision() == "medium"
    torch.set_float32_matmul_precision(before)


@contextmanager
def in_tf32():
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, True
    yield lambda: matmul.allow_tf32
    matmul.allow_tf32 = before


@pytest.mark.parametrize("coarse_products", [under_autocast, at_medium_precision, in_tf32])
def test_products_are_exact_whatever_the_process_prefers(coarse_products, device):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(512, 600, generator=generator).to(device) for _ in range(2))
    exact = sinkhorn_velocity(x, y, blur=3.0).velocity
    with coarse_products() as are_still_chosen:
        velocity = sinkhorn_velocity(x, y, blur=3.0).velocity
        assert are_still_chosen()
    assert torch.equal(velocity, exact)


def test_overlapping_threads_give_the_chosen_precision_back(clouds):
    torch.set_float32_matmul_precision("high")
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(transport, *clouds, epsilon=0.1 * i) for i in range(1, 20)]
    assert all(job.result().potentials.converged for job in jobs)
    assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("blur", [0.03, 0.1])
def test_a_point_that_has_to_cross_a_gap_crosses_it(blur, device):
    """Clusters hundreds of nats apart, of other sizes on the other side."""
    generator = torch.Generator().manual_seed(4)
    centres = 3 * torch.randn(3, 2, generator=generator)

    def clusters():
        points = 0.3 * torch.randn(8, 60, 2, generator=generator)
        return (points + centres[torch.randint(3, (8, 60), generator=generator)]).to(device)

    x, y = clusters(), 1.2 * clusters() + 0.5
    solved = transport(x, y, epsilon=blur**2, tol=5e-3, max_iter=50).potentials
    assert bool(solved.converged.all())
