"""The pieces of work: each reads some bytes of a source file, and writes what becomes of them.

A block is small enough to stay in the processor's cache while it is read, checked, quantized and
written. Blocks are independent of each other, and cut the same way whatever the memory and the number
of threads, so the output is the same to the bit. Letters: N rows, K elements of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.results import NonFinite, Range, Result, RowErrors
from w8a16.checkpoint.streaming.rows import Columns
from w8a16.checkpoint.tensors import bytes_of
from w8a16.core import FLOAT_DTYPES, Outliers, take_outliers
from w8a16.kernels import block_workspace, quantize_block

BLOCK_BYTES = 4 << 20
"""Source bytes of a block: with its codes well inside the last-level cache of two threads."""
COLUMN_BLOCK_BYTES = 16 << 20
"""The same where rows are columns of the file: the wider a block, the longer the parts that are read."""


@dataclass(frozen=True)
class StoredPart:
    """A tensor of a source file, or the part of it that is meant."""

    tensor: str
    dtype: torch.dtype
    offset: int
    """Of its first byte in the file."""
    skipped: int
    """Elements of the tensor before it."""


@dataclass(frozen=True)
class CodesTarget:
    """An int8 weight in an output file: codes `[N, K]` and scales `[N]`."""

    file: OutputFile
    codes_key: str
    scales_key: str
    row_length: int
    outliers: int = 0
    """How many of each row are kept as floats."""
    outlier_keys: tuple[str, ...] = ()
    """Their columns `[N, R]` and values `[N, R]`."""


@dataclass(frozen=True)
class FloatTarget:
    """A tensor that is stored as it is: rows of `row_length` elements."""

    file: OutputFile
    key: str
    row_length: int


Target = CodesTarget | FloatTarget


class Block(Protocol):
    """One piece of work."""

    @property
    def source(self) -> SourceFile:
        """The file that it reads."""

    @property
    def output(self) -> OutputFile | None:
        """The file that it writes to."""

    @property
    def size(self) -> int:
        """Source bytes it stands for; what progress is measured in."""

    @property
    def memory(self) -> int:
        """Bytes that it works in."""

    def run(self, buffers: Buffers, write: bool) -> Result:
        """Do it; without `write` only look for values that have no code."""


@dataclass(frozen=True)
class Check:
    """Bytes that are read for the checksum of the source file only."""

    source: SourceFile
    offset: int
    size: int
    output: ClassVar[None] = None

    @property
    def memory(self) -> int:
        """The bytes themselves."""
        return self.size

    def run(self, buffers: Buffers, write: bool) -> Result:
        """Read and sum up."""
        raw = bytes_of(buffers.take("raw", (self.size,), torch.uint8))
        read_at(self.source.fd, raw, self.offset, self.source.path)
        return Result(read=Range(self.offset, self.size, crc32(raw)))


@dataclass(frozen=True)
class Rows:
    """Rows that lie one behind the other."""

    source: SourceFile
    part: StoredPart
    target: Target
    skipped: int
    """Rows of the part before this block."""
    first: int
    """The first row of the target."""
    count: int
    summed: bool
    """Whether its bytes count for the checksum of the source; else another block reads them, too."""

    @property
    def output(self) -> OutputFile:
        """The target's file."""
        return self.target.file

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return self.count * self.target.row_length * self.part.dtype.itemsize

    @property
    def memory(self) -> int:
        """The rows, and what they become."""
        return self.size + _memory_of_codes(self.count, self.size, self.part.dtype, self.target)

    def run(self, buffers: Buffers, write: bool) -> Result:
        """Read, and write codes and scales, or the same bytes."""
        offset = self.part.offset + self.skipped * self.target.row_length * self.part.dtype.itemsize
        rows = buffers.take("raw", (self.count, self.target.row_length), self.part.dtype)
        raw = bytes_of(rows)
        read_at(self.source.fd, raw, offset, self.source.path)
        read = Range(offset, self.size, crc32(raw))
        if isinstance(self.target, FloatTarget):
            result = _write_floats(self.target, self.first, raw, write, read.crc)
        else:
            before = self.part.skipped + self.skipped * self.target.row_length
            result = _write_codes(self.target, self.first, rows, buffers, write) or Result(
                nonfinite=find_nonfinite(self.part.tensor, rows, before.__add__)
            )
        if self.summed:
            result.read = read
        return result


@dataclass(frozen=True)
class ColumnRows:
    """Rows that are columns of the stored tensor, or groups of one: read in parts, then turned."""

    source: SourceFile
    part: StoredPart
    target: Target
    columns: Columns
    group: int
    across: int
    """The first of the columns."""
    first: int
    """The first row of the target."""
    count: int
    """How many columns."""

    @property
    def output(self) -> OutputFile:
        """The target's file."""
        return self.target.file

    @property
    def size(self) -> int:
        """Bytes of the columns."""
        return self.count * self.columns.length * self.part.dtype.itemsize

    @property
    def memory(self) -> int:
        """The columns, the rows, and what they become."""
        rows = self.count * self.columns.rows_of(self.target.row_length)
        return 2 * self.size + _memory_of_codes(rows, self.size, self.part.dtype, self.target)

    def run(self, buffers: Buffers, write: bool) -> Result:
        """Read the columns, turn them, and write codes and scales, or the turned elements."""
        c = self.columns
        part = buffers.take("raw", (c.inner, self.count, c.tail), self.part.dtype)
        self._read(bytes_of(part))
        turned = buffers.take("turned", (self.count, c.inner, c.tail), self.part.dtype)
        turned.copy_(part.transpose(0, 1))
        length = self.target.row_length
        rows = turned.view(self.count * c.rows_of(length), length)
        if isinstance(self.target, FloatTarget):
            raw = bytes_of(rows)
            return _write_floats(self.target, self.first, raw, write, crc32(raw))
        return _write_codes(self.target, self.first, rows, buffers, write) or Result(
            nonfinite=find_nonfinite(self.part.tensor, part, self._flat_index)
        )

    def _read(self, part: memoryview) -> None:
        c, itemsize = self.columns, self.part.dtype.itemsize
        size, stride = self.count * c.tail * itemsize, c.across * c.tail * itemsize
        offset = self.part.offset + self.group * c.inner * stride + self.across * c.tail * itemsize
        if size == stride:
            read_at(self.source.fd, part, offset, self.source.path)
            return
        for i in range(c.inner):
            read_at(self.source.fd, part[i * size : (i + 1) * size], offset + i * stride, self.source.path)

    def _flat_index(self, index: int) -> int:
        c = self.columns
        inner, rest = divmod(index, self.count * c.tail)
        flat = ((self.group * c.inner + inner) * c.across + self.across) * c.tail + rest
        return self.part.skipped + flat


def _memory_of_codes(rows: int, size: int, dtype: torch.dtype, target: Target) -> int:
    """Codes, scales and errors, and what quantizing takes."""
    elements = size // dtype.itemsize
    workspace = block_workspace(dtype) if dtype in FLOAT_DTYPES else 0
    if isinstance(target, CodesTarget) and target.outliers:
        workspace += 3 * dtype.itemsize + 12  # magnitudes, the rest, what topk makes; masks and counts
    return (1 + workspace) * elements + 16 * rows


def _write_floats(target: FloatTarget, first: int, raw: memoryview, write: bool, crc: int) -> Result:
    if not write:
        return Result()
    itemsize = target.file.tensors[target.key][0].itemsize
    start = first * target.row_length * itemsize
    target.file.write(target.key, start, raw)
    return Result(written=((target.key, Range(start, len(raw), crc)),))


def _write_codes(
    target: CodesTarget, first: int, rows: Tensor, buffers: Buffers, write: bool
) -> Result | None:
    """Quantize the rows and write them; None where some of them have no scale."""
    n, k = rows.shape
    taken: Outliers | None = None
    if target.outliers:
        if not bool(torch.isfinite(rows).all()):  # NaN would pass for an outlier
            return None
        rows, taken = take_outliers(rows, target.outliers)
    codes = buffers.take("codes", (n, k), torch.int8)
    scales = buffers.take("scales", (n,), torch.float32)
    errors = buffers.take("errors", (n, 3), torch.float32)
    figures = quantize_block(rows, codes, scales, errors)
    if figures.rows_without_scale:
        return None
    if not write:
        return Result()
    row_errors = RowErrors(first, *figures[1:])
    if taken is not None:
        signal = row_errors.signal + ordered_sum(taken.values.double().square().reshape(-1))
        row_errors = replace(row_errors, signal=signal)
    return write_rows(target, first, codes, scales, row_errors, taken)


def write_rows(
    target: CodesTarget,
    first: int,
    codes: Tensor,
    scales: Tensor,
    errors: RowErrors,
    outliers: Outliers | None = None,
) -> Result:
    """Write whole rows of codes, their scales, and their outliers."""
    written = []
    parts = [
        (target.codes_key, codes, first * target.row_length),
        (target.scales_key, scales, first * scales.element_size()),
    ]
    for key, tensor in zip(target.outlier_keys, outliers or (), strict=True):
        parts.append((key, tensor, first * target.outliers * tensor.element_size()))
    for key, tensor, start in parts:
        raw = bytes_of(tensor)
        target.file.write(key, start, raw)
        written.append((key, Range(start, len(raw), crc32(raw))))
    return Result(written=tuple(written), errors=(target.codes_key, errors))


def find_nonfinite(tensor: str, values: Tensor, flat_index: Callable[[int], int]) -> NonFinite | None:
    """The values that have no code, or None; `flat_index` maps an index here to one of the stored tensor."""
    flat = values.reshape(-1)
    bad = ~torch.isfinite((flat / 127).float() if flat.dtype == torch.float64 else flat)
    count = int(bad.sum())
    if count == 0:
        return None
    first = int(bad.view(torch.uint8).argmax())  # of the first of them; all positions could fill the memory
    return NonFinite(tensor, count, flat_index(first), float(flat[first]))


def ordered_sum(values: Tensor) -> float:
    """The sum of a vector, added up in the same order by every number of threads."""
    parts = values.split(1 << 13)  # small enough for torch to leave each to one thread
    return sum(float(part.sum()) for part in parts)
