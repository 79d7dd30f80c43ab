"""The gradients of the refined ops: as in `gradients.py`, with a scale for each group and with outliers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.arguments import check_columns, check_refined
from w8a16.kernels.dispatch import autograd_kernel, below_autograd, unwrapped
from w8a16.kernels.gradients import sum_rows
from w8a16.kernels.op import linear
from w8a16.kernels.refined import refined_linear, refined_linear_input_grad
from w8a16.kernels.schemas import LIBRARY
from w8a16.kernels.transforms import without_autocast


class _RefinedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        input: Tensor,
        int8_weights: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        outlier_columns: Tensor | None,
        outlier_values: Tensor | None,
    ) -> Tensor:
        # The input is needed for gradients that a frozen layer never asks for.
        kept = input if ctx.needs_input_grad[3] or ctx.needs_input_grad[6] else None
        ctx.save_for_backward(kept, int8_weights, scales, outlier_columns, outlier_values)
        ctx.bias_dtype = None if bias is None else bias.dtype
        arguments = (input, int8_weights, scales, bias, outlier_columns, outlier_values)
        return below_autograd(refined_linear, keyset, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, q, scales, columns, values = ctx.saved_tensors
        _, needs_input, _, needs_scales, needs_bias, _, needs_values = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                refined_linear_input_grad(grad, q, scales, columns, values) if needs_input else None,
                None,
                _scales_grad(input, grad, q, scales) if needs_scales else None,
                sum_rows(grad, ctx.bias_dtype) if needs_bias else None,
                None,
                _values_grad(input, grad, columns, values) if needs_values else None,
            )


class _RefinedLinearInputGrad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        grad_output: Tensor,
        int8_weights: Tensor,
        scales: Tensor,
        outlier_columns: Tensor | None,
        outlier_values: Tensor | None,
    ) -> Tensor:
        kept = grad_output if ctx.needs_input_grad[3] or ctx.needs_input_grad[5] else None
        ctx.save_for_backward(kept, int8_weights, scales, outlier_columns, outlier_values)
        arguments = (grad_output, int8_weights, scales, outlier_columns, outlier_values)
        return below_autograd(refined_linear_input_grad, keyset, *arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, q, scales, columns, values = ctx.saved_tensors
        _, needs_grad_output, _, needs_scales, _, needs_values = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                refined_linear(grad, q, scales, None, columns, values) if needs_grad_output else None,
                None,
                _scales_grad(grad, grad_output, q, scales) if needs_scales else None,
                None,
                _values_grad(grad, grad_output, columns, values) if needs_values else None,
            )


def _scales_grad(input: Tensor, grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    """`sum over rows of dy * (x_g . q_g^T)` for each group g: bilinear, so it serves both ops."""
    wide = input if input.dtype == torch.float64 else input.float()
    grouped = int8_weights.dim() == 3
    codes = int8_weights if grouped else int8_weights.unsqueeze(1)
    n, groups, size = codes.shape
    ones = scales.new_ones(n)
    gradients = [
        sum_rows(
            grad_output.to(wide.dtype)
            * linear(wide[..., g * size : (g + 1) * size], codes[:, g].contiguous(), ones, None),
            scales.dtype,
        )
        for g in range(groups)
    ]
    if not grouped:
        return gradients[0]
    return torch.stack(gradients, -1) if groups else torch.zeros_like(scales)


def _values_grad(input: Tensor, grad_output: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """`sum over rows of dy * x[columns]`, an outlier of every row at a time."""
    wide = input if input.dtype == torch.float64 else input.float()
    gradients = [
        sum_rows(grad_output.to(wide.dtype) * wide.index_select(-1, columns[:, r]), values.dtype)
        for r in range(columns.shape[1])
    ]
    return torch.stack(gradients, -1) if gradients else torch.zeros_like(values)


def _plain_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    check_refined(input, "input", "K", int8_weights, scales, bias, outlier_columns, outlier_values)
    _check_plain_columns(outlier_columns, int8_weights)
    return reference.refined_linear(
        input, int8_weights, scales, bias, outlier_columns, outlier_values, plain=True
    )


def _plain_linear_input_grad(
    grad_output: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    check_refined(
        grad_output, "grad_output", "N", int8_weights, scales, None, outlier_columns, outlier_values
    )
    _check_plain_columns(outlier_columns, int8_weights)
    return reference.refined_linear_input_grad(
        grad_output, int8_weights, scales, outlier_columns, outlier_values, plain=True
    )


def _check_plain_columns(outlier_columns: Tensor | None, int8_weights: Tensor) -> None:
    columns = None if outlier_columns is None else unwrapped(outlier_columns)
    if type(columns) is Tensor and columns.device.type == "cpu":
        check_columns(columns, int8_weights.shape[1:].numel())


for _name, _op, _function, _plain in (
    ("refined_linear", refined_linear, _RefinedLinear, _plain_linear),
    (
        "refined_linear_input_grad",
        refined_linear_input_grad,
        _RefinedLinearInputGrad,
        _plain_linear_input_grad,
    ),
):
    LIBRARY.impl(_name, autograd_kernel(_op, _function, _plain), "Autograd", with_keyset=True)
