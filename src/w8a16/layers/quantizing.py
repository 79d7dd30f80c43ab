"""Quantize a float weight of any shape, row by row as its layout says, and the way back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from w8a16.core import QuantizedWeight
from w8a16.errors import ShapeError
from w8a16.kernels import dequantize, quantize_weight
from w8a16.layers.layout import ROWS, Layout
from w8a16.layers.memory_format import memory_format_of


def quantize_with_layout(weight: Tensor, layout: Layout) -> QuantizedWeight:
    """Quantize `weight` and return codes and scales in the shapes of `layout`.

    A weight whose channels lie in its first dimension is read where it is; a swapped one is turned
    in parts, so that a stack of experts is never copied as a whole. The codes of a convolution lie
    channels last in memory where its weight does.

    Raises:
        ShapeError: the layout needs more dimensions, or other groups.
        DtypeError, WeightValueError: as `quantize_weight`.
    """
    if layout == ROWS and weight.dim() <= 2:
        return quantize_weight(weight)
    shape = tuple(weight.shape)
    if not layout.fits(shape):
        raise ShapeError(f"a weight {list(shape)} does not have the layout {layout}")
    codes_shape = layout.codes_shape(shape)
    rows, columns = math.prod(codes_shape[: layout.lead]), math.prod(codes_shape[layout.lead :])
    with torch.inference_mode(False), torch.no_grad():
        if layout == Layout(2, swapped=True) and weight.dim() == 3 and len(weight) > 0 and not weight.is_meta:
            parts = [quantize_weight(part.t()) for part in weight.detach()]
            codes = torch.stack([part.int8_weights for part in parts])
            scales = torch.stack([part.scales for part in parts])
            return QuantizedWeight(codes, scales, sum(part.underflow_rows for part in parts))
        values = layout.codes_of(weight.detach())
        channels_last = layout.lead == 1 and memory_format_of(weight) != torch.contiguous_format
        if channels_last:
            values = values.movedim(1, -1)  # as it lies in memory: neither this nor the way back copies
        codes, scales, underflow = quantize_weight(values.reshape(rows, columns))
        codes = codes.reshape(values.shape)
        return QuantizedWeight(
            codes.movedim(-1, 1) if channels_last else codes,
            scales.reshape(layout.scales_shape(codes_shape)),
            underflow,
        )


def dequantize_with_layout(codes: Tensor, scales: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
    """Return the float weight, `codes * scales` rounded once to `dtype`, in the memory format of its codes.

    A swapped weight is a view of values in the order of the codes.
    """
    if memory_format_of(codes) == torch.contiguous_format:
        return layout.float_of(dequantize(codes, scales, dtype))
    values = dequantize(codes.movedim(1, -1), scales, dtype)  # as they lie in memory
    return layout.float_of(values.movedim(-1, 1))
