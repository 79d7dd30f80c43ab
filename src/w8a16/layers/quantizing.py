"""Quantize a float weight of any shape, row by row as its layout says, and the way back."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from w8a16.core import Outliers, add_outliers, take_outliers, value_problem
from w8a16.errors import ShapeError, WeightValueError
from w8a16.kernels import dequantize, quantize_weight
from w8a16.layers.layout import ROWS, Layout
from w8a16.layers.memory_format import memory_format_of

_BLOCK_ELEMENTS = 1 << 22


class HeldWeight(NamedTuple):
    """The tensors that a layer holds in place of a float weight, in the shapes of its layout."""

    int8_weights: Tensor
    scales: Tensor
    underflow_rows: int
    """As of `QuantizedWeight`."""
    outliers: Outliers | None = None


def quantize_with_layout(weight: Tensor, layout: Layout) -> HeldWeight:
    """Quantize `weight` and return codes and scales in the shapes of `layout`.

    A weight whose channels lie in its first dimension is read where it is; a swapped one is turned
    in parts, so that a stack of experts is never copied as a whole. The codes of a convolution lie
    channels last in memory where its weight does.

    Raises:
        ShapeError: the layout needs more dimensions, or other groups.
        DtypeError, WeightValueError: as `quantize_weight`.
    """
    if layout == ROWS and weight.dim() <= 2:
        return HeldWeight(*quantize_weight(weight))
    shape = tuple(weight.shape)
    if not layout.fits(shape):
        raise ShapeError(f"a weight {list(shape)} does not have the layout {layout}")
    if layout.outliers:
        return _with_outliers(weight, layout)
    codes_shape = layout.codes_shape(shape)
    rows, columns = math.prod(codes_shape[: layout.lead]), math.prod(codes_shape[layout.lead :])
    with torch.inference_mode(False), torch.no_grad():
        if layout == Layout(2, swapped=True) and weight.dim() == 3 and len(weight) > 0 and not weight.is_meta:
            parts = [quantize_weight(part.t()) for part in weight.detach()]
            codes = torch.stack([part.int8_weights for part in parts])
            scales = torch.stack([part.scales for part in parts])
            return HeldWeight(codes, scales, sum(part.underflow_rows for part in parts))
        values = layout.codes_of(weight.detach())
        channels_last = layout.lead == 1 and memory_format_of(weight) != torch.contiguous_format
        if channels_last:
            values = values.movedim(1, -1)  # as it lies in memory: neither this nor the way back copies
        codes, scales, underflow = quantize_weight(values.reshape(rows, columns))
        codes = codes.reshape(values.shape)
        return HeldWeight(
            codes.movedim(-1, 1) if channels_last else codes,
            scales.reshape(layout.scales_shape(codes_shape)),
            underflow,
        )


def _with_outliers(weight: Tensor, layout: Layout) -> HeldWeight:
    """In blocks of rows: what is left of a row without its outliers is a copy."""
    with torch.inference_mode(False), torch.no_grad():
        rows = layout.codes_of(weight.detach())
        if problem := value_problem(rows):  # NaN would pass for an outlier
            raise WeightValueError(problem)
        held = []
        for block in rows.split(max(1, _BLOCK_ELEMENTS // rows.shape[1])) if len(rows) else [rows]:
            rest, outliers = take_outliers(block, layout.outliers)
            held.append(HeldWeight(*quantize_weight(rest), outliers))
        return HeldWeight(
            torch.cat([part.int8_weights for part in held]),
            torch.cat([part.scales for part in held]),
            sum(part.underflow_rows for part in held),
            Outliers(
                *(torch.cat(parts) for parts in zip(*(part.outliers or () for part in held), strict=True))
            ),
        )


def dequantize_with_layout(
    codes: Tensor, scales: Tensor, layout: Layout, dtype: torch.dtype, outliers: Outliers | None = None
) -> Tensor:
    """Return the float weight, `codes * scales` rounded once to `dtype`, in the memory format of its codes.

    A swapped weight is a view of values in the order of the codes.
    """
    if outliers is not None:
        return layout.float_of(add_outliers(dequantize(codes, scales, dtype), outliers))
    if memory_format_of(codes) == torch.contiguous_format:
        return layout.float_of(dequantize(codes, scales, dtype))
    values = dequantize(codes.movedim(1, -1), scales, dtype)  # as they lie in memory
    return layout.float_of(values.movedim(-1, 1))
