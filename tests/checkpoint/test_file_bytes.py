"""The bytes of a file: the same for the same model, pinned, and readable by everybody else."""

import hashlib
import os
import struct
import subprocess
import sys
import zlib

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

import w8a16
from support.files import Block, read_raw, saved_block
from support.golden import golden_model

SAVE = """
import sys, torch, w8a16
from torch import nn
torch.manual_seed(0)
layers = {name: nn.Linear(16, 16) for name in ("query", "key", "value", "output", "gate")}
w8a16.save(w8a16.quantize(nn.ModuleDict(layers)), sys.argv[1])
"""

GOLDEN_SHA256 = "3a2a9caf95b1de2ea25a3a5c53fc50e4a6c8c03cccb30e17ae4ac90e0c2355b1"


def test_two_processes_with_different_hash_seeds_write_the_same_bytes(tmp_path):
    files = [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]
    for seed, file in enumerate(files, 1):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", SAVE, str(file)], env=environment, check=True, timeout=120)
    assert files[0].read_bytes() == files[1].read_bytes()


MANIFEST = (
    '{"checksums":{CHECKSUMS},"format":"w8a16","format_version":2,"kept_float":{"2.bias":"bias"},"modules":{'
    '"0":{"kind":"embedding","weight_dtype":"float32","weights":{"weight":{"shape":[2,4]}}},'
    '"1":{"kind":"linear","weight_dtype":"float32","weights":{"weight":{"shape":[2,4]}}},'
    '"2":{"kind":"parameter","weight_dtype":"float32","weights":{"table":{"lead":2,"shape":[2,1,4]}}},'
    '"3":{"kind":"conv_transpose1d","weight_dtype":"float32",'
    '"weights":{"weight":{"groups":2,"shape":[2,2,2],"swapped":true}}}},'
    '"non_persistent_buffers":[],"origin":"model","source":null,"ties":{}}'
)

TENSORS = {
    # Wide dtypes first, then by name.
    "0.scales": ("F32", [2], "2f", (0.5, 1.0)),
    "1.bias": ("F32", [2], "2f", (0.25, -8.0)),
    "1.scales": ("F32", [2], "2f", (1.0, 2.0)),
    "2.bias": ("F32", [1, 2], "2f", (0.5, -0.0)),
    "2.table_scales": ("F32", [2, 1], "2f", (4.0, 1.0)),
    "3.scales": ("F32", [2], "2f", (1.0, 2.0)),
    "0.int8_weights": ("I8", [2, 4], "8b", (127, -2, 0, 64, 0, 0, 0, 0)),
    # 63.5 and 1.5: half to even
    "1.int8_weights": ("I8", [2, 4], "8b", (127, -64, 1, 0, -127, 1, 64, 2)),
    "2.table_int8_weights": ("I8", [2, 1, 4], "8b", (1, 0, 127, -1, 1, 2, 3, 127)),
    "3.int8_weights": ("I8", [2, 2, 2], "8b", (127, 1, 2, 3, 127, -2, 3, 4)),
}


def test_golden_structure(tmp_path):
    header, data = read_raw(w8a16.save(golden_model(), tmp_path))
    packed = {name: struct.pack(f"<{layout}", *values) for name, (_, _, layout, values) in TENSORS.items()}
    checksums = ",".join(f'"{name}":"{zlib.crc32(packed[name]):08x}"' for name in sorted(packed))
    manifest = MANIFEST.replace("{CHECKSUMS}", f"{{{checksums}}}")
    assert header.pop("__metadata__") == {"format": "pt", "w8a16": manifest}
    assert list(header) == list(TENSORS)
    end = 0
    for name, (dtype, shape, _, _) in TENSORS.items():
        begin, end = end, end + len(packed[name])
        assert header[name] == {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        assert data[begin:end] == packed[name], name  # -0.0 differs from 0.0
    assert len(data) == end


def test_golden_bytes(tmp_path):
    """Files that exist must stay readable: a change here needs a new format version, or a good reason."""
    content = w8a16.save(golden_model(), tmp_path).read_bytes()
    assert hashlib.sha256(content).hexdigest() == GOLDEN_SHA256


@pytest.mark.parametrize("length", range(0, 64, 7))
def test_data_begin_at_a_multiple_of_64(tmp_path, length):
    model = w8a16.quantize(nn.Sequential(nn.Linear(16, 16)))
    file = w8a16.save(model, tmp_path, source="x" * length)
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    assert (8 + size) % 64 == 0
    assert content[8 : 8 + size].rstrip(b" ").endswith(b"}}")


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        file = w8a16.save(golden_model(), tmp_path)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode


def test_the_safetensors_library_reads_it(tmp_path):
    model, file = saved_block(tmp_path, torch.bfloat16)
    loaded = safetensors.torch.load_file(file)
    expected = {**model.state_dict(), "positions": model.positions}
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name
    with safetensors.safe_open(file, "pt") as opened:
        assert opened.metadata()["format"] == "pt"
        assert set(opened.metadata()) == {"format", "w8a16"}
        assert opened.get_slice("first.int8_weights").get_shape() == [64, 32]


def test_tensors_are_aligned_to_their_own_size(tmp_path):
    """So that other readers may map the file into memory."""

    class Mixed(Block):
        def __init__(self):
            super().__init__(torch.float16)
            self.register_buffer("wide_byte", torch.zeros(1, dtype=torch.uint8))
            self.register_buffer("wide_double", torch.zeros(3, dtype=torch.float64))
            self.register_buffer("flag", torch.tensor(True))

    header, _ = read_raw(w8a16.save(w8a16.quantize(Mixed()), tmp_path))
    width = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    del header["__metadata__"]
    assert {info["dtype"] for info in header.values()} == set(width)
    for name, info in header.items():
        assert info["data_offsets"][0] % width[info["dtype"]] == 0, name
