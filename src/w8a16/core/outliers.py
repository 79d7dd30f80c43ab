"""Outliers: the few largest weights of a row, kept as they are, so that the others get a finer scale.

One weight twenty times larger than the rest makes the step of its row twenty times larger. Taken out of
the row, it costs eight bytes (its column and its value), and the row is as exact as if it had none.

Letters: N output channels (rows), K input features (columns), R outliers of each row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from w8a16.errors import ShapeError, WeightValueError


class Outliers(NamedTuple):
    """Weights that are kept as floats beside the codes, which are 0 in their places."""

    columns: Tensor
    """int32 `[N, R]`, ascending in each row, no column twice."""
    values: Tensor
    """float32 `[N, R]`: the weights themselves, exact for float32 and narrower ones."""


def take_outliers(weights: Tensor, count: int) -> tuple[Tensor, Outliers]:
    """Split a weight into the `count` largest magnitudes of each row, and the rest.

    Where magnitudes are equal the first column is taken, so the result is the same everywhere.

    Args:
        weights: float `[N, K]`, finite.
        count: R, at least 1 and fewer than K.

    Returns:
        A copy of `weights` with 0 in place of the outliers, and the outliers.

    Raises:
        ShapeError: rows with no more than `count` elements.
        WeightValueError: a float64 outlier beyond float32.

    Source: the split of few large weights from many small ones is that of SqueezeLLM (Kim et al. 2023,
    arXiv:2306.07629) and SpQR (Dettmers et al. 2023, arXiv:2306.03078), with a fixed number for each row.

    Example:
        >>> rest, outliers = take_outliers(torch.tensor([[0.5, -9.0, 0.25, 8.0]]), 1)
        >>> rest.tolist(), outliers.columns.tolist(), outliers.values.tolist()
        ([[0.5, 0.0, 0.25, 8.0]], [[1]], [[-9.0]])
    """
    n, k = weights.shape
    if not 1 <= count < k:
        raise ShapeError(f"outliers: expected 1 to {k - 1} for rows of {k} elements, got {count}")
    weights = weights.detach()
    if weights.is_meta or n == 0:
        columns = torch.empty((n, count), dtype=torch.int32, device=weights.device)
        values = torch.empty((n, count), dtype=torch.float32, device=weights.device)
        return weights.clone(), Outliers(columns, values)
    magnitudes = weights.abs()
    smallest = magnitudes.topk(count, dim=1).values[:, -1:]
    # topk takes any of several equal ones; which of them is decided here.
    larger, equal = magnitudes > smallest, magnitudes == smallest
    missing = count - larger.sum(1, keepdim=True)
    chosen = larger | (equal & (equal.cumsum(1) <= missing))
    taken = weights[chosen].view(n, count)
    values = taken.float()
    if not bool(torch.isfinite(values).all()):
        worst = float(taken.abs().max())
        raise WeightValueError(f"outliers: expected values within float32 (3.4e38), got {worst:.3g}")
    columns = chosen.nonzero()[:, 1].view(n, count).to(torch.int32)
    return weights.masked_fill(chosen, 0), Outliers(columns, values)


def add_outliers(weights: Tensor, outliers: Outliers) -> Tensor:
    """Put the outliers into the dequantized weight `[N, K]`, in place, rounded to its dtype.

    Example:
        >>> outliers = Outliers(torch.tensor([[1]], dtype=torch.int32), torch.tensor([[-9.0]]))
        >>> add_outliers(torch.tensor([[0.5, 0.0]]), outliers).tolist()
        [[0.5, -9.0]]
    """
    return weights.scatter_(1, outliers.columns.long(), outliers.values.to(weights.dtype))
