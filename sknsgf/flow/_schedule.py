"""The clock: how network time t and the flow's step sizes are tied."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sknsgf._arguments import check_positive, check_share, check_size


class Schedule(NamedTuple):
    """Times of a simulation and the step taken from each.

    Attributes
    ----------
    times : Tensor of shape (n_steps + 1,)
        From 0 (source) to the end of the flow, increasing, float64.
    step_sizes : Tensor of shape (n_steps,)
        Flow time of each step: ``x[k + 1] = x[k] + step_sizes[k] * velocity(x[k])``.
    """

    times: Tensor
    step_sizes: Tensor


def straight_schedule(
    n_steps: int, t_end: float = 1.0, generator: torch.Generator | None = None
) -> Schedule:
    r"""Schedule under which displacements are straight and end at t = 1.

    Flow time is :math:`s = -\log(1 - t)`, so the step from :math:`t_k` to :math:`t_{k+1}` is
    :math:`\eta_k = (t_{k+1} - t_k) / (1 - t_k)`; the last step to t = 1 has size one and lands
    on the projection.

    Parameters
    ----------
    n_steps : int
        Number of steps.
    t_end : float, default=1.0
        Where to stop, in (0, 1].
    generator : torch.Generator, optional
        If given, interior times are jittered within their strata, so that many simulations
        together cover all times; the first and last stay in place.

    Returns
    -------
    Schedule
        Times and step sizes.

    Raises
    ------
    TypeError, ValueError
        If `n_steps` is not a positive integer, or `t_end` not in (0, 1].

    Examples
    --------
    >>> straight_schedule(4).step_sizes
    tensor([0.2500, 0.3333, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_size(n_steps, "n_steps")
    t_end = check_share(t_end, "t_end", "(0, 1]")
    grid = torch.arange(n_steps + 1, dtype=torch.float64, device="cpu")
    if generator is not None and n_steps > 1:
        moved = torch.rand(n_steps - 1, dtype=grid.dtype, device="cpu", generator=generator)
        grid[1:-1] += moved - 0.5
    times = grid / n_steps * t_end  # in this order the last is t_end to the bit
    return Schedule(times, times.diff() / (1 - times[:-1]))


def constant_schedule(n_steps: int, step_size: float) -> Schedule:
    """Schedule of the paper: equal times, equal step sizes.

    Parameters
    ----------
    n_steps : int
        Number of steps.
    step_size : float
        Flow time of each step.

    Returns
    -------
    Schedule
        Times k / n_steps and the constant step size.

    Raises
    ------
    TypeError, ValueError
        If `n_steps` is not a positive integer, or `step_size` not a positive number.

    Examples
    --------
    >>> constant_schedule(2, 0.5).times
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_size(n_steps, "n_steps")
    step_size = check_positive(step_size, "step_size")
    times = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64, device="cpu")
    return Schedule(times, torch.full_like(times[1:], step_size))
