"""The students: modules called as ``network(t, x)``."""

from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._mlp import VelocityMLP
from sknsgf.networks._predictor import TimePredictor
from sknsgf.networks._standardised import StandardisedVelocity

__all__ = ["StandardisedVelocity", "TimeEmbedding", "TimePredictor", "VelocityMLP"]
