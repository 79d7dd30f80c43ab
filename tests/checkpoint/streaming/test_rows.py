"""The rows that a piece fills, against the tensor put together and quantized in the plainest way."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w8a16.checkpoint.skeleton import Piece
from w8a16.checkpoint.streaming.rows import row_range
from w8a16.errors import CheckpointError
from w8a16.layers import Layout

SIZES = st.integers(1, 4)


@st.composite
def cases(draw):
    """A weight, its layout, and a piece that may or may not fit."""
    lead, swapped = draw(st.sampled_from([(1, False), (1, True), (2, False), (2, True), (3, False)]))
    groups = draw(st.integers(1, 3)) if (lead, swapped) == (1, True) else 1
    dimensions = draw(st.integers(lead + 1, lead + 2))
    weight = [draw(SIZES) for _ in range(dimensions)]
    weight[0] *= groups
    part = draw(st.booleans())
    transposed = draw(st.booleans())
    if part:
        start = [draw(st.integers(0, size - 1)) for size in weight]
        size = [draw(st.integers(1, s - b)) for s, b in zip(weight, start, strict=True)]
        if draw(st.booleans()):  # whole rows are likelier to fit
            start[lead:], size[lead:] = [0] * (dimensions - lead), weight[lead:]
    else:
        start, size = [0] * dimensions, list(weight)
    stored = list(size)
    if transposed:
        stored[-2:] = stored[:-3:-1]
    elif not part and draw(st.booleans()):
        stored = [math.prod(stored)]
    while part and len(stored) > 2 and stored[0] == 1 and draw(st.booleans()):
        stored = stored[1:]
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    rows = (before, before + stored[0]) if before or after else None
    piece = Piece("stored", tuple(start) if part else None, transposed, rows)
    stored[0] += before + after
    return tuple(stored), tuple(weight), Layout(lead, swapped, groups), piece, tuple(start), tuple(size)


def filled_rows(found, stored, length):
    """The elements of the stored tensor that `row_range` says are the rows."""
    flat = stored.flatten()[found.skipped :]
    if found.columns is None:
        return flat[: found.count * length].view(found.count, length)
    c = found.columns
    block = flat[: c.groups * c.inner * c.across * c.tail].view(c.groups, c.inner, c.across, c.tail)
    return block.transpose(1, 2).reshape(found.count, length)


@settings(max_examples=1500, deadline=None)
@given(cases())
def test_row_range(case):
    shape, weight, layout, piece, start, size = case
    stored = torch.arange(1.0, 1 + math.prod(shape)).view(shape)
    meant = stored if piece.rows is None else stored[slice(*piece.rows)]
    meant = (meant.mT if piece.transposed else meant).reshape(size)
    whole = torch.zeros(weight)
    whole[tuple(slice(b, b + n) for b, n in zip(start, size, strict=True))] = meant
    rows = math.prod(layout.codes_shape(weight)[: layout.lead])
    expected = layout.codes_of(whole).reshape(rows, -1)
    touched = (expected != 0).any(1).nonzero().flatten().tolist()
    complete = bool((expected[touched] != 0).all()) and touched == list(
        range(touched[0], touched[0] + len(touched))
    )
    try:
        found = row_range(piece, shape, weight, layout, "target")
    except CheckpointError:
        simple = piece.start is None and not piece.transposed
        assert not simple, "a whole tensor always fits"
        possible = complete and layout.groups == 1 and not piece.transposed
        assert not possible, "whole rows that follow each other were refused"
        return
    assert complete
    assert (found.first, found.count) == (touched[0], len(touched))
    assert torch.equal(filled_rows(found, stored, expected.shape[1]), expected[touched])
