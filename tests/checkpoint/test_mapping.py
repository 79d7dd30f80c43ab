"""`load(..., mmap=True)`: the same model, without a copy of its files."""

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch

import w8a16
from support.files import TOKENS, Block, assert_same_model, bits, checksums, on_meta, saved_block
from w8a16.checkpoint import open_shards
from w8a16.checkpoint.container import header as headers
from w8a16.checkpoint.mapping import map_tensors
from w8a16.checkpoint.reading import read_tensors
from w8a16.errors import CheckpointError, ResourceError


def mapped_files() -> set[str]:
    return set(re.findall(r"/\S+\.safetensors", Path("/proc/self/maps").read_text(encoding="utf-8")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [Block, lambda: on_meta(Block), lambda: w8a16.quantize(Block())])
def test_the_same_model(tmp_path, dtype, build):
    model, file = saved_block(tmp_path, dtype)
    loaded = w8a16.load(build(), file, mmap=True)
    assert_same_model(loaded, w8a16.load(build(), file))
    assert torch.equal(loaded(TOKENS), model(TOKENS))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_file_is_mapped_only_where_it_was_asked_for(tmp_path):
    _, file = saved_block(tmp_path)
    read = w8a16.load(on_meta(Block), file)
    assert str(file) not in mapped_files()
    mapped = w8a16.load(on_meta(Block), file, mmap=True)
    assert str(file) in mapped_files()
    del read, mapped


def test_what_is_written_stays_in_memory(tmp_path):
    _, file = saved_block(tmp_path)
    before = checksums(tmp_path)
    model = w8a16.load(on_meta(Block), file, mmap=True)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert float(model.first.scales.sum()) == 0
    assert checksums(tmp_path) == before


def test_copies_and_pickles(tmp_path):
    _, file = saved_block(tmp_path)
    model = w8a16.load(on_meta(Block), file, mmap=True)
    assert_same_model(copy.deepcopy(model), model)
    assert_same_model(pickle.loads(pickle.dumps(model)), model)
    again = w8a16.save(model, tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


def test_tensors_at_any_address(tmp_path):
    """A foreign file may begin its tensors anywhere; kernels get aligned ones."""
    from safetensors.torch import save_file

    tensors = {"a": torch.arange(3, dtype=torch.int8), "b": torch.randn(5), "c": torch.empty(0, 4)}
    head = {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}
    raw = headers.build_header(head, {}) + b"".join(bits(t) for t in tensors.values())
    (tmp_path / "odd.safetensors").write_bytes(raw)
    save_file(tensors, tmp_path / "even.safetensors")
    for name in ("odd", "even"):
        shards = open_shards(tmp_path / f"{name}.safetensors")
        found = map_tensors(shards, lambda _, tensor: tensor)
        expected = read_tensors(shards, lambda _, tensor: tensor)
        assert found.keys() == tensors.keys()
        for key, tensor in found.items():
            assert torch.equal(tensor, expected[key])
            assert tensor.data_ptr() % tensor.element_size() == 0


def test_an_exchanged_file_is_refused(tmp_path):
    _, file = saved_block(tmp_path)
    shards = open_shards(file)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ResourceError, match="was changed or exchanged after its header was read"):
        map_tensors(shards, lambda _, tensor: tensor)


def test_scales_are_checked_all_the_same(tmp_path):
    _, file = saved_block(tmp_path)
    info = open_shards(file).tensors["first.scales"]
    raw = bytearray(file.read_bytes())
    raw[info.start : info.start + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"first\.scales: expected finite positive scales, found nan"):
        w8a16.load(on_meta(Block), file, mmap=True)
