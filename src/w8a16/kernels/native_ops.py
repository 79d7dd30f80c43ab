"""The ops `w8a16::..._native`: the CPU kernels with nothing of Python between torch and C++.

Their kernels are registered from C++ and answer None for everything that they do not handle: another
device or dtype, a layout without a constant distance between rows, wrong shapes or values, tracing,
torch.func, dispatch modes, another `W8A16_BACKEND`, and autocast where that would cast. The complete op
(the same name without `_native`) then computes the result or explains what is wrong, and it is the one
that graphs record.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import cpu, schemas
from w8a16.kernels.cpu.structures import DTYPES

_linear: Any = None
_grouped_linear: Any = None
_refined_linear: Any = None
_embedding: Any = None
_dequantize: Any = None
_are_known = False


def try_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor | None:
    """`w8a16::linear` without gradient, or None where the native op does not apply."""
    if not _are_known:
        _find_ops()
    if _linear is None:
        return None
    result: Tensor | None = _linear(input, int8_weights, scales, bias)
    return result


def try_grouped_linear(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor | None:
    """`w8a16::grouped_linear` without gradient, or None where the native op does not apply."""
    if not _are_known:
        _find_ops()
    if _grouped_linear is None:
        return None
    result: Tensor | None = _grouped_linear(input, int8_weights, scales, bias, offsets)
    return result


def try_refined_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor | None:
    """`w8a16::refined_linear` without gradient, or None where the native op does not apply."""
    if not _are_known:
        _find_ops()
    if _refined_linear is None:
        return None
    result: Tensor | None = _refined_linear(
        input, int8_weights, scales, bias, outlier_columns, outlier_values
    )
    return result


def try_embedding(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`w8a16::embedding`, or None where the native op does not apply."""
    if not _are_known:
        _find_ops()
    number = DTYPES.get(dtype)
    if _embedding is None or number is None:
        return None
    result: Tensor | None = _embedding(indices, int8_weights, scales, number)
    return result


def try_dequantize(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor | None:
    """`w8a16::dequantize` without gradient, or None where the native op does not apply."""
    if not _are_known:
        _find_ops()
    number = DTYPES.get(dtype)
    if _dequantize is None or number is None:
        return None
    result: Tensor | None = _dequantize(int8_weights, scales, number)
    return result


def _find_ops() -> None:
    global _linear, _grouped_linear, _refined_linear, _embedding, _dequantize, _are_known
    assert schemas.LIBRARY is not None  # the ops must be defined before their kernels are
    if cpu.problem() is None:
        cpu.chosen_variant()  # a wrong W8A16_CPU_ISA is an error before the first result
        if cpu.register_ops():
            _linear = torch.ops.w8a16.linear_native.default
            _grouped_linear = torch.ops.w8a16.grouped_linear_native.default
            _refined_linear = torch.ops.w8a16.refined_linear_native.default
            _embedding = torch.ops.w8a16.embedding_native.default
            _dequantize = torch.ops.w8a16.dequantize_native.default
    _are_known = True
