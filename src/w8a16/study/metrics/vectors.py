"""Pure functions that compare two tensors; each docstring is the definition."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from w8a16.errors import ShapeError
from w8a16.study.metrics.checks import check_finite, check_pair


def cosine(reference: Tensor, other: Tensor) -> Tensor:
    """Cosine of the angle between corresponding rows: `a.b / (|a| |b|)`, `[...]`; 0 for zeros.

    Raises:
        ShapeError: the shapes differ.
        UsageError: NaN or Inf.

    Example:
        >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([0.7071], dtype=torch.float64)
    """
    check_pair(reference, other)
    tiny = torch.finfo(torch.float64).tiny  # the default eps would swallow norms below 1e-8
    return torch.nn.functional.cosine_similarity(reference.double(), other.double(), dim=-1, eps=tiny)


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    """Signal to quantization noise ratio, `10 log10(sum r^2 / sum (r - o)^2)`, in decibels.

    Infinite where the two are equal.

    Raises:
        ShapeError: the shapes differ.
        UsageError: NaN or Inf.

    Example:
        >>> sqnr_db(torch.tensor([10.0, 0.0]), torch.tensor([10.0, 1.0]))
        20.0
    """
    check_pair(reference, other)
    signal = float(reference.double().square().sum())
    noise = float((reference.double() - other.double()).square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def largest_difference(reference: Tensor, other: Tensor) -> float:
    """`max |r - o|`; 0 for empty tensors.

    Raises:
        ShapeError: the shapes differ.
        UsageError: NaN or Inf.

    Example:
        >>> largest_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0]))
        3.0
    """
    check_pair(reference, other)
    difference = (reference.double() - other.double()).abs()
    return float(difference.max()) if difference.numel() else 0.0


def nearest_neighbours(embeddings: Tensor) -> Tensor:
    """For each row, the other rows from the most to the least similar by cosine: int64 `[R, R - 1]`.

    Example:
        >>> nearest_neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])).tolist()
        [[1, 2], [0, 2], [1, 0]]
    """
    if embeddings.dim() != 2:
        raise ShapeError(
            f"embeddings: expected a matrix with a row for each item, got {list(embeddings.shape)}"
        )
    check_finite("embeddings", embeddings)
    unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-math.inf)  # a row is not its own neighbour
    return similarity.argsort(dim=-1, descending=True, stable=True)[:, :-1]
