"""From a quantized checkpoint back to a float one: the original keys and dtypes, streaming, on all cores.

The values are those of `w8a16.dequantize(model)`: `q * s`, rounded once. What rounding to int8 lost stays
lost. Letters: N rows, K elements of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.container.header import Header, TensorInfo, build_header
from w8a16.checkpoint.container.index import write_index
from w8a16.checkpoint.container.printable import shown, shown_list
from w8a16.checkpoint.opened import Checkpoint, below
from w8a16.checkpoint.records import Manifest, WeightRecord
from w8a16.checkpoint.skeleton import Piece
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.manifests import codes_key
from w8a16.checkpoint.streaming.rows import Columns, row_range
from w8a16.checkpoint.tensors import bytes_of
from w8a16.checkpoint.verification.work import run_all
from w8a16.errors import CheckpointError
from w8a16.kernels import dequantize
from w8a16.layers import stored_tensors
from w8a16.layers.tensor_names import tensor_names

_ELEMENTS = 1 << 20
_COLUMN_ELEMENTS = 4 << 20  # the more rows at once, the longer the parts that are written
_BYTES = 4 << 20
_METADATA = {"format": "pt"}

Progress = Callable[[int, int], None]
"""Called as `(bytes written, bytes in all)`."""


@dataclass(frozen=True)
class Restored:
    """A float weight to be written, and the int8 tensors that it comes from."""

    key: str
    codes: TensorInfo
    scales: TensorInfo
    outliers: tuple[TensorInfo, ...]
    """Their columns and values; empty where there are none."""
    record: WeightRecord
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the float weight."""
        return self.record.layout.float_shape(self.record.shape)


@dataclass(frozen=True)
class RestoredFile:
    """One file to be written."""

    header: Header
    weights: tuple[Restored, ...]
    copies: tuple[str, ...]
    """Tensors that are kept as they are."""

    def output(self, folder: Path) -> OutputFile:
        """The file below a folder, with the place of every tensor."""
        stored, path = self.header.tensors, folder / self.header.path.name
        tensors = {name: (stored[name].dtype, stored[name].shape) for name in self.copies}
        tensors |= {weight.key: (weight.dtype, weight.shape) for weight in self.weights}
        ordered = OutputFile(path, tensors, 0).tensors
        return OutputFile(path, ordered, len(build_header(ordered, _METADATA)))


@dataclass(frozen=True)
class WeightRows:
    """`count` rows from `first` on of a weight, and of each the elements `begin` to `end`."""

    source: SourceFile
    output: OutputFile
    weight: Restored
    length: int
    first: int
    count: int
    begin: int
    end: int
    columns: Columns | None
    """How the rows lie in the float weight; None: one behind the other."""

    def run(self, buffers: Buffers) -> int:
        """Dequantize and write; returns the bytes written."""
        n, k = self.count, self.end - self.begin
        codes = self._read(self.weight.codes, buffers, self.first * self.length + self.begin, (n, k))
        scales = self._read(self.weight.scales, buffers, self.first, (n,))
        values = dequantize(codes, scales, self.weight.dtype)
        if self.weight.outliers:
            self._add_outliers(values, buffers)
        itemsize = values.element_size()
        if self.columns is None:
            start = (self.first * self.length + self.begin) * itemsize
            self.output.write(self.weight.key, start, bytes_of(values))
        else:
            self._write_columns(values, self.columns)
        return n * k * itemsize

    def _read(self, info: TensorInfo, buffers: Buffers, skipped: int, shape: tuple[int, ...]) -> Tensor:
        values = buffers.take(str(info.dtype), shape, info.dtype)
        offset = info.start + skipped * info.dtype.itemsize
        read_at(self.source.fd, bytes_of(values), offset, self.source.path)
        return values

    def _add_outliers(self, values: Tensor, buffers: Buffers) -> None:
        count = self.weight.record.layout.outliers
        first, shape = self.first * count, (self.count, count)
        columns, kept = (self._read(info, buffers, first, shape) for info in self.weight.outliers)
        width = self.end - self.begin
        inside = (columns >= self.begin) & (columns < self.end)
        rows = inside.nonzero()[:, 0]
        if width and len(rows):
            values[rows, columns[inside].long() - self.begin] = kept[inside].to(values.dtype)

    def _write_columns(self, values: Tensor, c: Columns) -> None:
        each = c.rows_of(self.length)
        count = self.count // each
        group, across = divmod(self.first // each, c.across)
        turned = values.view(count, c.inner, c.tail).transpose(0, 1).contiguous()
        view, itemsize = bytes_of(turned), turned.element_size()
        size, stride = count * c.tail * itemsize, c.across * c.tail * itemsize
        start = group * c.inner * stride + across * c.tail * itemsize
        if size == stride:
            self.output.write(self.weight.key, start, view)
            return
        for i in range(c.inner):
            self.output.write(self.weight.key, start + i * stride, view[i * size : (i + 1) * size])


@dataclass(frozen=True)
class CopiedBytes:
    """Some bytes of a tensor that is kept."""

    source: SourceFile
    output: OutputFile
    key: str
    start: int
    size: int

    def run(self, buffers: Buffers) -> int:
        """Read and write; returns the bytes written."""
        view = bytes_of(buffers.take("bytes", (self.size,), torch.uint8))
        read_at(
            self.source.fd, view, self.source.header.tensors[self.key].start + self.start, self.source.path
        )
        self.output.write(self.key, self.start, view)
        return self.size


def plan_restoring(checkpoint: Checkpoint) -> list[RestoredFile]:
    """What each file becomes: tied weights stay stored once, buffers that no state dict has are left out.

    Raises:
        CheckpointError: a tensor has the name of a weight that would be written.
    """
    hidden = set(checkpoint.manifest.non_persistent_buffers)
    planned = []
    for header, part in zip(checkpoint.shards.headers, checkpoint.parts, strict=True):
        weights = tuple(_weights(header, part))
        owned = {
            below(path, key) for path, record in part.modules.items() for key in stored_tensors(record.codes)
        }
        copies = tuple(name for name in header.tensors if name not in owned and name not in hidden)
        if taken := sorted({weight.key for weight in weights} & set(checkpoint.shards.tensors)):
            raise CheckpointError(f"{shown(header.path)}: holds {shown_list(taken)} beside its int8 codes")
        planned.append(RestoredFile(header, weights, copies))
    return planned


def restored_bytes(planned: list[RestoredFile]) -> int:
    """Bytes that `restore_checkpoint` writes, without the index."""
    return sum(each.output(Path()).size for each in planned)


def restore_checkpoint(
    checkpoint: Checkpoint,
    planned: list[RestoredFile],
    folder: Path,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Write the float files, and the index where there was one, into an empty folder; returns their names.

    Raises:
        ResourceError: a file was changed meanwhile, or the disk is full or fails.
    """
    sources = [SourceFile(each.header) for each in planned]
    outputs = [each.output(folder) for each in planned]
    total, done = sum(output.size - output.header_bytes for output in outputs), 0

    def take(block: WeightRows | CopiedBytes, size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    try:
        files = zip(planned, sources, outputs, strict=True)
        run_all(
            (block for file in files for block in _blocks(*file)), lambda block, own: block.run(own), take
        )
        for output, source in zip(outputs, sources, strict=True):
            output.complete(_METADATA)
            source.finish()
    finally:
        for output in outputs:
            output.close()
        for source in sources:
            source.close()
    return [output.path.name for output in outputs] + _write_index(checkpoint, outputs, folder)


def _weights(header: Header, part: Manifest) -> Iterator[Restored]:
    for path, record in part.modules.items():
        for name, weight in record.weights.items():
            codes = codes_key(path, name)
            if codes in header.tensors:  # else it is a second name
                keys = (below(path, key) for key in tensor_names(name, weight.layout))
                own, scales, *outliers = (header.tensors[part.ties.get(key, key)] for key in keys)
                yield Restored(below(path, name), own, scales, tuple(outliers), weight, record.weight_dtype)


def _blocks(
    planned: RestoredFile, source: SourceFile, output: OutputFile
) -> Iterator[WeightRows | CopiedBytes]:
    for weight in planned.weights:
        yield from weight_rows(weight, source, output)
    for name in planned.copies:
        size = source.header.tensors[name].size
        for start in range(0, size, _BYTES):
            yield CopiedBytes(source, output, name, start, min(_BYTES, size - start))


def weight_rows(weight: Restored, source: SourceFile, output: OutputFile) -> Iterator[WeightRows]:
    """Cut the dequantization of one weight into blocks."""
    layout, shape = weight.record.layout, weight.record.shape
    length = math.prod(shape[layout.lead :])
    whole = row_range(Piece(weight.key), weight.shape, weight.shape, layout, weight.key)
    files = (source, output, weight, length)
    if not length:
        return
    if whole.columns is None:
        step, width = max(1, _ELEMENTS // length), min(length, _ELEMENTS)
        for first in range(0, whole.count, step):
            for begin in range(0, length, width):
                count, end = min(step, whole.count - first), min(length, begin + width)
                yield WeightRows(*files, first, count, begin, end, None)
        return
    across, each = whole.columns.across, whole.columns.rows_of(length)
    step = max(1, _COLUMN_ELEMENTS // whole.columns.length)
    for start in range(0, whole.count, across * each):
        for i in range(0, across, step):
            first, count = start + i * each, min(step, across - i) * each
            yield WeightRows(*files, first, count, 0, length, whole.columns)


def _write_index(checkpoint: Checkpoint, outputs: list[OutputFile], folder: Path) -> list[str]:
    if checkpoint.shards.index is None:
        return []
    weight_map = {key: output.path.name for output in outputs for key in output.tensors}
    total = sum(output.size - output.header_bytes for output in outputs)
    path = folder / checkpoint.shards.index.name
    write_index(path, weight_map, total)
    return [path.name]
