"""The second teacher: straight lines from source to target points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sknsgf.flow._pool import Records
from sknsgf.sinkhorn import coupling, squared_cost, transport

_GROUP = 8  # minibatches coupled at a time
_SHARPNESS = 0.05  # temperature of a large coupling over the standard deviation of its costs
_N_COSTS = 1024  # points of each cloud on which that is measured
_REUSE = 16  # targets drawn for a source point, while its row of the coupling is at hand
_BLOCK = 256  # rows of it at a time


def straight_records(x: Tensor, y: Tensor, generator: torch.Generator) -> Records:
    r"""Place pairs on their straight lines, at uniform times.

    .. math:: x_t = (1 - t)\, x + t\, y, \qquad u = y - x

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Starts.
    y : Tensor of shape (n, d)
        Ends, paired with the starts row by row.
    generator : torch.Generator
        Draws the times.

    Returns
    -------
    Records
        Times in [0, 1), positions and velocities.

    References
    ----------
    .. [1] Zhu et al., "Neural Sinkhorn Gradient Flow", IJCAI 2024, arXiv:2401.14069,
       Algorithm 3.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.zeros(3, 2), torch.ones(3, 2)
    >>> records = straight_records(x, y, torch.Generator().manual_seed(0))
    >>> bool(torch.all(records.x == records.t[:, None]))
    True
    """
    t = torch.rand(len(x), dtype=x.dtype, generator=generator)
    return Records(t, torch.lerp(x, y, t.unsqueeze(-1)), y - x)


def coupled_pairs(
    draw_source: Callable[[torch.Generator], Tensor],
    draw_target: Callable[[torch.Generator], Tensor],
    generator: torch.Generator,
    *,
    blur: float,
    tol: float = 1e-2,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pair minibatches of source and target points by entropic optimal transport.

    Parameters
    ----------
    draw_source, draw_target : callable (generator) -> Tensor of shape (n, d)
        Draw a minibatch.
    generator : torch.Generator
        Draws minibatches, and a target for each source point from its row of the coupling.
    blur : float
        Resolution, in the units of the clouds.
    tol : float, default=1e-2
        Largest accepted marginal error.

    Yields
    ------
    tuple of two Tensors of shape (n, d)
        Source points and the target points drawn for them, without end.

    References
    ----------
    .. [1] Pooladian et al., "Multisample Flow Matching", ICML 2023.

    Examples
    --------
    >>> import torch
    >>> near = lambda g: torch.rand(4, 1, generator=g).sort(0).values
    >>> pairs = coupled_pairs(near, near, torch.Generator().manual_seed(0), blur=0.01)
    >>> x, y = next(pairs)
    >>> x.shape, y.shape
    (torch.Size([4, 1]), torch.Size([4, 1]))
    """
    while True:
        x = torch.stack([draw_source(generator) for _ in range(_GROUP)])
        y = torch.stack([draw_target(generator) for _ in range(_GROUP)])
        plans = coupling(x, y, transport(x, y, epsilon=blur**2, tol=tol).potentials)
        for plan, starts, ends in zip(plans, x, y, strict=True):
            yield starts, ends[_draw_columns(plan, 1, generator).squeeze(-1)]


def large_pairs(
    draw_source: Callable[[int, torch.Generator], Tensor],
    draw_target: Callable[[int, torch.Generator], Tensor],
    generator: torch.Generator,
    *,
    batch_size: int,
    n_source: int,
    n_target: int,
    fixed_target: bool = True,
    tol: float = 1e-2,
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Pair points as the entropic transport between two large clouds does.

    Only the potential :math:`g` of the targets is kept. New source points then draw their
    targets, sixteen each, from their own rows of the coupling,

    .. math:: p_j(x) \propto \exp\bigl((g_j - \tfrac12\|x - y_j\|^2) / \varepsilon\bigr),

    with :math:`\varepsilon` a twentieth of the standard deviation of the costs, whatever the
    scale of the data.

    Parameters
    ----------
    draw_source, draw_target : callable (n, generator) -> Tensor of shape (n, d)
        Draw points.
    generator : torch.Generator
        Draws clouds, source points and their targets.
    batch_size : int
        Pairs at a time, at most `n_source`.
    n_source, n_target : int
        Points of the clouds that transport is solved for.
    fixed_target : bool, default=True
        Whether transport is solved once, which is right where `n_target` are all the targets
        there are, or again for other points whenever new ones are drawn.
    tol : float, default=1e-2
        Largest accepted marginal error.

    Yields
    ------
    tuple of two Tensors of shape (batch_size, d)
        Source points and the target points drawn for them, without end.

    Raises
    ------
    ValueError
        At the first batch, if `batch_size` is more than `n_source`.

    Notes
    -----
    Memory grows with ``n_source + n_target`` and by blocks of ``256 * n_target`` and those of
    the solver, never by ``n_source * n_target``, once that is large.

    References
    ----------
    .. [1] Pooladian et al., "Multisample Flow Matching", ICML 2023.
    .. [2] Zhang et al., "On Fitting Flow Models with Large Sinkhorn Couplings", 2025,
       arXiv:2506.05526.

    Examples
    --------
    >>> import torch
    >>> draw = lambda n, g: torch.rand(n, 1, generator=g)
    >>> pairs = large_pairs(draw, draw, torch.Generator().manual_seed(0),
    ...                     batch_size=4, n_source=500, n_target=300)
    >>> x, y = next(pairs)
    >>> bool((x - y).abs().max() < 0.5)  # the transport of a distribution to itself is short
    True
    """
    if batch_size > n_source:
        raise ValueError(
            f"batch_size={batch_size} is more than the n_source={n_source} points that are paired "
            "at a time; raise n_source."
        )
    while True:
        y = draw_target(n_target, generator)
        g, epsilon = _solve_large(draw_source(n_source, generator), y, tol)
        for _ in itertools.count() if fixed_target else range(1):
            x = draw_source(n_source, generator)
            for ends in _draw_ends(x, y, g, epsilon, generator).T:
                order = torch.randperm(n_source, generator=generator)
                whole = order[: n_source // batch_size * batch_size]
                for some in whole.split(batch_size):
                    yield x[some], y[ends[some]]


def _draw_ends(
    x: Tensor, y: Tensor, g: Tensor, epsilon: float, generator: torch.Generator
) -> Tensor:
    """Draw _REUSE columns (n, _REUSE) of the coupling for each of n source points."""
    drawn = []
    for block in x.split(_BLOCK):
        exponents = (g - squared_cost(block, y)) / epsilon
        weights = (exponents - exponents.amax(-1, keepdim=True)).exp()
        drawn.append(_draw_columns(weights, _REUSE, generator))
    return torch.cat(drawn)


def _solve_large(x: Tensor, y: Tensor, tol: float) -> tuple[Tensor, float]:
    spread = float(squared_cost(x[:_N_COSTS], y[:_N_COSTS]).std())
    epsilon = _SHARPNESS * (spread or 1.0)  # where all costs are equal any temperature will do
    return transport(x, y, epsilon=epsilon, tol=tol).potentials.g, epsilon


def _draw_columns(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n columns for each row of weights; multinomial draws a number for every entry."""
    shares = weights.cumsum(-1)
    level = torch.rand(len(weights), n, dtype=weights.dtype, generator=generator) * shares[:, -1:]
    return torch.searchsorted(shares, level, right=True).clamp(max=weights.shape[1] - 1)
