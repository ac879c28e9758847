"""How a student learns: the only room that calls backward()."""

from sknsgf.training._history import TrainingHistory, TrainingRecord
from sknsgf.training._loop import train
from sknsgf.training._loss import time_prediction_loss, velocity_matching_loss

__all__ = [
    "TrainingHistory",
    "TrainingRecord",
    "time_prediction_loss",
    "train",
    "velocity_matching_loss",
]
