"""Simulated quantizers: float rows in, the values that a quantized weight would stand for out.

Every function here takes a weight's rows `[N, K]` (float16, bfloat16, float32 or float64, finite) and
returns rows of the same shape and dtype. Except for the textbook recipe, all arithmetic is float32
(float64 for float64 weights) and the values are rounded once, at the end, to the weight's dtype: in
float32 that is what an int8 layer computes with, in a half dtype the values carry the rounding of
the dtype on top (the int8 layer multiplies codes and applies the float32 scale to the sum).

Letters: N output channels (rows), K input features (columns), s the scale of a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from w8a16.core import add_outliers, take_outliers
from w8a16.kernels import dequantize, quantize_weight

Quantizer = Callable[[Tensor], Tensor]

_CLIP_FACTORS = tuple(1 - step / 50 for step in range(31))
"""The scales that `clipped` tries, as shares of the unclipped one: 1.00, 0.98, ..., 0.40."""


def per_channel(rows: Tensor) -> Tensor:
    """This library's law: one float32 scale a row, division in float32, codes -127..127."""
    quantized = quantize_weight(rows)
    return dequantize(quantized.int8_weights, quantized.scales, rows.dtype)


def textbook(rows: Tensor) -> Tensor:
    """The recipe most tutorials teach: everything in the weight's own dtype, and no clamp.

        s = amax(|w|) / 127;  q = round(w / s) as int8;  w' = q * s

    In float32 this is nearly the law. In bfloat16 and float16 the scale is rounded to 8 or 11 bits,
    so the quotient of the row's largest weight may be 127.5 or more; it rounds to 128, which the cast
    to int8 wraps to -128: the largest weight of the row changes its sign. The wrap is spelled out
    (through int32), since a cast beyond the range of int8 is left open by C. A row of zeros divides 0
    by 0; its codes are 0, which is what x86 makes of the NaN.
    """
    scales = rows.abs().amax(dim=1, keepdim=True) / 127
    quotient = (rows / scales).round().nan_to_num(nan=0, posinf=0, neginf=0)
    codes = quotient.to(torch.int32).to(torch.int8)
    return codes.to(rows.dtype) * scales


def per_tensor(rows: Tensor) -> Tensor:
    """One scale for the whole weight."""
    return per_channel(rows.reshape(1, -1)).reshape(rows.shape)


def in_groups(size: int) -> Quantizer:
    """One scale for every `size` weights along the row.

    Where K is not a multiple of `size` the last group of a row is shorter. (The format refuses such a
    weight; a simulation can tell what it would have been.)
    """

    def simulate(rows: Tensor) -> Tensor:
        n, k = rows.shape
        whole = k - k % size
        parts = [per_channel(rows[:, :whole].reshape(-1, size)).reshape(n, whole)] if whole else []
        parts += [per_channel(rows[:, whole:])] if whole < k else []
        return torch.cat(parts, dim=1) if parts else rows.clone()

    return simulate


def with_outliers(count: int) -> Quantizer:
    """The `count` largest magnitudes of each row stay as they are; the others get the scale of the rest."""

    def simulate(rows: Tensor) -> Tensor:
        if count >= rows.shape[1]:
            return rows.clone()
        rest, outliers = take_outliers(rows, count)
        return add_outliers(per_channel(rest), outliers)

    return simulate


def range_128(rows: Tensor) -> Tensor:
    """All 256 codes, -128..127, with s = amax / 127.5: a step finer by 0.4 %, an asymmetric grid."""
    wide = _wide(rows)
    scales = _nonzero(wide.abs().amax(dim=1, keepdim=True) / 127.5)
    return ((wide / scales).round().clamp(-128, 127) * scales).to(rows.dtype)


def with_bits(bits: int) -> Quantizer:
    """Codes of `bits` bits, symmetric: s = amax / L with L = 2**(bits - 1) - 1, codes -L..L."""
    largest = 2 ** (bits - 1) - 1

    def simulate(rows: Tensor) -> Tensor:
        wide = _wide(rows)
        return _on_grid(wide, wide.abs().amax(dim=1, keepdim=True) / largest, largest).to(rows.dtype)

    return simulate


def with_scales_in(dtype: torch.dtype) -> Quantizer:
    """The law with scales rounded to `dtype`; codes are computed against the rounded scale and clamped."""
    limits = torch.finfo(dtype)

    def simulate(rows: Tensor) -> Tensor:
        wide = _wide(rows)
        exact = wide.abs().amax(dim=1, keepdim=True) / 127
        rounded = exact.clamp(max=limits.max).to(dtype).to(wide.dtype)
        return _on_grid(wide, rounded, 127).to(rows.dtype)

    return simulate


def clipped(rows: Tensor) -> Tensor:
    """The scale of each row that makes its squared error least, among 31 from 1.00 to 0.40 of amax / 127."""
    wide = _wide(rows)
    whole = wide.abs().amax(dim=1, keepdim=True) / 127
    best, least = wide, torch.full_like(whole, torch.inf)
    for factor in _CLIP_FACTORS:
        tried = _on_grid(wide, whole * factor, 127)
        error = (tried - wide).square().sum(dim=1, keepdim=True)
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    return best.to(rows.dtype)


def _on_grid(wide: Tensor, scales: Tensor, largest: int) -> Tensor:
    scales = _nonzero(scales)
    return (wide / scales).round().clamp(-largest, largest) * scales


def _nonzero(scales: Tensor) -> Tensor:
    return torch.where(scales == 0, torch.ones_like(scales), scales)


def _wide(rows: Tensor) -> Tensor:
    return rows.to(torch.float64 if rows.dtype == torch.float64 else torch.float32)
