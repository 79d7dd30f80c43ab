"""The law of the weights: one float32 scale per output channel, symmetric int8 codes.

    s = amax(|w|) / 127          per row of [N, K], in float32 (float64 for float64 weights)
    q = clamp(round_half_even(w / s), -127, 127)

Why the division is never done in bfloat16 or float16. The recipe most tutorials teach divides the
half-precision weight by a half-precision scale. The row's largest weight should become 127, but the
rounded scale makes the quotient 127.5 or more, which rounds to 128 and wraps to -128 on the cast:
the *largest* weight of the row changes its sign. In a default `nn.Linear(2048, n)` cast to bfloat16
that happens in 95 % of the rows. In float32 the quotient of amax and amax / 127 is within a few
units of 2**-24 of 127, so it rounds to 127; the clamp before the cast is a guard that never acts.

Letters: N output channels (rows), K input features (columns).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from w8a16.errors import DtypeError, ShapeError, WeightValueError

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The dtypes that weights and activations may have."""

SMALLEST_SCALE = 2.0**-125
"""Rows with a smaller scale are stored as zero rows (scale 1, codes 0).

Twice the smallest normal float32: below it a subnormal weight could still be worth a code, so the
codes would depend on whether the processor flushes subnormals to zero.
"""

_BLOCK_ELEMENTS = 1 << 21  # float32 temporaries of about 8 MiB, whatever the size of the weight


class QuantizedWeight(NamedTuple):
    """What `quantize_weight` returns."""

    int8_weights: Tensor
    """int8 `[N, K]`, codes in -127..127."""
    scales: Tensor
    """float32 `[N]`, finite and positive."""
    underflow_rows: int
    """Rows that are not all zero, yet too small for a float32 scale, and so stored as zeros."""


def quantize_weight(weights: Tensor) -> QuantizedWeight:
    """Quantize a weight to int8 codes with one scale per output channel (row).

    Every element obeys `|w - q * s| <= s / 2 * (1 + 2**-15)`; an all-zero row gets scale 1.

    Args:
        weights: `[N, K]`, float16, bfloat16, float32 or float64, on any device; the meta device
            gives meta results. Read in blocks of rows, so the temporaries stay small.

    Raises:
        ShapeError: `weights` is not two-dimensional.
        DtypeError: not a dense tensor of one of the four dtypes.
        WeightValueError: NaN or Inf (with the count and the first position), or a float64 row whose
            scale exceeds float32.

    Source: symmetric "absmax" per-channel quantization, e.g. Jacob et al. 2018 (arXiv:1712.05877),
    restricted to -127..127 so that the grid is symmetric.

    Example:
        >>> q, s, _ = quantize_weight(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
        >>> q.tolist(), s.tolist()
        ([[64, -127, 32], [0, 0, 0]], [0.015748031437397003, 1.0])
    """
    _check_weights(weights)
    n, k = weights.shape
    # Tensors made in inference mode could never be saved for a backward pass (adapters train through us).
    with torch.inference_mode(False), torch.no_grad():
        weights = weights.detach()
        codes = torch.empty((n, k), dtype=torch.int8, device=weights.device)
        scales = torch.ones(n, dtype=torch.float32, device=weights.device)
        if weights.is_meta or codes.numel() == 0:
            return QuantizedWeight(codes, scales, 0)
        underflow = 0
        rows = max(1, _BLOCK_ELEMENTS // k)
        for start in range(0, n, rows):
            block = slice(start, start + rows)
            underflow += _quantize_rows(weights[block], codes[block], scales[block], weights, start)
        return QuantizedWeight(codes, scales, underflow)


def dequantize_weight(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return `q * s`, computed in float32 (float64 for float64) and rounded once to `dtype`.

    Args:
        int8_weights: int8 `[N, K]`.
        scales: float `[N]`.
        dtype: dtype of the result.

    Returns:
        `[N, K]` on the device of `int8_weights`.

    Example:
        >>> dequantize_weight(torch.tensor([[64, -127]], dtype=torch.int8), torch.tensor([0.5])).tolist()
        [[32.0, -63.5]]
    """
    if int8_weights.dtype != torch.int8:
        raise DtypeError(f"expected int8 codes, got {int8_weights.dtype}")
    if scales.shape != int8_weights.shape[:1]:
        raise ShapeError(f"expected scales {list(int8_weights.shape[:1])}, got {list(scales.shape)}")
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return (int8_weights.to(compute) * scales.to(compute).unsqueeze(-1)).to(dtype)


def scale_of_row(largest: Tensor) -> Tensor | None:
    """The float32 scale of a row whose largest magnitude is `largest`, or None for a row of zeros.

    Args:
        largest: finite, without dimensions; float64 for float64 weights, else float32.
    """
    scale = (largest / 127).to(torch.float32)
    return None if scale < SMALLEST_SCALE else scale


def codes_of_row(values: Tensor, scale: Tensor | None) -> Tensor:
    """The int8 codes of some values of a row, with the scale that `scale_of_row` gave for the whole row.

    For rows too long to be held at once; the codes are those that `quantize_weight` gives.
    """
    if scale is None:
        return torch.zeros(values.shape, dtype=torch.int8)
    wide = values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)
    return _rounded(wide, scale).to(torch.int8)


def value_problem(weights: Tensor) -> str | None:
    """Say why a weight's values have no int8 code, or None where they have; reads the tensor once.

    Example:
        >>> value_problem(torch.tensor([[1.0, float("nan")]]))
        '1 of 2 values is NaN or Inf, the first at [0, 1] (nan)'
    """
    if weights.is_meta or weights.numel() == 0:
        return None
    low, high = torch.aminmax(weights.detach())  # NaN propagates through both
    largest = max(abs(low.item()), abs(high.item()))
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        return _describe_nonfinite(weights.detach())
    if not math.isfinite(torch.tensor(largest / 127, dtype=torch.float32).item()):
        return f"the largest value {largest:.3g} needs a scale beyond float32 (largest / 127 > 3.4e38)"
    return None


def _check_weights(weights: Tensor) -> None:
    if not isinstance(weights, Tensor):
        raise DtypeError(f"expected a tensor of float weights, got {type(weights).__name__}")
    if is_lazy(weights):
        raise DtypeError(
            "expected a weight with values, got an uninitialized one: run the lazy module once first"
        )
    if weights.layout != torch.strided or weights.is_nested:
        raise DtypeError(f"expected a dense weight, got {_layout(weights)}")
    if weights.dtype not in FLOAT_DTYPES:
        raise DtypeError(
            f"expected a float16, bfloat16, float32 or float64 weight to quantize, got {weights.dtype}"
        )
    if weights.dim() != 2:
        raise ShapeError(f"expected a weight [N, K] with two dimensions, got {list(weights.shape)}")


def _layout(weights: Tensor) -> str:
    return "a nested tensor" if weights.is_nested else f"layout {weights.layout}; call .to_dense() first"


def _quantize_rows(rows: Tensor, codes: Tensor, scales: Tensor, whole: Tensor, first_row: int) -> int:
    """Fill `codes` and `scales` of one block of rows; return how many rows underflowed."""
    compute = torch.float64 if rows.dtype == torch.float64 else torch.float32
    wide = rows.to(compute)
    low, high = torch.aminmax(wide, dim=1)
    amax = torch.maximum(low.neg(), high)
    stored = (amax / 127).to(torch.float32)
    if not bool(torch.isfinite(stored).all()):
        # The whole tensor is described, not the block: the count and position must be the user's.
        raise WeightValueError(value_problem(whole) or f"row {first_row}: no finite scale")
    zero = stored < SMALLEST_SCALE
    stored = torch.where(zero, torch.ones_like(stored), stored)
    scales.copy_(stored)
    codes.copy_(_rounded(wide, stored.unsqueeze(1)).masked_fill_(zero.unsqueeze(1), 0))
    return _rows_with_values(rows[zero]) if bool(zero.any()) else 0


def _rounded(wide: Tensor, scales: Tensor) -> Tensor:
    # Codes are computed against the scale as stored, so the half-step bound holds for what is kept.
    quotient = wide / scales.to(wide.dtype)
    return quotient.round_().clamp_(-127, 127)  # torch.round is half-to-even


def _rows_with_values(rows: Tensor) -> int:
    """Count the rows that are not all zero, by their bits: in flush-to-zero mode `!= 0` is false for some."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    without_sign = torch.iinfo(integers).max
    return int(((rows.contiguous().view(integers) & without_sign) != 0).any(dim=1).sum())


def _describe_nonfinite(weights: Tensor) -> str:
    bad = ~torch.isfinite(weights)
    count = int(bad.sum())
    first = [int(i) for i in torch.nonzero(bad)[0]]
    value = weights[tuple(first)].item()
    verb = "is" if count == 1 else "are"
    return f"{count} of {weights.numel()} values {verb} NaN or Inf, the first at {first} ({value})"
