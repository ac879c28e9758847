"""The second teacher: straight lines from source to target points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sknsgf.flow._pool import Records
from sknsgf.sinkhorn import coupling, transport

_GROUP = 8  # minibatches coupled at a time


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
            yield starts, ends[torch.multinomial(plan, 1, generator=generator).squeeze(-1)]
