"""The bounds that the weights and every kernel are held to. Derivations: docs/numerics.md.

All of them are evaluated in float64. Letters: M activation rows, K input features, N output channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF_STEP_SLACK = 2.0**-15
"""Allowed excess over half a step: two float32 roundings of numbers up to 127 steps, with room."""

_UNIT_ROUNDOFF = {
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}
_SMALLEST_SUBNORMAL = {
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-133,
    torch.float32: 2.0**-149,
    torch.float64: 2.0**-1074,
}


def half_step_bound(scales: Tensor) -> Tensor:
    """The largest allowed `|w - q * s|` per row: `s / 2 * (1 + 2**-15)`, float64 `[N]`."""
    return scales.double() / 2 * (1 + HALF_STEP_SLACK)


def error_in_half_steps(weights: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    """`|w - q * s| / (s / 2)` for every element, float64 `[N, K]`; the law allows up to `1 + 2**-15`."""
    scales = scales.double().unsqueeze(1)
    return (weights.detach().double() - int8_weights.double() * scales).abs() / (scales / 2)


def output_error_bound(input: Tensor, scales: Tensor) -> Tensor:
    """Hard bound of the output error against the float weights in exact arithmetic.

    `|y - y_float| <= s_n / 2 * (1 + 2**-15) * ||x||_1`, float64 `[..., N]` for an input `[..., K]`.
    """
    return input.double().abs().sum(-1, keepdim=True) * half_step_bound(scales)


def output_tolerance(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None = None,
    *,
    weight_roundoff: float = 0.0,
) -> Tensor:
    """Largest error a float32-accumulating kernel may have against the exact `x q^T * s + b`.

    With `A = s * (|x| . |q|)`, `n = K + 2`, `g = n u / (1 - n u)` for the accumulator's unit
    roundoff u, and the output's `u_out`:
    `g (A + |b|) + u_out (1 + g) |y| + u_out g (A + |b|) + half the smallest subnormal`.

    Args:
        input: `[..., K]`; its dtype is the output's. float64 is accumulated in float64.
        int8_weights: int8 `[N, K]`.
        scales: float `[N]`.
        bias: float `[N]` or None.
        weight_roundoff: extra relative error of each weight, for comparing with a float layer whose
            weight is the rounded product `q * s` (2**-24 for float32).

    Returns:
        float64 `[..., N]`.

    Source: N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1.
    """
    x, q, s = input.double(), int8_weights.double(), scales.double()
    magnitude = (x.abs() @ q.abs().T) * s
    exact = (x @ q.T) * s
    if bias is not None:
        magnitude = magnitude + bias.double().abs()
        exact = exact + bias.double()
    accumulator = torch.float64 if input.dtype == torch.float64 else torch.float32
    terms = (int8_weights.shape[1] + 2) * _UNIT_ROUNDOFF[accumulator]
    g = terms / (1 - terms) + weight_roundoff
    u = _UNIT_ROUNDOFF[input.dtype]
    return (
        g * magnitude + u * (1 + g) * exact.abs() + u * g * magnitude + _SMALLEST_SUBNORMAL[input.dtype] / 2
    )
