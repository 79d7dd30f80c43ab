"""A header written before its checksums and figures are known: its room suffices, to the byte."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w8a16.checkpoint import Manifest, ModuleRecord, Source, WeightRecord
from w8a16.checkpoint.container.header import build_header
from w8a16.checkpoint.manifest import file_metadata, reserved_header_bytes
from w8a16.errors import CheckpointError
from w8a16.layers import Layout

TENSORS = {
    "a.scales": (torch.float32, (8,)),
    "a.int8_weights": (torch.int8, (8, 16)),
    "ä\n": (torch.int8, ()),
}


def manifest(sqnr=None, largest=None, checksums=None, crc=None, size=None):
    weights = {"weight": WeightRecord(Layout(), (8, 16), sqnr, largest)}
    return Manifest(
        modules={"a": ModuleRecord("linear", torch.bfloat16, weights)},
        kept_float={"x": "dtype"},
        checksums=checksums or {},
        source=Source("name", "model.safetensors", size, crc),
        origin="classes",
    )


figures = st.none() | st.floats(allow_nan=False)
crcs = st.integers(0, 2**32 - 1)


@given(figures, figures, st.none() | crcs, st.lists(crcs, min_size=3, max_size=3), st.integers(0, 2**63))
def test_it_suffices_whatever_comes_out(sqnr, largest, crc, checksums, size):
    room = reserved_header_bytes(TENSORS, manifest(size=size))
    complete = manifest(sqnr, largest, dict(zip(TENSORS, checksums, strict=True)), crc, size)
    head = build_header(TENSORS, file_metadata(complete), room)
    assert len(head) == room
    assert room % 64 == 0
    assert int.from_bytes(head[:8], "little") == room - 8


def test_little_is_wasted():
    complete = manifest(41.93, 0.999994, dict.fromkeys(TENSORS, 7), 9, 123)
    exact = len(build_header(TENSORS, file_metadata(complete)))
    assert exact <= reserved_header_bytes(TENSORS, manifest(size=123)) <= exact + 64


@pytest.mark.parametrize("missing", [1, 64])
def test_too_little_room_is_an_error(missing):
    complete = manifest(41.93, 0.999994, dict.fromkeys(TENSORS, 7), 9, 123)
    need = len(build_header(TENSORS, file_metadata(complete)).rstrip(b" "))
    with pytest.raises(CheckpointError) as caught:
        build_header(TENSORS, file_metadata(complete), need - missing)
    assert str(caught.value) == f"the header needs {need} bytes, {need - missing} are reserved for it"


@pytest.mark.parametrize(
    "sqnr, largest, text",
    [
        (41.926, 0.9999944, '"largest_error":0.999994,"shape":[8,16],"sqnr_db":41.93'),
        (math.inf, 0.0, '"largest_error":0.0,"shape":[8,16],"sqnr_db":999.99'),
        (-math.inf, math.inf, '"largest_error":99.999999,"shape":[8,16],"sqnr_db":-999.99'),
        (None, None, '"weight":{"shape":[8,16]}'),
    ],
)
def test_how_figures_are_written(sqnr, largest, text):
    assert text in file_metadata(manifest(sqnr, largest))["w8a16"]
