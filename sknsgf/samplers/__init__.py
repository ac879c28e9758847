"""The scikit-learn face: estimators that fit a flow and carry arrays along it."""

from sknsgf._persistence import PersistenceError
from sknsgf.samplers._base import Trajectory
from sknsgf.samplers._nsgf import NSGFSampler
from sknsgf.samplers._plusplus import NSGFPlusPlus

__all__ = ["NSGFPlusPlus", "NSGFSampler", "PersistenceError", "Trajectory"]
