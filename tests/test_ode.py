import math

import pytest
import torch

from sknsgf.ode import METHODS, integrate, invert, volumes

ORDERS = {"euler": 1, "heun": 2, "rk4": 4}
each_method = pytest.mark.parametrize("method", METHODS)


def tilted_square(t, x):
    """A nonlinear field that changes in time, with a known solution."""
    return x.square() * torch.cos(t).unsqueeze(-1)


def solution_of_tilted_square(x, start, stop):
    return 1 / (1 / x - (math.sin(stop) - math.sin(start)))


@pytest.fixture
def x(device):
    return torch.tensor([[0.2, -0.6], [0.5, 0.3], [-0.4, 0.6]], dtype=torch.float64, device=device)


def grid(start, stop, n_steps, x):
    return torch.linspace(start, stop, n_steps + 1, dtype=x.dtype, device=x.device)


def counting(velocity):
    def counted(t, x):
        assert t.shape == x.shape[:1]
        counted.calls += 1
        return velocity(t, x)

    counted.calls = 0
    return counted


@each_method
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, -0.5)])
def test_observed_order(method, start, stop, x):
    exact = solution_of_tilted_square(x, start, stop)

    def error(n_steps):
        solution = integrate(tilted_square, x, grid(start, stop, n_steps, x), method=method)
        return float((solution.x[-1] - exact).abs().max())

    observed = math.log2(error(40) / error(80))
    assert observed == pytest.approx(ORDERS[method], abs=0.25)


@each_method
def test_time_alone_is_integrated_to_the_order_of_the_method(method, x):
    # Quadrature: Euler is exact for constants, Heun (trapezium) for lines, RK4 (Simpson) for
    # cubics, and none for the next power.
    exact_degree = {"euler": 0, "heun": 1, "rk4": 3}[method]
    for degree in range(exact_degree + 2):
        moved = integrate(
            lambda t, x, p=degree: (p + 1) * t.unsqueeze(-1) ** p + 0 * x,
            x,
            grid(0, 1, 3, x),
            method=method,
        ).x[-1]
        is_exact = torch.allclose(moved, x + 1, rtol=0, atol=1e-12)
        assert is_exact == (degree <= exact_degree)


@each_method
def test_states_are_those_of_the_grid(method, x):
    times = grid(0, 1, 5, x)
    solution = integrate(tilted_square, x, times, method=method)
    assert solution.x.shape == (6, *x.shape)
    torch.testing.assert_close(solution.t, times, rtol=0, atol=0)
    torch.testing.assert_close(solution.x[0], x, rtol=0, atol=0)
    part = integrate(tilted_square, solution.x[2], times[2:], method=method)
    torch.testing.assert_close(part.x, solution.x[2:], rtol=0, atol=0)


@each_method
def test_nfe_counts_the_calls(method, x):
    times = grid(0, 1, 7, x)
    velocity = counting(tilted_square)
    assert integrate(velocity, x, times, method=method).nfe == velocity.calls
    assert velocity.calls == 7 * {"euler": 1, "heun": 2, "rk4": 4}[method]
    velocity = counting(tilted_square)
    assert invert(velocity, x, times, method=method).nfe == velocity.calls > 0


@each_method
@pytest.mark.parametrize("solve", [integrate, invert])
def test_times_of_each_state_are_its_own(method, solve, x):
    ends = [(0.0, 1.0), (0.3, 0.9), (0.8, 0.1)]
    times = torch.stack([grid(*end, 6, x) for end in ends], 1)
    together = solve(tilted_square, x, times, method=method)
    assert together.t.shape == (7, 3)
    for i in range(len(x)):
        alone = solve(tilted_square, x[i : i + 1], times[:, i], method=method)
        torch.testing.assert_close(together.x[:, i : i + 1], alone.x, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(together.t[:, i], alone.t, rtol=0, atol=0)


@each_method
def test_a_state_whose_time_stands_still_stays(method, x):
    times = grid(0, 1, 4, x).unsqueeze(-1).expand(-1, 3).clone()
    times[:, 1] = 0.5
    moved = integrate(tilted_square, x, times, method=method).x[-1]
    torch.testing.assert_close(moved[1], x[1], rtol=0, atol=0)
    assert (moved[[0, 2]] != x[[0, 2]]).all()


@each_method
def test_invert_undoes_integrate(method, x):
    times = grid(0, 1, 20, x)
    there = integrate(tilted_square, x, times, method=method)
    back = invert(tilted_square, there.x[-1], times, method=method, tol=1e-14)
    torch.testing.assert_close(back.x, there.x.flip(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back.t, times.flip(0), rtol=0, atol=0)


def test_invert_is_closer_than_integrating_backwards(x):
    times = grid(0, 1, 10, x)
    end = integrate(tilted_square, x, times).x[-1]
    backwards = integrate(tilted_square, end, times.flip(0)).x[-1]
    error, error_backwards = (
        float((start - x).abs().max())
        for start in (invert(tilted_square, end, times).x[-1], backwards)
    )
    assert error < 1e-5 < 1e-2 < error_backwards


@pytest.mark.parametrize("slope", [-0.9, -0.2, 0.2, 5.0, -5.0, 1e3])
@pytest.mark.parametrize("d", [1, 2, 15, 60])
def test_linear_steps_are_undone_however_steep(slope, d):
    """Small slopes by the fixed point, large ones by Newton's method, in one step or two."""
    generator = torch.Generator().manual_seed(d)
    turn, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    x = torch.randn(50, d, dtype=torch.float64, generator=generator)
    slopes = slope * torch.linspace(0.5, 1, d, dtype=torch.float64)
    velocity = counting(lambda t, x: x @ turn @ torch.diag(slopes) @ turn.T)
    end = integrate(velocity, x, grid(0, 1, 1, x)).x[-1]
    before = velocity.calls
    back = invert(velocity, end, grid(0, 1, 1, x))
    torch.testing.assert_close(back.x[-1], x, rtol=0, atol=1e-7)
    assert velocity.calls - before < (60 if abs(slope) < 0.5 else 300)


@pytest.mark.parametrize("d", [1, 2, 15, 60])
def test_what_is_returned_does_not_depend_on_the_rows_beside_it(d):
    generator = torch.Generator().manual_seed(d)
    x = torch.randn(30, d, dtype=torch.float64, generator=generator)
    x[::3] *= 100

    def steep(t, x):
        return 2 * x.sin() - x.roll(1, -1).cos()

    together = invert(steep, x, grid(0, 1, 3, x))
    for i in range(0, 30, 7):
        alone = invert(steep, x[i : i + 1], grid(0, 1, 3, x))
        torch.testing.assert_close(together.x[:, i : i + 1], alone.x, rtol=1e-9, atol=1e-9)


@each_method
def test_methods_may_differ_from_step_to_step(method, x):
    times = grid(0, 1, 4, x)
    first = integrate(tilted_square, x, times[:-1], method=method)
    last = integrate(tilted_square, first.x[-1], times[-2:])
    both = integrate(tilted_square, x, times, method=[method] * 3 + ["euler"])
    assert torch.equal(both.x[-1], last.x[-1]) and both.nfe == first.nfe + last.nfe
    back = invert(tilted_square, both.x[-1], times, method=[method] * 3 + ["euler"])
    torch.testing.assert_close(back.x[-1], x, rtol=0, atol=1e-9)


@each_method
@pytest.mark.parametrize("solve", [integrate, invert])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(method, solve, dtype, x):
    x = x.to(dtype)
    solution = solve(tilted_square, x, grid(0, 1, 3, x), method=method)
    assert solution.x.dtype == solution.t.dtype == dtype


@pytest.mark.parametrize("solve", [integrate, invert])
def test_unknown_method_names_the_options(solve, x):
    with pytest.raises(ValueError, match=r"euler.*heun.*rk4.*'midpoint'"):
        solve(tilted_square, x, grid(0, 1, 3, x), method="midpoint")


def swirl(t, x):
    """A flow that bends, stretches and depends on time."""
    turned = torch.stack([-x[:, 1], x[:, 0]], 1)
    return (1 + t).unsqueeze(-1) * turned * x.square().sum(-1, keepdim=True).neg().exp() + x


@pytest.mark.parametrize("uneven", [[0.0, 0.1, 0.4, 1.0]])
@each_method
def test_undoes_large_steps_to_the_last_digits(method, uneven):
    start, times = torch.randn(50, 2).double(), torch.tensor(uneven, dtype=torch.float64)
    end = integrate(swirl, start, times, method=method).x[-1]
    back = invert(swirl, end, times, method=method)
    assert (back.error < 1e-8).all()
    torch.testing.assert_close(back.x[-1], start, rtol=0, atol=1e-8)


def test_a_projection_is_undone_where_it_can_be():
    """x' = x³ is reached from everywhere although its slope vanishes at 0."""
    x = torch.linspace(-2, 2, 8, dtype=torch.float64)[:, None]
    back = invert(lambda t, x: x**3 - x, x**3, grid(0, 1, 1, x))
    assert (back.error < 1e-9).all()
    torch.testing.assert_close(back.x[-1], x, rtol=0, atol=1e-6)


def test_what_nothing_is_carried_to_is_told():
    """x' = x² reaches no negative number, and positive ones twice."""
    x = torch.tensor([[-1.0], [0.5], [4.0]], dtype=torch.float64)
    back = invert(lambda t, x: x.square() - x, x, grid(0, 1, 1, x))
    assert (back.error > 0.9).tolist() == [True, False, False]
    torch.testing.assert_close(back.x[-1][1:].square(), x[1:])


class TestVolumes:
    grid = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)

    @each_method
    @pytest.mark.gradients
    def test_they_are_those_of_the_whole_map(self, method):
        start = torch.randn(20, 2, dtype=torch.float64)

        def end(row):
            return integrate(swirl, row[None], self.grid, method=method).x[-1, 0]

        jacobians = torch.stack([torch.autograd.functional.jacobian(end, row) for row in start])
        states = integrate(swirl, start, self.grid, method=method).x
        change = volumes(swirl, states, self.grid, method=method)
        torch.testing.assert_close(change.log_det, jacobians.det().abs().log(), rtol=0, atol=1e-9)

    @pytest.mark.gradients
    def test_linear_steps_in_many_dimensions(self):
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn(20, 20, dtype=torch.float64, generator=generator) / 10
        x = torch.randn(4, 5, 20, dtype=torch.float64, generator=generator)
        change = volumes(lambda t, x: x @ matrix, x, self.grid)
        steps = [torch.eye(20).double() + h * matrix for h in self.grid.diff()]
        expected = sum(step.det().abs().log() for step in steps)
        torch.testing.assert_close(change.log_det, expected.expand(5))

    def test_a_step_that_turns_space_over_is_told(self):
        x = torch.ones(2, 3, 1, dtype=torch.float64)
        assert volumes(lambda t, x: -2 * x, x, self.grid[[0, 3]]).folded.all()
        assert not volumes(lambda t, x: 2 * x, x, self.grid[[0, 3]]).folded.any()

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_any_gradient_mode_and_precision(self, mode):
        with mode():
            states = torch.ones(4, 3, 2, dtype=torch.float32)
            change = volumes(lambda t, x: x, states, self.grid)
        assert change.log_det.dtype == torch.float32
        expected = 2 * self.grid.diff().log1p().sum().float()
        torch.testing.assert_close(change.log_det, expected.expand(3))


@each_method
def test_what_the_fixed_point_does_not_reach_is_looked_for(method, x):
    """A steep field: a single step of it moves states by more than they are apart."""

    def steep(t, x):
        return 3 * (x + t[:, None]).sin() + 2 * x

    times = grid(0, 1, 2, x)
    end = integrate(steep, x, times, method=method).x[-1]
    back = invert(steep, end, times, method=method)
    reached = back.error <= 1e-8
    assert reached.float().mean() >= 2 / 3
    again = integrate(steep, back.x[-1], times, method=method).x[-1]
    torch.testing.assert_close(again[reached], end[reached], rtol=0, atol=1e-7)


@each_method
def test_an_inverse_says_how_far_what_it_found_is_carried_from_what_was_given(method, x):
    far = torch.cat([x, 1e3 * x, 1e30 * x, torch.zeros_like(x)])
    for velocity in (swirl, tilted_square, lambda t, x: x.square() - x, lambda t, x: 0 * x - x):
        back = invert(velocity, far, grid(0, 1, 2, x), method=method)
        again = integrate(velocity, back.x[-1], grid(0, 1, 2, x), method=method).x[-1]
        assert back.x.isfinite().all()
        torch.testing.assert_close(back.error, (again - far).norm(dim=1), equal_nan=True)


def test_an_inverse_leaves_what_it_is_given_alone(x):
    given = x.clone()
    invert(lambda t, x: -0.1 * x, x, grid(0, 1, 3, x))
    assert torch.equal(x, given)


def test_a_guide_that_agrees_with_the_velocity_leads_to_its_inverse(x):
    def stiff(t, x):  # agrees with the guide where the states are, and is useless elsewhere
        return torch.where(x.abs().amax(-1, keepdim=True) < 20, 1000 - x, 0)

    end = integrate(stiff, x, grid(0, 0.5, 1, x)).x[-1]
    back = invert(stiff, end, grid(0, 0.5, 1, x), guide=lambda t, x: 1000 - x)
    torch.testing.assert_close(back.x[-1], x, rtol=0, atol=1e-6)
    assert (back.error < 1e-6).all()
