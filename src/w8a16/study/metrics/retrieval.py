"""Whether embeddings still find the same things: ranks of neighbours, and recall.

R rows (items), D dimensions. Similarities are cosines in float64, a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from w8a16.errors import ShapeError
from w8a16.study.metrics.checks import check_finite, check_pair

_BLOCK_ELEMENTS = 1 << 22


def neighbour_overlap(reference: Tensor, other: Tensor, k: int) -> Tensor:
    """Of each row's k nearest other rows by `reference`, the share that are so by `other`: float64 `[R]`.

    Args:
        reference: `[R, D]`.
        other: the same items by another model, `[R, E]`.
        k: 1 to R - 1.

    Raises:
        ShapeError: not two matrices of one length, or a k that there are no neighbours for.
        UsageError: NaN or Inf.

    Example:
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> neighbour_overlap(points, -points, k=1).tolist()
        [1.0, 1.0, 1.0]
    """
    _check_matrices(reference, other)
    if not 1 <= k < len(reference):
        raise ShapeError(f"k: expected 1 to {len(reference) - 1} for {len(reference)} rows, got {k}")
    nearest = [torch.cat(list(_nearest(each, each, k, leave_out_self=True))) for each in (reference, other)]
    return (nearest[0].unsqueeze(2) == nearest[1].unsqueeze(1)).any(2).double().mean(1)


def recall_at_k(queries: Tensor, targets: Tensor, k: int) -> Tensor:
    """Whether row i of `targets` is among the k nearest to row i of `queries`: 1.0 or 0.0, float64 `[R]`.

    The difference of the means of two models, with `paired_interval` of the differences, is what a
    change of the model does to recall.

    Raises:
        ShapeError: not two matrices of one shape, or a k beyond them.

    Example:
        >>> recall_at_k(torch.eye(3), torch.eye(3).roll(1, 0), k=1).tolist()
        [0.0, 0.0, 0.0]
    """
    _check_matrices(queries, targets)
    check_pair(queries, targets, ("queries", "targets"))
    if not 1 <= k <= len(queries):
        raise ShapeError(f"k: expected 1 to {len(queries)} for {len(queries)} rows, got {k}")
    nearest = torch.cat(list(_nearest(queries, targets, k, leave_out_self=False)))
    wanted = torch.arange(len(queries), device=nearest.device).unsqueeze(1)
    return (nearest == wanted).any(1).double()


def _nearest(queries: Tensor, targets: Tensor, k: int, leave_out_self: bool) -> Iterator[Tensor]:
    """The k most similar targets of each query, blocks of `[r, k]`; of equal ones the first."""
    unit_queries, unit_targets = (
        torch.nn.functional.normalize(x.double(), dim=-1) for x in (queries, targets)
    )
    rows = max(1, _BLOCK_ELEMENTS // len(targets))
    for start in range(0, len(queries), rows):
        similarity = unit_queries[start : start + rows] @ unit_targets.T
        if leave_out_self:
            own = torch.arange(len(similarity), device=similarity.device)
            similarity[own, own + start] = -torch.inf
        yield similarity.argsort(dim=1, descending=True, stable=True)[:, :k]


def _check_matrices(reference: Tensor, other: Tensor) -> None:
    if reference.dim() != 2 or other.dim() != 2 or len(reference) != len(other):
        shapes = f"{list(reference.shape)} and {list(other.shape)}"
        raise ShapeError(f"embeddings: expected two matrices with a row for each item, got {shapes}")
    check_finite("reference embeddings", reference)
    check_finite("other embeddings", other)
