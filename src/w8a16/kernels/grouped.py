"""The ops `w8a16::grouped_linear` and its adjoint: several weights, each for its own range of rows.

What a mixture of experts computes: the rows are sorted by expert, and offsets say where each one's begin
and end. One call serves all experts; a row gets the bits that `linear` gives to its expert's rows alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from w8a16.kernels.arguments import check_grouped
from w8a16.kernels.dispatch import is_differentiated
from w8a16.kernels.native_ops import try_grouped_linear
from w8a16.kernels.registry import select
from w8a16.kernels.schemas import LIBRARY

_is_compiling = torch.compiler.is_compiling

grouped_linear_op: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], Tensor] = (
    torch.ops.w8a16.grouped_linear.default
)
grouped_linear_input_grad: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = (
    torch.ops.w8a16.grouped_linear_input_grad.default
)
"""`(grad_output [T, N], int8_weights [E, N, K], scales [E, N], offsets [E + 1]) -> [T, K]`."""


def grouped_linear(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor:
    """Apply `y = (x . int8_weights[e]^T) * scales[e] + bias[e]` to the rows of each expert e.

    The law of `linear`: sums in float32 (float64 for float64 input), one rounding at the end.
    Differentiable with respect to input, scales and bias.

    Args:
        input: float16, bfloat16, float32 or float64 `[T, K]`, its rows sorted by expert.
        int8_weights: int8 `[E, N, K]`.
        scales: float `[E, N]`.
        bias: float `[E, N]`, or None.
        offsets: int64 `[E + 1]`, nondecreasing and within 0..T, on the device of the input: rows
            `offsets[e]` to `offsets[e + 1]` belong to expert e.

    Returns:
        `[T, N]` in the dtype of the input (under autocast: in the autocast dtype). Rows before the first
        offset or after the last are zeros.

    Raises:
        ShapeError: a shape does not fit the weights.
        DtypeError: a dtype or device that cannot be used.
        IndexRangeError: offsets that decrease, or are not within 0..T.

    Example:
        >>> codes = torch.tensor([[[1, 1]], [[2, 2]]], dtype=torch.int8)
        >>> rows, offsets = torch.ones(3, 2), torch.tensor([0, 2, 3])
        >>> grouped_linear(rows, codes, torch.ones(2, 1), None, offsets).flatten()
        tensor([2., 2., 4.])
    """
    if not _is_compiling() and not is_differentiated(input, scales, bias):
        result = try_grouped_linear(input, int8_weights, scales, bias, offsets)
        if result is not None:
            return result
    return grouped_linear_op(input, int8_weights, scales, bias, offsets)


def _compute(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor:
    result = try_grouped_linear(input, int8_weights, scales, bias, offsets)
    if result is not None:
        return result
    check_grouped(input, "input", "K", int8_weights, scales, bias, offsets)
    return select(input.device.type).grouped_linear(input, int8_weights, scales, bias, offsets)


def _compute_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    check_grouped(grad_output, "grad_output", "N", int8_weights, scales, None, offsets)
    backend = select(grad_output.device.type)
    return backend.grouped_linear_input_grad(grad_output, int8_weights, scales, offsets)


def _fake(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, offsets: Tensor
) -> Tensor:
    check_grouped(input, "input", "K", int8_weights, scales, bias, offsets)
    return input.new_empty((input.shape[0], int8_weights.shape[1]))


def _fake_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    check_grouped(grad_output, "grad_output", "N", int8_weights, scales, None, offsets)
    return grad_output.new_empty((grad_output.shape[0], int8_weights.shape[2]))


LIBRARY.impl("grouped_linear", _compute, "CompositeExplicitAutograd")
LIBRARY.impl("grouped_linear_input_grad", _compute_input_grad, "CompositeExplicitAutograd")
torch.library.register_fake("w8a16::grouped_linear", _fake, lib=LIBRARY)
torch.library.register_fake("w8a16::grouped_linear_input_grad", _fake_input_grad, lib=LIBRARY)
