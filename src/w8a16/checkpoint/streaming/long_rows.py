"""A row that is longer than a block: read twice, first for its largest value, then for its codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from w8a16.checkpoint.container.crc import combine, crc32
from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.streaming.blocks import (
    BLOCK_BYTES,
    CodesTarget,
    StoredPart,
    find_nonfinite,
    ordered_sum,
)
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.results import NonFinite, Range, Result, RowErrors
from w8a16.checkpoint.tensors import bytes_of
from w8a16.core import codes_of_row, scale_of_row


@dataclass(frozen=True)
class LongRow:
    """One row of a stored tensor, its elements one behind the other."""

    source: SourceFile
    part: StoredPart
    target: CodesTarget
    skipped: int
    """Rows of the part before this one."""
    first: int
    """The row of the target."""
    summed: bool
    """Whether its bytes count for the checksum of the source; else another block reads them, too."""

    @property
    def output(self) -> OutputFile:
        """The target's file."""
        return self.target.file

    @property
    def size(self) -> int:
        """Bytes of the row."""
        return self.target.row_length * self.part.dtype.itemsize

    @property
    def memory(self) -> int:
        """A part of the row, and eight tensors of float64 that are made of it."""
        return 9 * BLOCK_BYTES

    def run(self, buffers: Buffers, write: bool) -> Result:
        """Find the scale, then write the codes part by part."""
        largest, crc, nonfinite = 0.0, 0, None
        for start, part in self._parts(buffers):
            raw = bytes_of(part)
            crc = combine(crc, crc32(raw), len(raw))
            before = self.part.skipped + self.skipped * self.target.row_length + start
            nonfinite = _merged(nonfinite, find_nonfinite(self.part.tensor, part, before.__add__))
            if nonfinite is None:
                largest = max(largest, float(part.abs().amax()))
        read = Range(self._offset(0), self.size, crc) if self.summed else None
        if nonfinite is not None or not write:
            return Result(read, nonfinite=nonfinite)
        result = self._write(buffers, largest)
        result.read = read
        return result

    def _write(self, buffers: Buffers, largest: float) -> Result:
        scale = scale_of_row(torch.tensor(largest, dtype=self._compute))
        figures, crc = torch.zeros(3, dtype=torch.float64), 0
        for start, part in self._parts(buffers):
            codes = codes_of_row(part, scale)
            raw = bytes_of(codes)
            self.target.file.write(self.target.codes_key, self.first * self.target.row_length + start, raw)
            crc = combine(crc, crc32(raw), len(raw))
            if scale is not None:
                figures = _add_figures(figures, part, codes, scale)
        stored = torch.ones(1) if scale is None else scale.reshape(1)
        raw = bytes_of(stored)
        self.target.file.write(self.target.scales_key, 4 * self.first, raw)
        signal, noise, worst = figures.tolist()
        underflow = int(scale is None and largest > 0)
        errors = RowErrors(self.first, underflow, int(scale is None) - underflow, signal, noise, worst)
        codes_range = Range(self.first * self.target.row_length, self.target.row_length, crc)
        written = (
            (self.target.codes_key, codes_range),
            (self.target.scales_key, Range(4 * self.first, 4, crc32(raw))),
        )
        return Result(written=written, errors=(self.target.codes_key, errors))

    @property
    def _compute(self) -> torch.dtype:
        return torch.float64 if self.part.dtype == torch.float64 else torch.float32

    def _offset(self, start: int) -> int:
        elements = self.skipped * self.target.row_length + start
        return self.part.offset + elements * self.part.dtype.itemsize

    def _parts(self, buffers: Buffers) -> Iterator[tuple[int, Tensor]]:
        length = BLOCK_BYTES // 8  # each is several times in memory, in float64
        for start in range(0, self.target.row_length, length):
            count = min(length, self.target.row_length - start)
            part = buffers.take("raw", (count,), self.part.dtype)
            read_at(self.source.fd, bytes_of(part), self._offset(start), self.source.path)
            yield start, part


def _add_figures(figures: Tensor, part: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    error = part.double() - codes.double() * scale.double()
    worst = 2 * float(error.abs().amax()) / float(scale)
    sums = torch.tensor(
        [ordered_sum(part.double().square_()), ordered_sum(error.square_())], dtype=torch.float64
    )
    return torch.cat([figures[:2] + sums, figures[2:].clamp(min=worst)])


def _merged(before: NonFinite | None, found: NonFinite | None) -> NonFinite | None:
    if before is None or found is None:
        return before or found
    return NonFinite(before.tensor, before.count + found.count, before.first, before.value)
