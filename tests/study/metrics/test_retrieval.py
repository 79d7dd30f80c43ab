"""Ranks of neighbours and recall, against scikit-learn."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics import neighbour_overlap, recall_at_k, retrieval

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(40, 8, generator=GENERATOR)
B = A + 0.2 * torch.randn(40, 8, generator=GENERATOR)


def nearest(points, queries, k):
    return NearestNeighbors(n_neighbors=k, metric="cosine").fit(points.numpy()).kneighbors(queries.numpy())[1]


@pytest.mark.parametrize("block", [1 << 22, 100])
@pytest.mark.parametrize("k", [1, 5, 39])
def test_overlap(k, block, monkeypatch):
    monkeypatch.setattr(retrieval, "_BLOCK_ELEMENTS", block)
    ours, theirs = (nearest(x, x, k + 1)[:, 1:] for x in (A, B))
    expected = [len({*a} & {*b}) / k for a, b in zip(ours, theirs, strict=True)]
    assert neighbour_overlap(A, B, k).tolist() == pytest.approx(expected)
    assert 0.2 < sum(expected) / 40 < (1 if k < 39 else 1.1)


def test_overlap_with_itself_and_with_other_widths():
    assert neighbour_overlap(A, A * 7, 5).tolist() == [1.0] * 40
    assert neighbour_overlap(A, torch.cat([A, 0 * A], 1), 5).tolist() == [1.0] * 40


@pytest.mark.parametrize("k", [1, 3, 40])
def test_recall(k):
    expected = [float(row in found) for row, found in enumerate(nearest(B, A, k))]
    assert recall_at_k(A, B, k).tolist() == expected
    assert sum(expected) > 5


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match="k: expected 1 to 39 for 40 rows, got 40"):
        neighbour_overlap(A, B, 40)
    with pytest.raises(ShapeError, match=r"a row for each item, got \[40, 8\] and \[39, 8\]"):
        neighbour_overlap(A, B[:39], 3)
    with pytest.raises(ShapeError, match="k: expected 1 to 40 for 40 rows, got 41"):
        recall_at_k(A, B, 41)
    with pytest.raises(UsageError, match="other embeddings: 8 of 320 values are NaN or Inf"):
        neighbour_overlap(A, torch.where(torch.arange(40)[:, None] == 7, torch.nan, B), 3)
