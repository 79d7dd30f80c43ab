"""The op `w8a16::embedding`: rows of a table of codes, dequantized. Only those rows are widened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.arguments import check_embedding, check_indices
from w8a16.kernels.dispatch import below_autograd, is_differentiated, is_transformed, unwrapped
from w8a16.kernels.native_ops import try_embedding
from w8a16.kernels.registry import select
from w8a16.kernels.schemas import LIBRARY

_is_compiling = torch.compiler.is_compiling

embedding: Callable[[Tensor, Tensor, Tensor, torch.dtype], Tensor] = torch.ops.w8a16.embedding.default
"""`(indices [...], int8_weights [N, K], scales [N], dtype) -> [..., K]`: rows of the table, dequantized.

Codes and indices have no gradient; where the scales ask for one, plain torch operations run.
"""


def apply_embedding(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """`torch.ops.w8a16.embedding`, the short way where there is one.

    Args:
        indices: int64 or int32, of any shape `[...]`.
        int8_weights: int8 `[N, K]`.
        scales: float `[N]`.
        dtype: the dtype of the result.

    Returns:
        `[..., K]`.

    Raises:
        IndexRangeError: an index names no row (also an `IndexError`).
        ShapeError: the scales do not fit the table.
        DtypeError: a dtype or device that cannot be used.

    Example:
        >>> table = torch.tensor([[1, 2], [-3, 4]], dtype=torch.int8)
        >>> apply_embedding(torch.tensor([1, 0]), table, torch.tensor([1.0, 0.5]), torch.float32)
        tensor([[-1.5000,  2.0000],
                [ 1.0000,  2.0000]])
    """
    if not _is_compiling() and not is_differentiated(scales):
        result = try_embedding(indices, int8_weights, scales, dtype)
        if result is not None:
            return result
    return embedding(indices, int8_weights, scales, dtype)


def _plain(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_embedding(indices, int8_weights, scales, dtype)
    values = unwrapped(indices)
    if type(values) is Tensor and not values.is_meta:  # torch itself would take -1 for the last row
        check_indices(values, int8_weights.shape[0])
    return reference.embedding(indices, int8_weights, scales, dtype)


def _autograd(
    keyset: Any, indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype
) -> Tensor:
    if is_transformed() or is_differentiated(scales):
        return _plain(indices, int8_weights, scales, dtype)
    return below_autograd(embedding, keyset, indices, int8_weights, scales, dtype)


def _compute(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_embedding(indices, int8_weights, scales, dtype)
    check_indices(indices, int8_weights.shape[0])
    return select(indices.device.type).embedding(indices, int8_weights, scales, dtype)


def _fake(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_embedding(indices, int8_weights, scales, dtype)
    return scales.new_empty((*indices.shape, int8_weights.shape[1]), dtype=dtype)


LIBRARY.impl("embedding", _compute, "CompositeExplicitAutograd")
LIBRARY.impl("embedding", _autograd, "Autograd", with_keyset=True)
torch.library.register_fake("w8a16::embedding", _fake, lib=LIBRARY)
