"""The bytes of a streamed checkpoint of two files, worked out by hand."""

import hashlib
import json
import math
import struct
import zlib

import pytest

from support.files import read_raw
from w8a16.checkpoint import open_checkpoint, open_shards
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.streaming import plan_checkpoint

FILES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SOURCE = (
    {
        "a.bias": ("F32", [2], (0.25, -8.0)),
        "a.weight": ("F32", [2, 4], (127.0, -64.0, 1.0, 0.0, -254.0, 2.0, 127.0, 3.0)),
    },
    {
        "b.weight": ("F32", [2, 4], (63.5, -1.0, 0.0, 32.0, 0.0, 0.0, 0.0, 0.0)),
        "norm.weight": ("F32", [1], (1.5,)),
    },
)
QUANTIZED = (
    {
        "a.bias": ("F32", [2], struct.pack("<2f", 0.25, -8.0)),
        "a.scales": ("F32", [2], struct.pack("<2f", 1.0, 2.0)),
        # 63.5 and 1.5: half to even
        "a.int8_weights": ("I8", [2, 4], struct.pack("8b", 127, -64, 1, 0, -127, 1, 64, 2)),
    },
    {
        "b.scales": ("F32", [2], struct.pack("<2f", 0.5, 1.0)),
        "norm.weight": ("F32", [1], struct.pack("<f", 1.5)),
        "b.int8_weights": ("I8", [2, 4], struct.pack("8b", 127, -2, 0, 64, 0, 0, 0, 0)),
    },
)
# Two elements are off by half a step of 2.0: 127 became 128, and 3 became 4.
SIGNAL = sum(value * value for value in SOURCE[0]["a.weight"][2])
FIGURES = (
    {"a": {"sqnr_db": round(10 * math.log10(SIGNAL / 2.0), 2), "largest_error": 1.0}},
    {"b": {"sqnr_db": 999.99, "largest_error": 0.0}},
)
SHA256 = (
    "a29b231742d3710b2ca986c1bb6124c5491aa59f98a4bebaff849550c84393a5",
    "dc974a4993c663db11fca0bfe37439493912ef8f6c2210558f68b9c16802e833",
)


def write(path, tensors):
    fields, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    head = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


@pytest.fixture(params=[1, 3])
def folders(request, tmp_path):
    """The source and the quantized folder, by one thread and by three."""
    source, quantized = tmp_path / "source", tmp_path / "quantized"
    source.mkdir()
    quantized.mkdir()
    for name, tensors in zip(FILES, SOURCE, strict=True):
        write(source / name, tensors)
    weight_map = {name: file for file, tensors in zip(FILES, SOURCE, strict=True) for name in tensors}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shards = open_shards(source)
    work = plan_checkpoint(shards, skeleton_from_names(shards), source_name="golden")
    work.run(quantized, threads=request.param)
    return source, quantized


def expected_manifest(number, source):
    content = (source / FILES[number]).read_bytes()
    (path,) = FIGURES[number]
    return {
        "format": "w8a16",
        "format_version": 2,
        "modules": {
            path: {
                "kind": "linear",
                "weight_dtype": "float32",
                "weights": {"weight": {"shape": [2, 4], **FIGURES[number][path]}},
            }
        },
        "kept_float": {},
        "ties": {},
        "non_persistent_buffers": [],
        "checksums": {name: f"{zlib.crc32(data):08x}" for name, (_, _, data) in QUANTIZED[number].items()},
        "source": {
            "name": "golden",
            "file": FILES[number],
            "bytes": len(content),
            "crc32": f"{zlib.crc32(content):08x}",
        },
        "origin": "names",
    }


@pytest.mark.parametrize("number", [0, 1])
def test_structure(folders, number):
    source, quantized = folders
    header, data = read_raw(quantized / FILES[number])
    metadata = header.pop("__metadata__")
    assert set(metadata) == {"format", "w8a16"}
    expected = expected_manifest(number, source)
    assert metadata["w8a16"] == json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert list(header) == list(QUANTIZED[number])
    end = 0
    for name, (dtype, shape, content) in QUANTIZED[number].items():
        begin, end = end, end + len(content)
        assert header[name] == {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        assert data[begin:end] == content, name
    assert len(data) == end


def test_the_index(folders):
    _, quantized = folders
    index = json.loads((quantized / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 24 + 20},
        "weight_map": {name: FILES[i] for i, tensors in enumerate(QUANTIZED) for name in sorted(tensors)},
    }
    assert set(open_checkpoint(quantized).manifest.modules) == {"a", "b"}


@pytest.mark.parametrize("number", [0, 1])
def test_bytes(folders, number):
    """Files that exist must stay readable: a change here needs a new format version, or a good reason."""
    content = (folders[1] / FILES[number]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[number]
