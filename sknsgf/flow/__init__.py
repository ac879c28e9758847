"""The teachers: where particles go. No network in sight."""

from sknsgf.flow._hull import Hull
from sknsgf.flow._pool import Records, Trajectories, TrajectoryPool
from sknsgf.flow._schedule import Schedule, constant_schedule, straight_schedule
from sknsgf.flow._simulation import (
    follow_sinkhorn_flow,
    seeded_generator,
    simulate_sinkhorn_flow,
)
from sknsgf.flow._straight import coupled_pairs, large_pairs, straight_records
from sknsgf.flow._velocity import SinkhornState, SinkhornVelocity, sinkhorn_velocity

__all__ = [
    "Hull",
    "Records",
    "Schedule",
    "SinkhornState",
    "SinkhornVelocity",
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
