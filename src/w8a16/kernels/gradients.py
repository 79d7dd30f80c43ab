"""The gradients of `linear` and its adjoint, of any order, and their behaviour under `torch.func`.

The two ops are linear in their first argument and adjoint to each other, so the gradient of each is
the other one. int8 codes have no gradient; scales and bias have.

These are own kernels at the Autograd key instead of `torch.library.register_autograd`: the functions
that the latter generates refuse torch.func transforms (grad, jacrev, ...), and cost more per call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.arguments import check_arguments
from w8a16.kernels.dispatch import autograd_kernel, below_autograd
from w8a16.kernels.native_ops import try_linear
from w8a16.kernels.op import linear, linear_input_grad
from w8a16.kernels.schemas import LIBRARY
from w8a16.kernels.transforms import without_autocast


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, keyset: Any, input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None
    ) -> Tensor:
        # The input is needed for the gradient of the scales only, which a frozen layer never asks for.
        ctx.save_for_backward(input if ctx.needs_input_grad[3] else None, int8_weights, scales)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return below_autograd(linear, keyset, input, int8_weights, scales, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, int8_weights, scales = ctx.saved_tensors
        _, needs_input, _, needs_scales, needs_bias = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                linear_input_grad(grad, int8_weights, scales) if needs_input else None,
                None,
                _scales_grad(input, grad, int8_weights, scales) if needs_scales else None,
                sum_rows(grad, ctx.bias_dtype) if needs_bias else None,
            )


class _LinearInputGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keyset: Any, grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(grad_output if ctx.needs_input_grad[3] else None, int8_weights, scales)
        return below_autograd(linear_input_grad, keyset, grad_output, int8_weights, scales)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, int8_weights, scales = ctx.saved_tensors
        _, needs_grad_output, _, needs_scales = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                linear(grad, int8_weights, scales, None) if needs_grad_output else None,
                None,
                _scales_grad(grad, grad_output, int8_weights, scales) if needs_scales else None,
            )


def _scales_grad(input: Tensor, grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    """`sum over rows of dy * (x . q^T)`: both ops are bilinear in the scales, so it serves both."""
    wide = input if input.dtype == torch.float64 else input.float()
    unscaled = linear(wide, int8_weights, torch.ones_like(scales), None)
    return sum_rows(grad_output.to(wide.dtype) * unscaled, scales.dtype)


def sum_rows(values: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum over all dimensions but the last, in at least float32."""
    if values.dim() == 1:
        return values.to(dtype)
    rows = list(range(values.dim() - 1))
    return values.sum(rows, dtype=torch.promote_types(dtype, torch.float32)).to(dtype)


def _plain_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    check_arguments(input, "input", "K", int8_weights, scales, bias)
    return reference.linear(input, int8_weights, scales, bias, plain=True)


def _plain_linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    check_arguments(grad_output, "grad_output", "N", int8_weights, scales, None)
    return reference.linear_input_grad(grad_output, int8_weights, scales, plain=True)


LIBRARY.impl(
    "linear", autograd_kernel(linear, _Linear, _plain_linear, try_linear), "Autograd", with_keyset=True
)
LIBRARY.impl(
    "linear_input_grad",
    autograd_kernel(linear_input_grad, _LinearInputGrad, _plain_linear_input_grad),
    "Autograd",
    with_keyset=True,
)
