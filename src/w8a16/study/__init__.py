"""What 8 bits do to a model, to its numbers and to its speed: measured, with definitions."""

from w8a16.study.advice import Total, advice, crossover, exclude_patterns, totals
from w8a16.study.limits import Limits, sample_limits
from w8a16.study.metrics import WeightError, cosine, nearest_neighbours, sqnr_db, weight_errors
from w8a16.study.speed import LinearShape, Measurement, ModelShapes, linear_shapes, measure_linear
from w8a16.study.timing import Timing, time_in_turn

__all__ = [
    "Limits",
    "LinearShape",
    "Measurement",
    "ModelShapes",
    "Timing",
    "Total",
    "WeightError",
    "advice",
    "cosine",
    "crossover",
    "exclude_patterns",
    "linear_shapes",
    "measure_linear",
    "nearest_neighbours",
    "sample_limits",
    "sqnr_db",
    "time_in_turn",
    "totals",
    "weight_errors",
]
