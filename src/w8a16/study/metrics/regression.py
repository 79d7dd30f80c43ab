"""How much of what varies a prediction explains."""

from __future__ import annotations

import math

from torch import Tensor

from w8a16.errors import ShapeError
from w8a16.study.metrics.checks import check_pair


def r2(truth: Tensor, prediction: Tensor) -> float:
    """`1 - sum (t - p)^2 / sum (t - mean(t))^2`, the mean over columns; 1 for a perfect prediction.

    A column that does not vary counts 1 where it is predicted exactly and 0 otherwise, as in
    scikit-learn.

    Args:
        truth: `[n]` or `[n, columns]`.
        prediction: the same shape.

    Raises:
        ShapeError: other shapes, or fewer than two examples.
        UsageError: NaN or Inf.

    Example:
        >>> import torch
        >>> r2(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 2.0]))
        0.5
    """
    check_pair(truth, prediction, ("truth", "prediction"))
    if truth.dim() not in (1, 2) or len(truth) < 2 or truth.numel() == 0:
        raise ShapeError(f"R2: expected [n] or [n, columns] with n at least 2, got {list(truth.shape)}")
    t, p = truth.double().reshape(len(truth), -1), prediction.double().reshape(len(truth), -1)
    left = (t - p).square().sum(0).tolist()
    varies = (t - t.mean(0)).square().sum(0).tolist()
    return math.fsum(map(r2_of_column, left, varies)) / len(left)


def r2_of_column(residual: float, variation: float) -> float:
    """R2 from the two sums of squares."""
    if variation == 0:
        return 1.0 if residual == 0 else 0.0
    return 1 - residual / variation
