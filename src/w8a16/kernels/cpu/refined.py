"""The kernels for refined weights applied to tensors; arguments and columns are already checked.

Groups of columns that share a scale must be multiples of 16 columns, which a vector of codes of any
instruction set divides; other groups and float64 go to the reference.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.cpu import structures
from w8a16.kernels.cpu.library import native
from w8a16.kernels.cpu.operations import all_known, plain, rows_of, succeeded, unit_columns
from w8a16.kernels.cpu.structures import DTYPES, FloatVector

_GROUP_UNIT = 16


def refined_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    """`linear` for codes `[N, G, S]` with scales `[N, G]`, and for outliers `[N, R]`."""
    if not _has_kernel(int8_weights) or not all_known(input, scales, bias, outlier_values):
        return reference.refined_linear(input, int8_weights, scales, bias, outlier_columns, outlier_values)
    q, scales, _outliers, refinement = _prepared(int8_weights, scales, outlier_columns, outlier_values)
    n, k = q.shape
    x, bias = rows_of(input), None if bias is None else plain(bias)
    y = torch.empty((*input.shape[:-1], n), dtype=input.dtype, device="cpu")
    every = structures.Linear(
        *(x.data_ptr(), x.stride(0), q.data_ptr(), q.stride(0), FloatVector.of(scales), FloatVector.of(bias)),
        *(y.data_ptr(), n, x.shape[0], k, n, DTYPES[x.dtype], False),
    )
    problem = structures.RefinedLinear(every, *refinement)
    succeeded(native().w8a16_refined_linear(ctypes.byref(problem)), input)
    return y


def refined_linear_input_grad(
    grad_output: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    """The adjoint of `refined_linear`: `[..., N]` to `[..., K]` in the gradient's dtype."""
    if not _has_kernel(int8_weights) or not all_known(grad_output, scales, outlier_values):
        return reference.refined_linear_input_grad(
            grad_output, int8_weights, scales, outlier_columns, outlier_values
        )
    q, scales, _outliers, refinement = _prepared(int8_weights, scales, outlier_columns, outlier_values)
    n, k = q.shape
    dy = rows_of(grad_output)
    dx = torch.empty((*grad_output.shape[:-1], k), dtype=grad_output.dtype, device="cpu")
    every = structures.LinearInputGrad(
        *(dy.data_ptr(), dy.stride(0), q.data_ptr(), q.stride(0), FloatVector.of(scales)),
        *(dx.data_ptr(), k, dy.shape[0], k, n, DTYPES[dy.dtype]),
    )
    problem = structures.RefinedLinearInputGrad(every, *refinement)
    succeeded(native().w8a16_refined_linear_input_grad(ctypes.byref(problem)), grad_output)
    return dx


def _has_kernel(int8_weights: Tensor) -> bool:
    if int8_weights.dim() == 2:
        return True
    groups, size = int8_weights.shape[1:]
    return groups > 0 and size > 0 and (groups == 1 or size % _GROUP_UNIT == 0)


def _prepared(
    int8_weights: Tensor, scales: Tensor, outlier_columns: Tensor | None, outlier_values: Tensor | None
) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Any, ...]]:
    """Codes as rows, float32 scales, the outliers, and the fields that describe them to the kernels.

    The caller holds the outliers until the kernel is done: the fields are addresses within them.
    """
    groups, size = (1, int8_weights.shape[1]) if int8_weights.dim() == 2 else int8_weights.shape[1:]
    codes = unit_columns(int8_weights.flatten(1))
    outliers: tuple[Tensor, ...] = ()
    addresses: tuple[int | None, ...] = (None, None, 0)
    if outlier_columns is not None and outlier_values is not None:
        outliers = (plain(outlier_columns), plain(outlier_values.float()))
        addresses = (*(tensor.data_ptr() for tensor in outliers), outlier_columns.shape[1])
    return codes, plain(scales.float()), outliers, (groups, max(size, 1), *addresses, 0)
