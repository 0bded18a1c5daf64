"""Jobs, objectives and matrices as pure data: parsing, canonical forms, hashing. No torch."""

from prove.spec.expr import LossExpr, LossTerm, Value
from prove.spec.job import METRICS, EarlyStop, Job, ModelRef, TrainSettings
from prove.spec.parse import parse
from prove.spec.schedule import WeightSchedule

__all__ = [
    "METRICS",
    "EarlyStop",
    "Job",
    "LossExpr",
    "LossTerm",
    "ModelRef",
    "TrainSettings",
    "Value",
    "WeightSchedule",
    "parse",
]
