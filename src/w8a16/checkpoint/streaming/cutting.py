"""Cut the work into blocks, in the order in which the source files are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.streaming.blocks import (
    BLOCK_BYTES,
    COLUMN_BLOCK_BYTES,
    Block,
    Check,
    CodesTarget,
    ColumnRows,
    FloatTarget,
    Rows,
    StoredPart,
    Target,
)
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.long_rows import LongRow
from w8a16.checkpoint.streaming.placement import FileContents
from w8a16.checkpoint.streaming.rows import Columns, RowRange
from w8a16.errors import CheckpointError

_LONGEST_COLUMN = 4 * COLUMN_BLOCK_BYTES


@dataclass(frozen=True)
class Use:
    """A range of rows that a stored tensor fills."""

    target: Target
    rows: RowRange


def uses_of(contents: FileContents, file: OutputFile) -> Iterator[Use]:
    """What the tensors of an output file are made of."""
    for weight in contents.quantized:
        target = CodesTarget(
            file,
            weight.codes_key,
            weight.scales_key,
            weight.row_length,
            weight.layout.outliers,
            weight.outlier_keys,
        )
        yield from (Use(target, rows) for rows in weight.ranges)
    for copied in contents.copied:
        yield from (Use(FloatTarget(file, copied.key, copied.row_length), rows) for rows in copied.ranges)


def cut(sources: Iterable[SourceFile], uses: Iterable[Use]) -> list[Block]:
    """All blocks: every source byte is read for its checksum exactly once, and every use is made of it.

    Raises:
        CheckpointError: a row that runs along a column is too long to be held in memory.
    """
    by_tensor: dict[str, list[Use]] = {}
    for use in uses:
        by_tensor.setdefault(use.rows.tensor, []).append(use)
    blocks: list[Block] = []
    for source in sources:
        blocks += _checks(source, 0, source.data_start)
        for name, info in source.header.tensors.items():
            blocks += _blocks_of_tensor(source, name, info, by_tensor.get(name, []))
    return blocks


def _blocks_of_tensor(source: SourceFile, name: str, info: TensorInfo, uses: list[Use]) -> Iterator[Block]:
    summed = _once_each(info, uses)
    for use in uses:
        offset = info.start + use.rows.skipped * info.dtype.itemsize
        part = StoredPart(name, info.dtype, offset, use.rows.skipped)
        if use.rows.columns is not None:
            yield from _cut_columns(source, part, use.target, use.rows, use.rows.columns)
        else:
            yield from _cut_rows(source, part, use.target, use.rows, use in summed)
    if not summed:
        yield from _checks(source, info.start, info.size)


def _once_each(info: TensorInfo, uses: list[Use]) -> list[Use]:
    """Uses that together read every byte of a tensor exactly once; none where there are no such uses."""
    chosen, end = [], 0
    for use in sorted(uses, key=lambda use: use.rows.skipped):
        elements = use.rows.count * use.target.row_length
        if use.rows.columns is None and use.rows.skipped == end and elements:
            chosen.append(use)
            end += elements
    return chosen if end * info.dtype.itemsize == info.size else []


def _cut_rows(
    source: SourceFile, part: StoredPart, target: Target, rows: RowRange, summed: bool
) -> Iterator[Block]:
    row_bytes = target.row_length * part.dtype.itemsize
    if row_bytes > BLOCK_BYTES:
        if isinstance(target, FloatTarget):
            yield from _cut_rows(source, part, *_as_elements(target, rows), summed)
            return
        if target.outliers:
            raise CheckpointError(
                f"{shown(part.tensor)}: outliers of a row of {row_bytes} bytes: expected {BLOCK_BYTES} at "
                "most, because a row is held in memory as a whole; leave it out of the recipe"
            )
        for i in range(rows.count):
            yield LongRow(source, part, target, i, rows.first + i, summed)
        return
    step = max(1, BLOCK_BYTES // max(row_bytes, 4))
    for i in range(0, rows.count, step):
        yield Rows(source, part, target, i, rows.first + i, min(step, rows.count - i), summed)


def _as_elements(target: FloatTarget, rows: RowRange) -> tuple[FloatTarget, RowRange]:
    """A tensor that is only copied may be cut anywhere."""
    length = target.row_length
    elements = RowRange(rows.tensor, rows.skipped, rows.first * length, rows.count * length, None)
    return FloatTarget(target.file, target.key, 1), elements


def _cut_columns(
    source: SourceFile, part: StoredPart, target: Target, rows: RowRange, columns: Columns
) -> Iterator[Block]:
    column_bytes = columns.length * part.dtype.itemsize
    if column_bytes > _LONGEST_COLUMN:
        raise CheckpointError(
            f"{shown(part.tensor)}: its output channels are columns of {column_bytes} bytes, and a column is "
            f"held in memory as a whole: expected {_LONGEST_COLUMN} bytes at most; exclude it"
        )
    step = max(1, COLUMN_BLOCK_BYTES // max(column_bytes, 1))
    each = columns.rows_of(target.row_length)
    for group in range(columns.groups):
        for i in range(0, columns.across, step):
            first = rows.first + (group * columns.across + i) * each
            count = min(step, columns.across - i)
            yield ColumnRows(source, part, target, columns, group, i, first, count)


def _checks(source: SourceFile, start: int, size: int) -> Iterator[Block]:
    for offset in range(start, start + size, BLOCK_BYTES):
        yield Check(source, offset, min(BLOCK_BYTES, start + size - offset))
