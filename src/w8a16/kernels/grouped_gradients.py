"""The gradients of the grouped ops: as in `gradients.py`, with one weight for each range of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.errors import UsageError
from w8a16.kernels import reference
from w8a16.kernels.arguments import check_grouped
from w8a16.kernels.dispatch import autograd_kernel, below_autograd, is_batched, unwrapped
from w8a16.kernels.grouped import grouped_linear_input_grad, grouped_linear_op
from w8a16.kernels.schemas import LIBRARY
from w8a16.kernels.transforms import without_autocast


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keyset: Any,
        input: Tensor,
        int8_weights: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        offsets: Tensor,
    ) -> Tensor:
        # The input is needed for the gradient of the scales only, which a frozen layer never asks for.
        ctx.save_for_backward(input if ctx.needs_input_grad[3] else None, int8_weights, scales, offsets)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return below_autograd(grouped_linear_op, keyset, input, int8_weights, scales, bias, offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, int8_weights, scales, offsets = ctx.saved_tensors
        _, needs_input, _, needs_scales, needs_bias, _ = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                grouped_linear_input_grad(grad, int8_weights, scales, offsets) if needs_input else None,
                None,
                _scales_grad(input, grad, int8_weights, scales, offsets) if needs_scales else None,
                _sum_groups(grad, ctx.bias_dtype, offsets) if needs_bias else None,
                None,
            )


class _GroupedLinearInputGrad(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, keyset: Any, grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor
    ) -> Tensor:
        kept = grad_output if ctx.needs_input_grad[3] else None
        ctx.save_for_backward(kept, int8_weights, scales, offsets)
        return below_autograd(grouped_linear_input_grad, keyset, grad_output, int8_weights, scales, offsets)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_output, int8_weights, scales, offsets = ctx.saved_tensors
        _, needs_grad_output, _, needs_scales, _ = ctx.needs_input_grad
        with without_autocast():
            return (
                None,
                grouped_linear_op(grad, int8_weights, scales, None, offsets) if needs_grad_output else None,
                None,
                _scales_grad(grad, grad_output, int8_weights, scales, offsets) if needs_scales else None,
                None,
            )


def _scales_grad(
    input: Tensor, grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor
) -> Tensor:
    wide = input if input.dtype == torch.float64 else input.float()
    unscaled = grouped_linear_op(wide, int8_weights, torch.ones_like(scales), None, offsets)
    return _sum_groups(grad_output.to(wide.dtype) * unscaled, scales.dtype, offsets)


def _sum_groups(values: Tensor, dtype: torch.dtype, offsets: Tensor) -> Tensor:
    """The sum of each expert's rows: `[T, N]` to `[E, N]`."""
    rows = torch.arange(values.shape[0], device=values.device)
    # How many offsets a row has reached: 0 before the first expert, E + 1 after the last.
    group = torch.bucketize(rows, offsets, right=True)
    wide = values.to(torch.promote_types(dtype, torch.float32))
    sums = wide.new_zeros((offsets.shape[0] + 1, values.shape[1])).index_add(0, group, wide)
    return sums[1:-1].to(dtype)


def _plain_linear(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor:
    check_grouped(input, "input", "K", int8_weights, scales, bias, offsets)
    return reference.grouped_linear(input, int8_weights, scales, bias, _same_for_all(offsets), plain=True)


def _plain_linear_input_grad(
    grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor
) -> Tensor:
    check_grouped(grad_output, "grad_output", "N", int8_weights, scales, None, offsets)
    return reference.grouped_linear_input_grad(
        grad_output, int8_weights, scales, _same_for_all(offsets), plain=True
    )


def _same_for_all(offsets: Tensor) -> Tensor:
    if is_batched(offsets):
        raise UsageError(
            "offsets: expected the same offsets for all samples of a vmap whose gradients are asked for, got "
            "batched ones; loop over the samples instead"
        )
    return unwrapped(offsets)


LIBRARY.impl(
    "grouped_linear",
    autograd_kernel(grouped_linear_op, _GroupedLinear, _plain_linear),
    "Autograd",
    with_keyset=True,
)
LIBRARY.impl(
    "grouped_linear_input_grad",
    autograd_kernel(grouped_linear_input_grad, _GroupedLinearInputGrad, _plain_linear_input_grad),
    "Autograd",
    with_keyset=True,
)
