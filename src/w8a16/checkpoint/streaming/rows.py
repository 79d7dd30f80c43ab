"""Which rows of an int8 weight a stored tensor fills, and how they lie in the file.

Codes are rows of equal length, one scale each. A stored tensor is the whole float weight, or a part of
it (one expert of a stack, the gate half of a fused projection), and its rows may run along its columns:

    [N, K]     row n is contiguous                      nn.Linear
    [K, N]     row n is a column: K elements, N apart   transformers' Conv1D

A column layout is described as `[groups, inner, across, tail]`: row `g * across + b` is made of the
elements `[g, :, b, :]`. Where a scale is for a group of a row only, each group is a row of codes, and a
column holds several of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.skeleton import Piece
from w8a16.errors import CheckpointError
from w8a16.layers import Layout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Columns:
    """How rows lie in a stored tensor whose rows run along its columns: `[groups, inner, across, tail]`."""

    groups: int
    inner: int
    across: int
    tail: int

    @property
    def length(self) -> int:
        """Elements of a column."""
        return self.inner * self.tail

    def rows_of(self, row_length: int) -> int:
        """How many rows of codes a column is: one, or its groups."""
        return self.length // row_length if row_length else 1


@dataclass(frozen=True)
class RowRange:
    """The rows of one target that one stored tensor fills."""

    tensor: str
    skipped: int
    """Elements of the stored tensor before those that are meant."""
    first: int
    """The first of the rows it fills."""
    count: int
    columns: Columns | None
    """How the rows lie in the stored tensor; None: one behind the other."""


def row_range(piece: Piece, stored: Shape, weight: Shape, layout: Layout, target: str) -> RowRange:
    """Find the rows of the weight `target` (float shape `weight`) that a tensor of shape `stored` fills.

    Raises:
        CheckpointError: the tensor does not fit, or would fill parts of rows.
    """
    try:
        meant, skipped = _rows_meant(piece, stored)
        find = _whole if piece.start is None else _part
        first, count, columns = find(piece, meant, weight, layout.unrefined)
        if layout.group:
            groups = layout.codes_shape(weight)[1]  # each is a row of codes
            first, count = first * groups, count * groups
        return RowRange(piece.tensor, skipped, first, count, columns)
    except ValueError as error:
        raise CheckpointError(
            f"{shown(target)} {list(weight)}: cannot be made of {shown(piece.tensor)} {list(stored)}: {error}"
        ) from error


def _rows_meant(piece: Piece, stored: Shape) -> tuple[Shape, int]:
    if piece.rows is None:
        return stored, 0
    begin, end = piece.rows
    if not stored or not 0 <= begin <= end <= stored[0]:
        raise ValueError(f"it has no rows {begin} to {end}")
    return (end - begin, *stored[1:]), begin * math.prod(stored[1:])


def _whole(piece: Piece, stored: Shape, weight: Shape, layout: Layout) -> tuple[int, int, Columns | None]:
    same = _turned(stored) == weight if piece.transposed else math.prod(stored) == math.prod(weight)
    if not same:
        raise ValueError("another shape")
    count = math.prod(layout.codes_shape(weight)[: layout.lead])
    return 0, count, _columns(piece, weight, layout)


def _part(piece: Piece, stored: Shape, weight: Shape, layout: Layout) -> tuple[int, int, Columns | None]:
    """The part must be whole rows that follow each other."""
    assert piece.start is not None
    part = _turned(stored) if piece.transposed else stored
    part = (1,) * (len(weight) - len(part)) + part
    if len(part) != len(weight) or len(piece.start) != len(weight):
        raise ValueError("another number of dimensions")
    if any(start + size > whole for start, size, whole in zip(piece.start, part, weight, strict=True)):
        raise ValueError(f"it reaches beyond, from {list(piece.start)}")
    if layout.groups > 1:
        raise ValueError("grouped channels cannot be put together")
    size, start, whole = (layout.codes_shape(shape) for shape in (part, piece.start, weight))
    rows, all_rows = size[: layout.lead], whole[: layout.lead]
    partial = next((i for i, n in enumerate(rows) if n > 1), layout.lead - 1)
    if size[layout.lead :] != whole[layout.lead :] or rows[partial + 1 :] != all_rows[partial + 1 :]:
        raise ValueError("it would fill parts of rows, or rows that do not follow each other")
    first = 0
    for i, n in zip(start[: layout.lead], all_rows, strict=True):
        first = first * n + i
    return first, math.prod(rows), _columns(piece, part, layout)


def _columns(piece: Piece, weight: Shape, layout: Layout) -> Columns | None:
    if layout.swapped and not piece.transposed:
        lead = layout.lead
        groups = math.prod(weight[: lead - 1]) * layout.groups
        inner = weight[lead - 1] // layout.groups
        return Columns(groups, inner, weight[lead], math.prod(weight[lead + 1 :]))
    if not piece.transposed:
        return None
    if layout.lead != len(weight) - 1 or layout.groups > 1:
        raise ValueError("its last two dimensions are not rows and columns of the codes")
    if layout.swapped:
        return None  # turned on the way in, and turned back for the codes
    *outer, across, inner = weight
    return Columns(math.prod(outer), inner, across, 1)


def _turned(shape: Shape) -> Shape:
    if len(shape) < 2:
        raise ValueError("it has no two dimensions to exchange")
    return (*shape[:-2], shape[-1], shape[-2])
