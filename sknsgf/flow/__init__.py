"""The teachers: where particles go. No network in sight."""

from sknsgf._random import seeded_generator

# Redundant names are for the rooms that rest on this one, not for users.
from sknsgf.flow._clouds import Cloud, GaussianNoise, Rows
from sknsgf.flow._clouds import Dealt as Dealt
from sknsgf.flow._clouds import Drawn as Drawn
from sknsgf.flow._clouds import Source as Source
from sknsgf.flow._clouds import by_number as by_number
from sknsgf.flow._ends import Ends
from sknsgf.flow._ends import split as split
from sknsgf.flow._hull import Hull
from sknsgf.flow._pool import Records, Trajectories, TrajectoryPool
from sknsgf.flow._schedule import Schedule, constant_schedule, straight_schedule
from sknsgf.flow._simulation import Start as Start
from sknsgf.flow._simulation import follow_sinkhorn_flow, simulate_sinkhorn_flow
from sknsgf.flow._simulation import simulate_by_number as simulate_by_number
from sknsgf.flow._status import Status
from sknsgf.flow._straight import CoupledPairs as CoupledPairs
from sknsgf.flow._straight import IndependentPairs as IndependentPairs
from sknsgf.flow._straight import LargePairs as LargePairs
from sknsgf.flow._straight import Pairs as Pairs
from sknsgf.flow._straight import coupled_pairs, large_pairs, straight_records
from sknsgf.flow._teachers import LineTeacher, PoolTeacher
from sknsgf.flow._teachers import Teacher as Teacher
from sknsgf.flow._teachers import first_records as first_records
from sknsgf.flow._velocity import SinkhornState, SinkhornVelocity, sinkhorn_velocity

__all__ = [
    "Cloud",
    "Ends",
    "GaussianNoise",
    "Hull",
    "LineTeacher",
    "PoolTeacher",
    "Records",
    "Rows",
    "Schedule",
    "SinkhornState",
    "SinkhornVelocity",
    "Status",
    "Trajectories",
    "TrajectoryPool",
    "constant_schedule",
    "coupled_pairs",
    "follow_sinkhorn_flow",
    "large_pairs",
    "seeded_generator",
    "simulate_sinkhorn_flow",
    "sinkhorn_velocity",
    "straight_records",
    "straight_schedule",
]
