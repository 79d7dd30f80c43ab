"""What layers compute with a refined weight, one that has groups or outliers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.core import Outliers, add_outliers
from w8a16.kernels import apply_embedding, apply_refined_linear, dequantize
from w8a16.kernels.arguments import check_indices
from w8a16.layers.layout import Layout


def refined_linear(layer: Any, input: Tensor) -> Tensor:
    """`[..., K]` to `[..., N]` with the weight and bias of a linear layer."""
    outliers = layer.outliers_of("weight") or ()
    return apply_refined_linear(input, layer.int8_weights, layer.scales, layer.bias, *outliers)


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
