"""Entropic optimal transport between point clouds: pure functions on batched tensors."""

from sknsgf.sinkhorn._kernel import squared_cost
from sknsgf.sinkhorn._solver import SinkhornPotentials
from sknsgf.sinkhorn._transport import (
    Plan,
    SinkhornDivergence,
    Transport,
    barycentric_projection,
    coupling,
    self_transport,
    sinkhorn_divergence,
    transport,
)

__all__ = [
    "Plan",
    "SinkhornDivergence",
    "SinkhornPotentials",
    "Transport",
    "barycentric_projection",
    "coupling",
    "self_transport",
    "sinkhorn_divergence",
    "squared_cost",
    "transport",
]
