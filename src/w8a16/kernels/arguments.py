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
    _check_devices({role: values, "weight": int8_weights, "scales": scales, "bias": bias})


def check_grouped(
    values: Tensor,
    role: str,
    width: str,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
) -> None:
    """Check the arguments of either grouped op but for the values of the offsets; `width` as above."""
    _check_int8(int8_weights)
    if int8_weights.dim() != 3:
        raise ShapeError(f"weight: expected [E, N, K] with three dimensions, got {list(int8_weights.shape)}")
    e, n, k = int8_weights.shape
    if values.dtype not in FLOAT_DTYPES:
        raise DtypeError(
            f"{role}: expected float16, bfloat16, float32 or float64, got {values.dtype} "
            f"(weights [{e}, {n}, {k}])"
        )
    expected = k if width == "K" else n
    if values.dim() != 2 or values.shape[1] != expected:
        raise ShapeError(
            f"{role}: expected [T, {expected}] for weights [{e}, {n}, {k}], got {list(values.shape)}"
        )
    for name, vectors in (("scales", scales), ("bias", bias)):
        if vectors is None:
            continue
        if vectors.dtype not in FLOAT_DTYPES:
            raise DtypeError(f"{name}: expected a float dtype, got {vectors.dtype}")
        if vectors.shape != (e, n):
            raise ShapeError(
                f"{name}: expected [{e}, {n}] for weights [{e}, {n}, {k}], got {list(vectors.shape)}"
            )
    if offsets.dtype != torch.int64:
        raise DtypeError(f"offsets: expected int64, got {offsets.dtype}")
    if offsets.shape != (e + 1,):
        raise ShapeError(f"offsets: expected [{e + 1}] for {e} weights, got {list(offsets.shape)}")
    tensors = {role: values, "weight": int8_weights, "scales": scales, "bias": bias, "offsets": offsets}
    _check_devices(tensors)


def checked_offsets(offsets: Tensor, rows: int) -> list[int]:
    """The values of the offsets; an error where they do not cut 0 to `rows` into ranges."""
    bounds: list[int] = offsets.tolist()
    for place, (before, bound) in enumerate(zip([0, *bounds], bounds, strict=False)):
        if not before <= bound <= rows:
            raise IndexRangeError(
                f"offsets: expected 0 to {rows}, nondecreasing, got {bound} at [{place}]"
                + (f" after {before}" if place else "")
            )
    return bounds


def check_refined(
    values: Tensor,
    role: str,
    width: str,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> None:
    """Check the arguments of either refined op but for the values of the columns; `width` as above."""
    _check_int8(int8_weights)
    shape = list(int8_weights.shape)
    if int8_weights.dim() not in (2, 3):
        raise ShapeError(f"weight: expected [N, K] or, in groups, [N, G, S], got {shape}")
    if values.dtype not in FLOAT_DTYPES:
        raise DtypeError(
            f"{role}: expected float16, bfloat16, float32 or float64, got {values.dtype} (weight {shape})"
        )
    expected = int8_weights.shape[1:].numel() if width == "K" else shape[0]
    if values.dim() == 0 or values.shape[-1] != expected:
        raise ShapeError(
            f"{role}: expected a last dimension of {expected} for a weight {shape}, got {list(values.shape)}"
        )
    for name, vector, wanted in (("scales", scales, shape[:-1]), ("bias", bias, shape[:1])):
        if vector is None:
            continue
        if vector.dtype not in FLOAT_DTYPES:
            raise DtypeError(f"{name}: expected a float dtype, got {vector.dtype}")
        if list(vector.shape) != wanted:
            raise ShapeError(f"{name}: expected {wanted} for a weight {shape}, got {list(vector.shape)}")
    _check_outliers(shape, outlier_columns, outlier_values)
    tensors = {role: values, "weight": int8_weights, "scales": scales, "bias": bias}
    _check_devices({**tensors, "outlier_columns": outlier_columns, "outlier_values": outlier_values})


def _check_outliers(shape: list[int], columns: Tensor | None, values: Tensor | None) -> None:
    if columns is None and values is None:
        return
    if columns is None or values is None:
        alone = "outlier_values" if columns is None else "outlier_columns"
        raise ShapeError(f"outlier_columns and outlier_values: expected both or neither, got {alone} alone")
    if columns.dtype != torch.int32:
        raise DtypeError(f"outlier_columns: expected int32, got {columns.dtype}")
    if columns.dim() != 2 or columns.shape[0] != shape[0]:
        raise ShapeError(
            f"outlier_columns: expected [{shape[0]}, R] for a weight {shape}, got {list(columns.shape)}"
        )
    if values.dtype not in FLOAT_DTYPES:
        raise DtypeError(f"outlier_values: expected a float dtype, got {values.dtype}")
    if values.shape != columns.shape:
        raise ShapeError(
            f"outlier_values: expected {list(columns.shape)} as outlier_columns, got {list(values.shape)}"
        )


def check_columns(outlier_columns: Tensor | None, features: int) -> None:
    """Check that every outlier names a column of the weight."""
    if outlier_columns is None or outlier_columns.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(outlier_columns))
    if low < 0 or high >= features:
        raise IndexRangeError(
            f"outlier_columns: expected 0 to {features - 1}, got {low if low < 0 else high}"
            if features
            else f"outlier_columns: expected none for a weight without columns, got {low}"
        )


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
    _check_devices({"indices": indices, "weight": int8_weights, "scales": scales})


def check_dequantize(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> None:
    """Check everything about codes of any shape whose leading dimensions have the scales."""
    _check_int8(int8_weights)
    for role, found in (("dtype", dtype), ("scales", scales.dtype)):
        if found not in FLOAT_DTYPES:
            raise DtypeError(f"{role}: expected a float dtype, got {found}")
    if scales.shape != int8_weights.shape[: scales.dim()]:
        raise ShapeError(
            f"scales: expected the leading dimensions of the codes {list(int8_weights.shape)}, "
            f"got {list(scales.shape)}"
        )
    _check_devices({"weight": int8_weights, "scales": scales})


def check_indices(indices: Tensor, rows: int) -> None:
    """Check that every index names a row of a table."""
    if indices.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(indices))
    if low < 0 or high >= rows:
        raise IndexRangeError(f"indices: expected 0 to {rows - 1}, got {low if low < 0 else high}")


def _check_codes(int8_weights: Tensor) -> None:
    _check_int8(int8_weights)
    if int8_weights.dim() != 2:
        raise ShapeError(f"weight: expected [N, K] with two dimensions, got {list(int8_weights.shape)}")


def _check_int8(int8_weights: Tensor) -> None:
    if int8_weights.dtype != torch.int8:
        raise DtypeError(
            f"weight: expected int8 codes, got {int8_weights.dtype}; quantize the float weight first"
        )


def _check_devices(tensors: dict[str, Tensor | None]) -> None:
    places = {role: tensor.device for role, tensor in tensors.items() if tensor is not None}
    if len(set(places.values())) > 1:
        found = ", ".join(f"{role} on {device}" for role, device in places.items())
        raise DtypeError(f"expected all tensors on one device, got {found}")
