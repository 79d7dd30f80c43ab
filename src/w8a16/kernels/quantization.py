"""Quantize a weight with the fastest backend that has a kernel for it: the same bits as `core` gives."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from w8a16 import core
from w8a16.core import QuantizedWeight
from w8a16.errors import WeightValueError
from w8a16.kernels import cpu
from w8a16.kernels.cpu.structures import DTYPES
from w8a16.kernels.registry import select


class RowErrors(NamedTuple):
    """What rounding to codes did to each row of a weight, in float32 `[N]`."""

    signal: Tensor
    """Sum of `(w / s)^2`."""
    noise: Tensor
    """Sum of `((w - q s) / s)^2`; `10 log10(signal / noise)` is the row's SQNR in dB."""
    largest: Tensor
    """Largest `|w - q s|` in half-steps `s / 2`; at most `1 + 2**-15`."""


def quantize_weight(weights: Tensor) -> QuantizedWeight:
    """`core.quantize_weight`, by the native kernel where it applies."""
    if not _is_native(weights):
        return core.quantize_weight(weights)
    return _native(weights, None) or core.quantize_weight(weights)


def quantize_and_measure(weights: Tensor) -> tuple[QuantizedWeight, RowErrors]:
    """`quantize_weight`, and the error it makes in each row, from the same pass over the weight.

    Args:
        weights: float `[N, K]`, as for `quantize_weight`; with values, so not on the meta device.
    """
    if _is_native(weights):
        errors = torch.zeros((weights.shape[0], 3), dtype=torch.float32, device="cpu")
        quantized = _native(weights, errors)
        if quantized is not None:
            return quantized, RowErrors(*errors.unbind(1))
    quantized = core.quantize_weight(weights)
    return quantized, _measure(weights, quantized)


class BlockFigures(NamedTuple):
    """What became of some rows of a weight, all together."""

    rows_without_scale: int
    """Rows with NaN, Inf, or a float64 value beyond float32; their codes and scales are undefined."""
    underflow_rows: int
    """Rows with values, yet too small for a scale: stored as zeros."""
    zero_rows: int
    """Rows without any value but zero."""
    signal: float
    """Sum of `w ** 2`, row by row."""
    noise: float
    """Sum of `(w - q s) ** 2`, row by row."""
    largest: float
    """Largest `|w - q s|` in half-steps."""


def quantize_block(weights: Tensor, codes: Tensor, scales: Tensor, errors: Tensor) -> BlockFigures:
    """Quantize rows into memory that is there already, on the calling thread where the kernel is native.

    For callers with threads of their own, which quantize a large weight block by block; the result is
    that of `quantize_and_measure` on the whole weight.

    Args:
        weights: float `[N, K]` on the CPU.
        codes: int8 `[N, K]`, contiguous, to be filled.
        scales: float32 `[N]`, to be filled.
        errors: float32 `[N, 3]`, to be filled with the columns of `RowErrors`.
    """
    if codes.numel() == 0:
        scales.fill_(1)
        errors.zero_()
        return BlockFigures(0, 0, len(codes), 0.0, 0.0, 0.0)
    if _is_native(weights):
        r = cpu.quantize(weights, codes, scales, errors, one_thread=True)
        return BlockFigures(
            r.nonfinite_rows, r.underflow_rows, r.zero_rows, r.signal, r.noise, float(r.largest)
        )
    try:
        quantized = core.quantize_weight(weights)
    except WeightValueError:
        bad = ~torch.isfinite((weights.abs().amax(1) / 127).float())
        return BlockFigures(int(bad.sum()), 0, 0, 0.0, 0.0, 0.0)
    codes.copy_(quantized.int8_weights)
    scales.copy_(quantized.scales)
    errors.copy_(torch.stack(_measure(weights, quantized), 1))
    return _figures(scales, errors, quantized.underflow_rows)


def _figures(scales: Tensor, errors: Tensor, underflow: int) -> BlockFigures:
    """From figures in steps, for each row, to figures of the block in units of the weight."""
    signal, noise, worst = errors.double().unbind(1)
    squares = scales.double().square()
    empty = int((signal == 0).sum())  # a row with values holds a code 127
    signal_sum, noise_sum = (math.fsum((squares * part).tolist()) for part in (signal, noise))
    return BlockFigures(0, underflow, empty - underflow, signal_sum, noise_sum, float(worst.max()))


def block_workspace(dtype: torch.dtype) -> int:
    """Bytes for each weight that `quantize_block` takes besides its arguments, for weights of this dtype."""
    native = _is_native(torch.empty((0, 0), dtype=dtype, device="cpu"))
    return 0 if native else 40  # four tensors of float64 where torch measures the error


def _is_native(weights: Tensor) -> bool:
    return (
        type(weights) in (Tensor, torch.nn.Parameter)
        and not is_lazy(weights)
        and weights.layout == torch.strided
        and not weights.is_nested
        and weights.device.type == "cpu"
        and weights.dim() == 2
        and weights.dtype in DTYPES
        and select("cpu").name == "cpu-native"
    )


def _native(weights: Tensor, errors: Tensor | None) -> QuantizedWeight | None:
    """None where a row has no scale: `core` then says which, and why."""
    n, k = weights.shape
    with torch.inference_mode(False), torch.no_grad():
        codes = torch.empty((n, k), dtype=torch.int8, device="cpu")
        scales = torch.ones(n, dtype=torch.float32, device="cpu")
        if codes.numel() == 0:
            return QuantizedWeight(codes, scales, 0)
        result = cpu.quantize(weights.detach(), codes, scales, errors)
    return None if result.nonfinite_rows else QuantizedWeight(codes, scales, result.underflow_rows)


def _measure(weights: Tensor, quantized: QuantizedWeight) -> RowErrors:
    steps = weights.detach().double() / quantized.scales.double().unsqueeze(1)
    error = steps - quantized.int8_weights
    # A row too small for a scale is stored as zeros with scale 1: there is nothing to measure in steps.
    kept = (quantized.int8_weights != 0).any(1, keepdim=True)
    steps, error = steps * kept, error * kept
    largest = 2 * error.abs().amax(1) if error.shape[1] else error.new_zeros(len(error))
    return RowErrors(steps.square().sum(1).float(), error.square().sum(1).float(), largest.float())
