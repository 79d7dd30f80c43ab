"""Rows of a refined table: what an embedding looks up where one scale for a row is too coarse."""

from __future__ import annotations

import torch
from torch import Tensor

from w8a16.core import Outliers, add_outliers
from w8a16.kernels import apply_embedding, dequantize
from w8a16.kernels.arguments import check_indices
from w8a16.layers.layout import Layout


def refined_rows(
    indices: Tensor,
    codes: Tensor,
    scales: Tensor,
    layout: Layout,
    dtype: torch.dtype,
    outliers: Outliers | None,
) -> Tensor:
    """Rows `[..., K]` of a table in groups or with outliers; only the rows in use are widened.

    Raises:
        IndexRangeError: an index that names no row.
    """
    flat = indices.reshape(-1)
    if outliers is not None:
        rows = apply_embedding(flat, codes, scales, dtype)
        taken = Outliers(outliers.columns[flat], outliers.values[flat])
        return add_outliers(rows, taken).reshape(*indices.shape, -1)
    if not torch.compiler.is_compiling():
        check_indices(flat, len(codes))
    return dequantize(codes[flat], scales[flat], dtype).reshape(*indices.shape, layout.group * codes.shape[1])
