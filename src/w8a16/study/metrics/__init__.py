"""Pure functions that say how far apart two models are; each docstring is the definition."""

from w8a16.study.metrics.interval import paired_interval
from w8a16.study.metrics.metric import Metric
from w8a16.study.metrics.tails import crest_factor, kurtosis
from w8a16.study.metrics.vectors import cosine, nearest_neighbours, sqnr_db
from w8a16.study.metrics.weights import WeightError, weight_error, weight_errors, weight_label

__all__ = [
    "Metric",
    "WeightError",
    "cosine",
    "crest_factor",
    "kurtosis",
    "nearest_neighbours",
    "paired_interval",
    "sqnr_db",
    "weight_error",
    "weight_errors",
    "weight_label",
]
