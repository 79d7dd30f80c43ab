"""The output is the same file, byte by byte, whatever the threads, the memory and the time."""

import pytest
import torch
from torch import nn

from support.files import checksums
from support.streaming import (
    assert_same_tensors,
    in_turn,
    skeleton_of,
    stored_state,
    stream,
    tensors_in,
    write_checkpoint,
)
from w8a16.checkpoint.streaming import DEFAULT_MEMORY
from w8a16.errors import ResourceError


def model(dtype=torch.bfloat16):
    torch.manual_seed(0)
    built = nn.Sequential(
        nn.Linear(40, 300, dtype=dtype),
        nn.Embedding(65, 48, dtype=dtype),
        nn.ConvTranspose2d(6, 8, 3, groups=2, dtype=torch.float64),
        nn.Linear(7, 11),
    )
    built.register_buffer("positions", torch.arange(5.0), persistent=False)
    return built


@pytest.fixture
def shards(tmp_path):
    state = stored_state(model())
    return write_checkpoint(state, tmp_path / "float", in_turn(state, 3))


@pytest.fixture
def written(shards, tmp_path):
    """`written("name", threads=2)`: the checksums of what was written."""

    def write(name, **how):
        stream(shards, skeleton_of(model()), tmp_path / name, **how)
        return checksums(tmp_path / name)

    return write


def test_threads_and_memory(written, cut_small):
    cut_small(512)
    one = written("1", threads=1)
    assert len(one) == 4
    for threads in (2, 3, 7):
        assert written(str(threads), threads=threads) == one
    for megabytes in (65, 80, 512, 4096):
        assert written(f"{megabytes} MiB", memory=megabytes << 20) == one


def test_torch_threads(written, monkeypatch):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            results.append(written(str(threads)))
    finally:
        torch.set_num_threads(before)
    assert results[0] == results[1]


def test_the_default_memory_is_enough_and_too_little_is_refused(written, tmp_path):
    assert written("default", memory=DEFAULT_MEMORY)
    with pytest.raises(ResourceError) as caught:
        written("small", memory=64 << 20)
    assert str(caught.value) == "memory: expected at least 65 MiB for this checkpoint, got 64 MiB"
    assert list((tmp_path / "small").iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_reference_backend_gives_the_same_tensors(dtype, cut_small, tmp_path, monkeypatch):
    """Not the same bytes: the sums behind the error figures are added up in another order."""
    cut_small(512)
    state = stored_state(model(dtype))
    shards = write_checkpoint(state, tmp_path / "float-all")
    stream(shards, skeleton_of(model(dtype)), tmp_path / "native")
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    stream(shards, skeleton_of(model(dtype)), tmp_path / "reference")
    assert_same_tensors(tensors_in(tmp_path / "reference"), tensors_in(tmp_path / "native"))


def test_progress_counts_every_byte_of_the_sources(shards, tmp_path, cut_small):
    """The transposed convolution is read twice: in rows, and once more for the checksum of its file."""
    cut_small(512)
    seen = []
    stream(shards, skeleton_of(model()), tmp_path / "out", progress=lambda *now: seen.append(now))
    totals = {total for _, total in seen}
    convolution = 8 * 6 * 4 * 9
    assert totals == {sum(header.identity[2] for header in shards.headers) + convolution}
    done = [count for count, _ in seen]
    assert done == sorted(done)
    assert done[-1] == totals.pop()
