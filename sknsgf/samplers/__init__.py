"""The scikit-learn face: estimators that fit a flow and carry arrays along it."""

from sknsgf.samplers._base import Trajectory
from sknsgf.samplers._nsgf import NSGFSampler

__all__ = ["NSGFSampler", "Trajectory"]
