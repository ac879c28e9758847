"""The baselines of the other scripts: torchcfm's own matchers, our network and training loop.

torchcfm is no dependency: ``pip install --no-deps torchcfm``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknsgf.ode import integrate
from sknsgf.training import train, velocity_matching_loss

BASELINES = ("OT-CFM", "flow matching")
N_UNSEEN = 4096

DrawPairs = Callable[[int], tuple[Tensor, Tensor]]  # so many points of source and target


def matchers() -> dict[str, Any]:
    """What pairs points, by name in the tables; none where torchcfm is missing, and so said."""
    try:
        from torchcfm import conditional_flow_matching as cfm
    except ImportError:
        print("torchcfm is not installed: OT-CFM and flow matching are left out")
        return {}
    kinds = (cfm.ExactOptimalTransportConditionalFlowMatcher, cfm.ConditionalFlowMatcher)
    return {name: kind(sigma=0.0) for name, kind in zip(BASELINES, kinds, strict=True)}


def train_on_lines(
    matcher: Any,
    make_network: Callable[[], nn.Module],
    draw: DrawPairs,
    *,
    seed: int,
    max_iter: int,
    learning_rate: float,
    batch_size: int = 256,
    draw_unseen: DrawPairs | None = None,
) -> nn.Module:
    """Train a network on a matcher's lines; stop early by unseen pairs, if there are any."""
    torch.manual_seed(seed)  # torchcfm draws from the global generators
    np.random.seed(seed)  # noqa: NPY002

    def lines(draw: DrawPairs) -> tuple[Tensor, Tensor, Tensor]:
        return matcher.sample_location_and_conditional_flow(*draw(batch_size))

    validation_loss = None
    if draw_unseen is not None:
        unseen = [lines(draw_unseen) for _ in range(N_UNSEEN // batch_size)]
        t, x, u = (torch.cat(parts) for parts in zip(*unseen, strict=True))

        def validation_loss(network: nn.Module) -> Tensor:
            return velocity_matching_loss(network, t, x, u)

    network, _ = train(
        make_network(),
        lambda network: velocity_matching_loss(network, *lines(draw)),
        max_iter=max_iter,
        learning_rate=learning_rate,
        ema_decay=0.995,
        validation_loss=validation_loss,
    )
    return network


@torch.no_grad()
def follow(network: nn.Module, x: Tensor, nfe: int) -> Tensor:
    """Where points end after so many equal steps."""
    return integrate(network, x, torch.linspace(0, 1, nfe + 1)).x[-1]
