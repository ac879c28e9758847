"""The scikit-learn face: estimators that fit a flow and carry arrays along it."""

from sknsgf._persistence import PersistenceError
from sknsgf.samplers._base import BaseFlowSampler, Trajectory
from sknsgf.samplers._nsgf import NSGFSampler
from sknsgf.samplers._plusplus import NSGFPlusPlus

__all__ = ["BaseFlowSampler", "NSGFPlusPlus", "NSGFSampler", "PersistenceError", "Trajectory"]
