"""Pieces of the work of an export: rows of codes become words, other bytes are copied."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.tensors import bytes_of
from w8a16.integrations.compressed_tensors.layout import pack_rows, words_in

_BYTES = 4 << 20


@dataclass(frozen=True)
class PackedRows:
    """Some rows of codes."""

    source: SourceFile
    output: OutputFile
    offset: int
    """Where the codes of the first of them lie in the source."""
    key: str
    first: int
    """The row of the packed tensor where they begin."""
    count: int
    length: int

    def run(self, buffers: Buffers) -> int:
        """Read, pack and write; returns the bytes written."""
        codes = buffers.take("codes", (self.count, self.length), torch.int8)
        read_at(self.source.fd, bytes_of(codes), self.offset, self.source.path)
        width = words_in(self.length)
        words = pack_rows(codes, buffers.take("words", (self.count, width), torch.int32))
        view = bytes_of(words)
        self.output.write(self.key, self.first * width * words.element_size(), view)
        return len(view)


@dataclass(frozen=True)
class CopiedBytes:
    """Some bytes of a tensor that keeps its values, under a name that may be another."""

    source: SourceFile
    output: OutputFile
    offset: int
    """Where they lie in the source."""
    key: str
    start: int
    """The first of the bytes of the written tensor that they are."""
    size: int

    def run(self, buffers: Buffers) -> int:
        """Read and write; returns the bytes written."""
        view = bytes_of(buffers.take("bytes", (self.size,), torch.uint8))
        read_at(self.source.fd, view, self.offset, self.source.path)
        self.output.write(self.key, self.start, view)
        return self.size


def packed_rows(
    source: SourceFile, output: OutputFile, offset: int, key: str, rows: int, length: int
) -> list[PackedRows]:
    """All rows of a matrix whose codes begin at `offset`."""
    step = max(1, _BYTES // max(length, 1))
    return [
        PackedRows(source, output, offset + first * length, key, first, min(step, rows - first), length)
        for first in range(0, rows, step)
    ]


def copied_bytes(
    source: SourceFile, output: OutputFile, offset: int, key: str, size: int
) -> list[CopiedBytes]:
    """All bytes of a tensor that begins at `offset`."""
    return [
        CopiedBytes(source, output, offset + start, key, start, min(_BYTES, size - start))
        for start in range(0, size, _BYTES)
    ]
