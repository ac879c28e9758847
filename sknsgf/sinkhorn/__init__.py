"""Entropic optimal transport between point clouds: pure functions on batched tensors."""

# Redundant names are for the rooms that rest on this one, not for users.
from sknsgf.sinkhorn._checks import check_clouds as check_clouds
from sknsgf.sinkhorn._checks import temperature as temperature
from sknsgf.sinkhorn._kernel import has_products as has_products
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
