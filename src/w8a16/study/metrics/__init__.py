"""Pure functions that say how far apart two models are; each docstring is the definition.

weights.py, tails.py     per weight: SQNR, largest error in half-steps, heaviness of tails
vectors.py               per output: SQNR, cosine, largest difference
language.py, retrieval.py, classification.py, sequences.py, images.py, regression.py   by use
interval.py              how sure a mean is
"""

from w8a16.study.metrics.classification import mcnemar
from w8a16.study.metrics.images import psnr, ssim
from w8a16.study.metrics.interval import paired_interval
from w8a16.study.metrics.language import kl_divergence, negative_log_likelihood, top_k_agreement
from w8a16.study.metrics.metric import Metric
from w8a16.study.metrics.regression import r2
from w8a16.study.metrics.retrieval import neighbour_overlap, recall_at_k
from w8a16.study.metrics.sequences import ctc_collapse, edit_distance, error_rate, split_words
from w8a16.study.metrics.tails import crest_factor, kurtosis
from w8a16.study.metrics.vectors import cosine, largest_difference, nearest_neighbours, sqnr_db
from w8a16.study.metrics.weights import WeightError, weight_error, weight_errors, weight_label

__all__ = [
    "Metric",
    "WeightError",
    "cosine",
    "crest_factor",
    "ctc_collapse",
    "edit_distance",
    "error_rate",
    "kl_divergence",
    "kurtosis",
    "largest_difference",
    "mcnemar",
    "nearest_neighbours",
    "negative_log_likelihood",
    "neighbour_overlap",
    "paired_interval",
    "psnr",
    "r2",
    "recall_at_k",
    "split_words",
    "sqnr_db",
    "ssim",
    "top_k_agreement",
    "weight_error",
    "weight_errors",
    "weight_label",
]
