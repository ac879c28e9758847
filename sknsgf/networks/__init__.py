"""The students: modules called as ``network(t, x)``."""

from sknsgf.networks._embedding import TimeEmbedding
from sknsgf.networks._mlp import VelocityMLP

__all__ = ["TimeEmbedding", "VelocityMLP"]
