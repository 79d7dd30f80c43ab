"""The argument checks of the ops: shared by every backend and by shape inference."""

from __future__ import annotations

import torch
from torch import Tensor

from w8a16.core import FLOAT_DTYPES
from w8a16.errors import DtypeError, IndexRangeError, ShapeError


def check_arguments(
    values: Tensor, role: str, width: str, int8_weights: Tensor, scales: Tensor, bias: Tensor | None
) -> None:
    """Check the arguments of either linear op; `width` is "K" or "N", what the last dimension must be."""
    _check_codes(int8_weights)
    n, k = int8_weights.shape
    if values.dtype not in FLOAT_DTYPES:
        raise DtypeError(
            f"{role}: expected float16, bfloat16, float32 or float64, got {values.dtype} (weight [{n}, {k}])"
        )
    expected = k if width == "K" else n
    if values.dim() == 0 or values.shape[-1] != expected:
        raise ShapeError(
            f"{role}: expected a last dimension of {expected} for a weight [{n}, {k}], got "
            f"{list(values.shape)}"
        )
    for name, vector in (("scales", scales), ("bias", bias)):
        if vector is None:
            continue
        if vector.dtype not in FLOAT_DTYPES:
            raise DtypeError(f"{name}: expected a float dtype, got {vector.dtype}")
        if vector.dim() != 1 or vector.shape[0] != n:
            raise ShapeError(f"{name}: expected [{n}] for a weight [{n}, {k}], got {list(vector.shape)}")
    _check_devices(role, values, int8_weights, scales, bias)


def check_embedding(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> None:
    """Check everything about a lookup but the values of the indices."""
    _check_codes(int8_weights)
    n, k = int8_weights.shape
    if indices.dtype not in (torch.int64, torch.int32):
        raise DtypeError(f"indices: expected int64 or int32, got {indices.dtype} (table [{n}, {k}])")
    if dtype not in FLOAT_DTYPES or scales.dtype not in FLOAT_DTYPES:
        raise DtypeError(
            f"expected float dtypes, got {dtype} for the result and {scales.dtype} for the scales"
        )
    if scales.dim() != 1 or scales.shape[0] != n:
        raise ShapeError(f"scales: expected [{n}] for a table [{n}, {k}], got {list(scales.shape)}")
    _check_devices("indices", indices, int8_weights, scales, None)


def check_indices(indices: Tensor, rows: int) -> None:
    """Check that every index names a row of a table."""
    if indices.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(indices))
    if low < 0 or high >= rows:
        raise IndexRangeError(f"indices: expected 0 to {rows - 1}, got {low if low < 0 else high}")


def _check_codes(int8_weights: Tensor) -> None:
    if int8_weights.dtype != torch.int8:
        raise DtypeError(
            f"weight: expected int8 codes, got {int8_weights.dtype}; quantize the float weight first"
        )
    if int8_weights.dim() != 2:
        raise ShapeError(f"weight: expected [N, K] with two dimensions, got {list(int8_weights.shape)}")


def _check_devices(
    role: str, values: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None
) -> None:
    devices = {t.device for t in (values, int8_weights, scales, bias) if t is not None}
    if len(devices) > 1:
        raise DtypeError(
            f"expected all tensors on one device, got {role} on {values.device}, weight on "
            f"{int8_weights.device}, scales on {scales.device}"
            + (f", bias on {bias.device}" if bias is not None else "")
        )
