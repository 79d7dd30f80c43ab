"""Rows of an int8 weight on their way into this library's layout; each block says what it wrote.

Letters: N rows of a matrix, K elements of a row, G scales of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from w8a16.checkpoint import TensorInfo, shown
from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.results import Range
from w8a16.checkpoint.tensors import bytes_of
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors.layout import unpack_rows, words_in
from w8a16.integrations.foreign_int8.records import ForeignWeight

Written = tuple[tuple[str, Range], ...]
"""For each tensor of the output the range of its bytes that was written."""


@dataclass(frozen=True)
class Place:
    """An open file, and a tensor in it."""

    file: SourceFile
    info: TensorInfo

    def read(self, buffers: Buffers, purpose: str, skipped: int, shape: tuple[int, ...]) -> Tensor:
        """Some elements, behind the first `skipped`."""
        values = buffers.take(purpose, shape, self.info.dtype)
        offset = self.info.start + skipped * self.info.dtype.itemsize
        read_at(self.file.fd, bytes_of(values), offset, self.file.path)
        return values


@dataclass(frozen=True)
class WeightRows:
    """Some rows of a matrix: their codes and their scales."""

    weight: ForeignWeight
    codes: Place
    scales: Place
    zero_points: Place | None
    output: OutputFile
    codes_key: str
    scales_key: str
    skipped: int
    """Rows of the stored matrix before them."""
    first: int
    """The row of the written one where they begin."""
    count: int

    def run(self, buffers: Buffers) -> Written:
        """Read, unpack, check and write."""
        k, g = self.weight.shape[1], max(self.weight.scales_a_row, 1)
        scales, zeros = self._scales(buffers, g)
        codes = self._codes(buffers, k)
        if zeros is not None:  # whatever its codes are, a row without a scale is zero
            codes.view(self.count, g, -1)[zeros] = 0
        return (
            self._write(self.codes_key, codes, self.first * k),
            self._write(self.scales_key, scales, self.first * g),
        )

    def _codes(self, buffers: Buffers, k: int) -> Tensor:
        if not self.weight.packed:
            return self.codes.read(buffers, "codes", self.skipped * k, (self.count, k))
        width = words_in(k)
        words = self.codes.read(buffers, "codes", self.skipped * width, (self.count, width))
        return unpack_rows(words, k)

    def _scales(self, buffers: Buffers, g: int) -> tuple[Tensor, Tensor | None]:
        """float32 `[rows, G]`, and which of them stand for zeros, if any do."""
        shared = self.weight.scales_a_row == 0
        skipped, shape = (0, (1, 1)) if shared else (self.skipped * g, (self.count, g))
        stored = self.scales.read(buffers, "scales", skipped, shape).to(torch.float32)
        scales = (stored / self.weight.divisor).expand(self.count, g).contiguous()
        if self.zero_points is not None:
            self._refuse_asymmetric(buffers, skipped, shape)
        zeros = scales == 0
        if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
            raise CheckpointError(f"{shown(self.weight.scales)}: scales that are negative or not finite")
        if not bool(zeros.any()):
            return scales, None
        return scales.masked_fill(zeros, 1.0), zeros

    def _refuse_asymmetric(self, buffers: Buffers, skipped: int, shape: tuple[int, int]) -> None:
        assert self.zero_points is not None
        points = self.zero_points.read(buffers, "zero points", skipped, shape)
        if int(points.count_nonzero()):
            raise CheckpointError(
                f"{shown(self.weight.zero_points or '')}: asymmetric, its zero points are not zero; "
                "int8 here is symmetric"
            )

    def _write(self, key: str, values: Tensor, skipped: int) -> tuple[str, Range]:
        view, start = bytes_of(values), skipped * values.element_size()
        self.output.write(key, start, view)
        return key, Range(start, len(view), crc32(view))
