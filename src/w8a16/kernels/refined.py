"""The op `w8a16::refined_linear` and its adjoint: weights held better than by one scale a row.

A weight in groups has one scale for every S columns of a row: codes `[N, G, S]` and scales `[N, G]`. A
weight with outliers keeps R values of each row as floats, in `outlier_values [N, R]` at the columns
`outlier_columns [N, R]`; its codes are those of the rest. The op takes either, or both at once:

    y[n] = round(sum_g s[n, g] (x_g . q[n, g]) + sum_r v[n, r] x[c[n, r]] + b[n])
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from w8a16.kernels.arguments import check_columns, check_refined
from w8a16.kernels.dispatch import is_differentiated
from w8a16.kernels.native_ops import try_refined_linear
from w8a16.kernels.registry import select
from w8a16.kernels.schemas import LIBRARY

_is_compiling = torch.compiler.is_compiling

refined_linear: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None], Tensor] = (
    torch.ops.w8a16.refined_linear.default
)
"""`(input, int8_weights, scales, bias, outlier_columns, outlier_values)`: see `apply_refined_linear`."""
refined_linear_input_grad: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor] = (
    torch.ops.w8a16.refined_linear_input_grad.default
)
"""`(grad_output [..., N], int8_weights, scales, outlier_columns, outlier_values) -> [..., K]`."""


def apply_refined_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None = None,
    outlier_columns: Tensor | None = None,
    outlier_values: Tensor | None = None,
) -> Tensor:
    """Apply a weight in groups, with outliers, or with both; the law of `linear`, one rounding at the end.

    Differentiable with respect to input, scales, bias and outlier values.

    Args:
        input: float16, bfloat16, float32 or float64 `[..., K]`.
        int8_weights: int8 `[N, K]`, or `[N, G, S]` with `K = G * S`.
        scales: float `[N]`, or `[N, G]` for codes in groups.
        bias: float `[N]`, or None.
        outlier_columns: int32 `[N, R]` with values in 0..K-1, or None.
        outlier_values: float `[N, R]`, or None; what is added to the codes' weights at those columns.

    Returns:
        `[..., N]` in the dtype of the input (under autocast: in the autocast dtype).

    Raises:
        ShapeError: a shape does not fit the weight, or one of the two for outliers is missing.
        DtypeError: a dtype or device that cannot be used.
        IndexRangeError: an outlier's column that the weight does not have.

    Example:
        >>> codes = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.int8)
        >>> apply_refined_linear(torch.ones(1, 4), codes, torch.tensor([[1.0, 0.5]]))
        tensor([[6.5000]])
    """
    if not _is_compiling() and not is_differentiated(input, scales, bias, outlier_values):
        result = try_refined_linear(input, int8_weights, scales, bias, outlier_columns, outlier_values)
        if result is not None:
            return result
    return refined_linear(input, int8_weights, scales, bias, outlier_columns, outlier_values)


def _compute(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    result = try_refined_linear(input, int8_weights, scales, bias, outlier_columns, outlier_values)
    if result is not None:
        return result
    check_refined(input, "input", "K", int8_weights, scales, bias, outlier_columns, outlier_values)
    _check_columns_here(outlier_columns, int8_weights)
    backend = select(input.device.type)
    return backend.refined_linear(input, int8_weights, scales, bias, outlier_columns, outlier_values)


def _compute_input_grad(
    grad_output: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    check_refined(
        grad_output, "grad_output", "N", int8_weights, scales, None, outlier_columns, outlier_values
    )
    _check_columns_here(outlier_columns, int8_weights)
    backend = select(grad_output.device.type)
    return backend.refined_linear_input_grad(
        grad_output, int8_weights, scales, outlier_columns, outlier_values
    )


def _check_columns_here(outlier_columns: Tensor | None, int8_weights: Tensor) -> None:
    # Elsewhere the check would wait for the device, and torch's own operations check there.
    if outlier_columns is not None and outlier_columns.device.type == "cpu":
        check_columns(outlier_columns, int8_weights.shape[1:].numel())


def _fake(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    check_refined(input, "input", "K", int8_weights, scales, bias, outlier_columns, outlier_values)
    return input.new_empty((*input.shape[:-1], int8_weights.shape[0]))


def _fake_input_grad(
    grad_output: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
) -> Tensor:
    check_refined(
        grad_output, "grad_output", "N", int8_weights, scales, None, outlier_columns, outlier_values
    )
    return grad_output.new_empty((*grad_output.shape[:-1], int8_weights.shape[1:].numel()))


for _name, _real, _stand_in in (
    ("refined_linear", _compute, _fake),
    ("refined_linear_input_grad", _compute_input_grad, _fake_input_grad),
):
    LIBRARY.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"w8a16::{_name}", _stand_in, lib=LIBRARY)
