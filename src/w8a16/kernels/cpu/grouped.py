"""The grouped kernels applied to tensors; arguments are checked but for the values of the offsets."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.arguments import checked_offsets
from w8a16.kernels.cpu import structures
from w8a16.kernels.cpu.library import native
from w8a16.kernels.cpu.operations import all_known, plain, rows_of, succeeded, unit_columns
from w8a16.kernels.cpu.structures import DTYPES, FloatVector


def grouped_linear(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor:
    """`linear` with weight e of `[E, N, K]` for rows `offsets[e]` to `offsets[e + 1]`; else zeros."""
    if not all_known(input, scales, bias):
        return reference.grouped_linear(input, int8_weights, scales, bias, offsets)
    checked_offsets(offsets, input.shape[0])
    experts, n, k = int8_weights.shape
    x, q, scales, bias, bounds = (
        rows_of(input),
        unit_columns(int8_weights),
        plain(scales),
        None if bias is None else plain(bias),
        offsets.contiguous(),
    )
    y = torch.empty((x.shape[0], n), dtype=x.dtype, device="cpu")
    every = structures.Linear(
        *(x.data_ptr(), x.stride(0), q.data_ptr(), q.stride(1), FloatVector.of(scales), FloatVector.of(bias)),
        *(y.data_ptr(), n, x.shape[0], k, n, DTYPES[x.dtype], False),
    )
    problem = structures.GroupedLinear(every, bounds.data_ptr(), experts, q.stride(0))
    succeeded(native().w8a16_grouped_linear(ctypes.byref(problem)), input)
    return y


def grouped_linear_input_grad(
    grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor
) -> Tensor:
    """`linear_input_grad` with weight e for rows `offsets[e]` to `offsets[e + 1]`; else zeros."""
    if not all_known(grad_output, scales):
        return reference.grouped_linear_input_grad(grad_output, int8_weights, scales, offsets)
    checked_offsets(offsets, grad_output.shape[0])
    experts, n, k = int8_weights.shape
    dy, q, scales, bounds = (
        rows_of(grad_output),
        unit_columns(int8_weights),
        plain(scales),
        offsets.contiguous(),
    )
    dx = torch.empty((dy.shape[0], k), dtype=dy.dtype, device="cpu")
    every = structures.LinearInputGrad(
        *(dy.data_ptr(), dy.stride(0), q.data_ptr(), q.stride(1), FloatVector.of(scales)),
        *(dx.data_ptr(), k, dy.shape[0], k, n, DTYPES[dy.dtype]),
    )
    problem = structures.GroupedLinearInputGrad(every, bounds.data_ptr(), experts, q.stride(0))
    succeeded(native().w8a16_grouped_linear_input_grad(ctypes.byref(problem)), grad_output)
    return dx
