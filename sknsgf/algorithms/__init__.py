"""The papers' algorithms, on torch tensors: they learn maps that move points.

For those who have tensors and no wish for estimators. An algorithm is a frozen set of plain
values; it is given where flows start and end (:class:`~sknsgf.flow.Ends`) and what a run needs
(:class:`Run`), and gives back a map (:class:`Learned`). Nothing here warns or shows progress: how
training ended and how well transport problems were solved comes back as data.

What an algorithm is made of can be imported from here, too: :class:`~sknsgf.flow.Ends`,
:class:`~sknsgf.flow.Rows`, :class:`~sknsgf.flow.GaussianNoise` and
:class:`~sknsgf.networks.NetworkSpec`.
"""

# Redundant names are those of other rooms, which list them, and for the rooms that rest on this.
from sknsgf.algorithms._run import Algorithm as Algorithm
from sknsgf.algorithms._run import Checkpoint as Checkpoint
from sknsgf.algorithms._run import Learned, Run
from sknsgf.algorithms._run import Map as Map
from sknsgf.algorithms._run import Watch as Watch
from sknsgf.algorithms._sinkhorn_flow import SinkhornFlow, SinkhornMap
from sknsgf.algorithms._two_phases import STRAIGHT_RATE as STRAIGHT_RATE
from sknsgf.algorithms._two_phases import TwoPhaseMap, TwoPhases
from sknsgf.flow import Ends as Ends
from sknsgf.flow import GaussianNoise as GaussianNoise
from sknsgf.flow import Rows as Rows
from sknsgf.networks import NetworkSpec as NetworkSpec

__all__ = ["Learned", "Run", "SinkhornFlow", "SinkhornMap", "TwoPhaseMap", "TwoPhases"]
