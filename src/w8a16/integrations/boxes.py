"""Rectangular parts of stored tensors, followed through joins, splits and turns.

A tensor made of stored ones is a tuple of boxes that tile it. Each function here says what becomes of
the boxes when something is done to that tensor, or raises `NotFollowed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from w8a16.checkpoint.skeleton import Piece

Shape = tuple[int, ...]


class NotFollowed(Exception):
    """The result is not made of rectangular parts."""


@dataclass(frozen=True)
class Box:
    """A part of a stored tensor, and where it lies in the tensor made of it."""

    tensor: str
    shape: Shape
    """Of the stored tensor, or the one that it is viewed in."""
    begin: Shape
    """The first index of the part in the stored tensor."""
    size: Shape
    """The extent of the part in the stored tensor."""
    start: Shape
    """The first index in the tensor made of it."""
    axes: tuple[int | None, ...]
    """For each dimension of the tensor made of it the stored dimension along it; None: a single index."""

    def extent(self, dimension: int) -> int:
        """How many indices it fills along a dimension of the tensor made of it."""
        axis = self.axes[dimension]
        return 1 if axis is None else self.size[axis]


Boxes = tuple[Box, ...]


def whole(name: str, shape: Shape) -> Boxes:
    """A stored tensor as it is."""
    return (Box(name, shape, (0,) * len(shape), shape, (0,) * len(shape), tuple(range(len(shape)))),)


def join(parts: Sequence[tuple[Boxes, Shape]], dimension: int) -> Boxes:
    """Tensors (each with its shape) one after the other along a dimension."""
    joined: list[Box] = []
    offset = 0
    for boxes, shape in parts:
        joined += [replace(box, start=_changed(box.start, dimension, offset)) for box in boxes]
        offset += shape[dimension]
    return tuple(joined)


def cut(boxes: Boxes, dimension: int, begin: int, end: int) -> Boxes:
    """The indices from `begin` to before `end` of a dimension."""
    found = []
    for box in boxes:
        first = box.start[dimension]
        low, high = max(begin, first), min(end, first + box.extent(dimension))
        if low >= high:
            continue
        axis = box.axes[dimension]
        moved = replace(box, start=_changed(box.start, dimension, low - first - begin))
        if axis is not None:
            size = (*box.size[:axis], high - low, *box.size[axis + 1 :])
            moved = replace(moved, begin=_changed(box.begin, axis, low - first), size=size)
        found.append(moved)
    return tuple(found)


def insert(boxes: Boxes, dimension: int) -> Boxes:
    """A new dimension of size one."""
    return tuple(
        replace(
            box,
            start=(*box.start[:dimension], 0, *box.start[dimension:]),
            axes=(*box.axes[:dimension], None, *box.axes[dimension:]),
        )
        for box in boxes
    )


def drop(boxes: Boxes, dimension: int) -> Boxes:
    """The tensor without a dimension, which has size one."""
    dropped = []
    for box in boxes:
        if box.axes[dimension] is not None:
            raise NotFollowed
        start = (*box.start[:dimension], *box.start[dimension + 1 :])
        dropped.append(replace(box, start=start, axes=(*box.axes[:dimension], *box.axes[dimension + 1 :])))
    return tuple(dropped)


def permute(boxes: Boxes, order: Sequence[int]) -> Boxes:
    """The dimensions in another order."""
    return tuple(
        replace(box, start=tuple(box.start[i] for i in order), axes=tuple(box.axes[i] for i in order))
        for box in boxes
    )


def view(boxes: Boxes, before: Shape, after: Shape) -> Boxes:
    """The same values in the same order, in another shape: of whole stored tensors only."""
    if before == after:
        return boxes
    if len(boxes) != 1 or boxes[0] != whole(boxes[0].tensor, boxes[0].shape)[0]:
        raise NotFollowed
    return whole(boxes[0].tensor, after)


def piece_of(box: Box, stored: Shape, made: Shape) -> Piece:
    """A box as a piece, of a stored tensor of shape `stored`, in a tensor of shape `made`."""
    dimensions = len(box.shape)
    kept = tuple(axis for axis in box.axes if axis is not None)
    straight = tuple(range(dimensions))
    transposed = dimensions >= 2 and kept == (*straight[:-2], dimensions - 1, dimensions - 2)
    lies_last = box.axes[len(box.axes) - dimensions :] == kept
    if not (lies_last and (kept == straight or transposed) and box.size[1:] == box.shape[1:]):
        raise NotFollowed
    fills = math.prod(box.size) == math.prod(made)
    rows = None
    if dimensions and box.size[0] != box.shape[0]:
        rows = (box.begin[0], box.begin[0] + box.size[0])
    if box.shape != stored and not (fills and rows is None and not transposed):
        raise NotFollowed
    return Piece(box.tensor, None if fills else box.start, transposed, rows)


def _changed(index: Shape, dimension: int, by: int) -> Shape:
    return (*index[:dimension], index[dimension] + by, *index[dimension + 1 :])
