"""Tensors are read in parts by several threads, batch by batch: every byte lands where it belongs."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from support.files import bits
from w8a16.checkpoint import open_shards, reading
from w8a16.checkpoint.container import disk
from w8a16.errors import ResourceError


@pytest.fixture
def stored(tmp_path):
    torch.manual_seed(0)
    tensors = {
        "wide": torch.randn(37, 11),
        "codes": torch.randint(-127, 127, (100, 3), dtype=torch.int8),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "half": torch.randn(50).bfloat16(),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tensors, open_shards(tmp_path / "model.safetensors")


@pytest.mark.parametrize("part", [1, 7, 64, 8 << 20])
@pytest.mark.parametrize("at_once", [1, 300, 256 << 20])
def test_parts_and_batches_of_any_size(stored, monkeypatch, part, at_once):
    monkeypatch.setattr(reading, "_PART", part)
    monkeypatch.setattr(reading, "_AT_ONCE", at_once)
    tensors, shards = stored
    found = reading.read_tensors(shards, lambda name, tensor: tensor)
    assert list(found) == list(shards.tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(found[name]) == bits(tensor), name


def test_they_lie_in_aligned_memory(tmp_path):
    """A foreign file may hold float32 at any byte."""
    fields = {
        "byte": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]},
        "floats": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    head = json.dumps(fields).encode()
    content = struct.pack("<Q", len(head)) + head + b"\x05" + struct.pack("<2f", 1.5, -2.0)
    (tmp_path / "model.safetensors").write_bytes(content)
    shards = open_shards(tmp_path / "model.safetensors")
    assert {(info.start - 8 - len(head)) % 4 for info in shards.tensors.values()} == {0, 1}
    found = reading.read_tensors(shards, lambda name, tensor: tensor)
    assert found["floats"].tolist() == [1.5, -2.0]
    assert found["floats"].data_ptr() % 16 == 0


def test_a_file_that_is_cut_while_it_is_read(stored, monkeypatch):
    """The message names the file and the tensor."""
    _, shards = stored
    real = disk.read_at

    def cut(fd, view, offset, path):
        with path.open("r+b") as file:
            file.truncate(offset + len(view) - 1)
        real(fd, view, offset, path)

    monkeypatch.setattr(disk, "read_at", cut)
    with pytest.raises(ResourceError, match=r"was the file changed meanwhile\? \(while reading \w+\)$"):
        reading.read_tensors(shards, lambda name, tensor: tensor)
