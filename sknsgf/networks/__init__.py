"""The students: modules called as ``network(t, x)``."""

from sknsgf.networks._description import describe_network, rebuild_network
from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._predictor import TimePredictor
from sknsgf.networks._standardised import StandardisedVelocity

__all__ = [
    "StandardisedVelocity",
    "TimeEmbedding",
    "TimePredictor",
    "VelocityMLP",
    "describe_network",
    "rebuild_network",
]
