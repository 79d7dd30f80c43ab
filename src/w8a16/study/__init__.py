"""What 8 bits do to a model: measured, with definitions."""

from w8a16.study.metrics import cosine, nearest_neighbours, sqnr_db
from w8a16.study.weights import WeightError, weight_errors

__all__ = ["WeightError", "cosine", "nearest_neighbours", "sqnr_db", "weight_errors"]
