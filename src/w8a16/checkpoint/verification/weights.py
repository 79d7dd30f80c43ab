"""Every weight against its original, element by element: `|w - q * s| <= s / 2 * (1 + 2**-15)`.

In blocks of some hundred thousand elements, wherever the rows lie. Letters: N rows, K elements of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import SourceFile
from w8a16.checkpoint.streaming.rows import Columns, RowRange
from w8a16.checkpoint.tensors import bytes_of
from w8a16.checkpoint.verification.pairing import Weight
from w8a16.core import half_step_bound

_ELEMENTS = 1 << 19
_FLOAT32 = 2.0**-24  # what rounding a float64 outlier to float32 may change, as a share of it


@dataclass(frozen=True)
class Place:
    """A stored tensor and its file."""

    file: SourceFile
    info: TensorInfo


@dataclass(frozen=True)
class WeightBlock:
    """`count` rows from `first` on of a weight, and of each the elements `begin` to `end`."""

    weight: Weight
    codes: Place
    scales: Place
    outliers: tuple[Place, ...]
    original: Place
    rows: RowRange
    first: int
    """The first row, counted in the weight."""
    count: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of the original that it stands for."""
        return self.count * (self.end - self.begin) * self.original.info.dtype.itemsize


@dataclass(frozen=True)
class BlockOutcome:
    """How many elements are off by more than half a step."""

    count: int = 0
    first: int = 0
    """Flat index of the first of them in the codes."""
    worst: float = 0.0
    """The largest error, in half-steps."""


def weight_blocks(
    weight: Weight, stored: Mapping[str, Place], originals: Mapping[str, Place]
) -> Iterator[WeightBlock]:
    """Cut a weight into blocks; `stored` and `originals` are all tensors of either checkpoint."""
    length = weight.row_length
    outliers = tuple(stored[key] for key in weight.outliers)
    for rows in weight.ranges:
        places = (stored[weight.codes], stored[weight.scales], outliers, originals[rows.tensor])
        if rows.columns is not None:
            across, each = rows.columns.across, rows.columns.rows_of(length)
            step = max(1, min(across, _ELEMENTS // max(rows.columns.length, 1)))
            for group in range(rows.columns.groups):
                for i in range(0, across, step):
                    first, count = rows.first + (group * across + i) * each, min(step, across - i) * each
                    yield WeightBlock(weight, *places, rows, first, count, 0, length)
            continue
        step, width = max(1, _ELEMENTS // max(length, 1)), max(1, min(length, _ELEMENTS))
        for i in range(0, rows.count, step):
            for begin in range(0, length, width):
                count, end = min(step, rows.count - i), min(length, begin + width)
                yield WeightBlock(weight, *places, rows, rows.first + i, count, begin, end)


def check_block(block: WeightBlock, buffers: Buffers) -> BlockOutcome:
    """Read a block of both checkpoints and compare."""
    n, k, length = block.count, block.end - block.begin, block.weight.row_length
    codes = _read(block.codes, buffers, "codes", block.first * length + block.begin, (n, k))
    scales = _read(block.scales, buffers, "scales", block.first, (n,))
    if block.rows.columns is None:
        skipped = block.rows.skipped + (block.first - block.rows.first) * length + block.begin
        floats = _read(block.original, buffers, "floats", skipped, (n, k))
    else:
        floats = _read_columns(block, block.rows.columns, buffers)
    wide = scales.double().unsqueeze(1)
    error = (floats.double() - codes.double() * wide).abs_()
    within = error <= half_step_bound(scales).unsqueeze(1)  # NaN never is
    if block.outliers:
        kept = _outliers(block, buffers)
        exact = floats.double().sub_(kept).abs_() <= kept.abs() * _FLOAT32
        within = torch.where(kept.isnan(), within, exact)
    if within.all():
        return BlockOutcome()
    bad = torch.nonzero(~within)
    row, column = bad[0].tolist()
    first = (block.first + row) * length + block.begin + column
    return BlockOutcome(len(bad), first, float((error / (wide / 2)).nan_to_num(math.inf).max()))


def _outliers(block: WeightBlock, buffers: Buffers) -> Tensor:
    """The outliers of the block in their places, float64 `[N, K]`; NaN elsewhere."""
    count = block.weight.record.layout.outliers
    columns, values = (
        _read(place, buffers, f"outliers {i}", block.first * count, (block.count, count))
        for i, place in enumerate(block.outliers)
    )
    # One column more for those that are not in this part of the row.
    width = block.end - block.begin
    places = columns.long() - block.begin
    places = torch.where((places >= 0) & (places < width), places, width)
    kept = torch.full((block.count, width + 1), math.nan, dtype=torch.float64)
    return kept.scatter_(1, places, values.double())[:, :width]


def _read(place: Place, buffers: Buffers, purpose: str, skipped: int, shape: tuple[int, ...]) -> Tensor:
    values = buffers.take(purpose, shape, place.info.dtype)
    offset = place.info.start + skipped * place.info.dtype.itemsize
    read_at(place.file.fd, bytes_of(values), offset, place.file.path)
    return values


def _read_columns(block: WeightBlock, columns: Columns, buffers: Buffers) -> Tensor:
    """Rows `[N, K]`: columns, or groups of one, of the stored tensor `[groups, inner, across, tail]`."""
    c, place = columns, block.original
    each = c.rows_of(block.weight.row_length)
    n = block.count // each
    group, across = divmod((block.first - block.rows.first) // each, c.across)
    part = buffers.take("floats", (c.inner, n, c.tail), place.info.dtype)
    view, itemsize = bytes_of(part), place.info.dtype.itemsize
    size, stride = n * c.tail * itemsize, c.across * c.tail * itemsize
    start = place.info.start + block.rows.skipped * itemsize
    start += group * c.inner * stride + across * c.tail * itemsize
    if size == stride:
        read_at(place.file.fd, view, start, place.file.path)
    else:
        for i in range(c.inner):
            read_at(place.file.fd, view[i * size : (i + 1) * size], start + i * stride, place.file.path)
    return part.transpose(0, 1).reshape(block.count, block.weight.row_length)
