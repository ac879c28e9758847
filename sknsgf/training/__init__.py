"""How a student learns: the only room that calls backward()."""

from sknsgf.training._history import TrainingHistory, TrainingRecord, TrainingStatus
from sknsgf.training._loop import learn, train
from sknsgf.training._loss import time_prediction_loss, velocity_matching_loss
from sknsgf.training._state import Objective as Objective
from sknsgf.training._state import Training

__all__ = [
    "Training",
    "TrainingHistory",
    "TrainingRecord",
    "TrainingStatus",
    "learn",
    "time_prediction_loss",
    "train",
    "velocity_matching_loss",
]
