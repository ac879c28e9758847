"""The papers' algorithms, on torch tensors: they learn maps that move points.

For those who have tensors and no wish for estimators. An algorithm is a frozen set of plain
values; it is given where flows start and end (:class:`Ends`) and what a run needs (:class:`Run`),
and gives back a map (:class:`Learned`). Nothing here warns or shows progress: how training ended
and how well transport problems were solved comes back as data.
"""

from sknsgf.algorithms._run import Algorithm as Algorithm
from sknsgf.algorithms._run import Learned, Run
from sknsgf.algorithms._run import Map as Map
from sknsgf.algorithms._run import Watch as Watch
from sknsgf.algorithms._sinkhorn_flow import SinkhornFlow, SinkhornMap
from sknsgf.algorithms._two_phases import STRAIGHT_RATE as STRAIGHT_RATE
from sknsgf.algorithms._two_phases import TwoPhaseMap, TwoPhases
from sknsgf.flow import Ends, GaussianNoise, Rows
from sknsgf.networks import NetworkSpec

__all__ = [
    "Ends",
    "GaussianNoise",
    "Learned",
    "NetworkSpec",
    "Rows",
    "Run",
    "SinkhornFlow",
    "SinkhornMap",
    "TwoPhaseMap",
    "TwoPhases",
]
