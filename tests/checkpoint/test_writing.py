"""Writing is atomic and strict: a complete file or none, and nothing that could not be read again."""

import errno
import shutil
from collections import namedtuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import w8a16
from support.files import assert_same_model, checksums, on_meta
from support.twins import mlp
from w8a16.checkpoint import tensors
from w8a16.errors import CheckpointError, ResourceError

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_failure_in_the_middle_leaves_no_trace(tmp_path, monkeypatch, error, existing):
    model = w8a16.quantize(mlp())
    if existing:
        (tmp_path / "model.safetensors").write_bytes(b"the file of yesterday")
    before = checksums(tmp_path)
    real, written = tensors.bytes_of, []

    def fail_at_the_third(tensor):
        written.append(tensor)
        if len(written) == 3:
            assert len(checksums(tmp_path)) == len(before) + 1, "nothing was being written"
            raise error
        return real(tensor)

    monkeypatch.setattr(tensors, "bytes_of", fail_at_the_third)
    with pytest.raises(ResourceError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        w8a16.save(model, tmp_path)
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path}/model.safetensors: No space left on device"
    assert checksums(tmp_path) == before


def test_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    model = w8a16.quantize(mlp(16, 32, bias=False))
    size = w8a16.save(model, tmp_path / "once.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - size + 1, size - 1))
    target = tmp_path / "twice.safetensors"
    with pytest.raises(ResourceError) as caught:
        w8a16.save(model, target)
    assert str(caught.value) == f"{target}: need {size} bytes, have {size - 1}"
    assert sorted(checksums(tmp_path)) == ["once.safetensors"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - size, size))
    assert w8a16.save(model, target).stat().st_size == size


def test_an_existing_file_is_replaced(tmp_path):
    w8a16.save(w8a16.quantize(mlp(16, 64)), tmp_path)
    model = w8a16.quantize(mlp(16, 32))
    w8a16.save(model, tmp_path)
    assert_same_model(w8a16.load(mlp(16, 32), tmp_path), model)
    assert list(checksums(tmp_path)) == ["model.safetensors"]


def test_a_float_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        w8a16.save(mlp(), tmp_path / "new")
    assert str(caught.value) == (
        "the model has no int8 module: call w8a16.quantize(model) before saving; "
        "print(w8a16.plan(model)) says what it can convert"
    )
    assert not (tmp_path / "new").exists()


def with_buffer(**buffers):
    model = w8a16.quantize(mlp(16, 16))
    for name, buffer in buffers.items():
        model.register_buffer(name, buffer)
    return model


def test_state_that_is_no_tensor_is_named(tmp_path):
    class Stateful(nn.Sequential):
        def get_extra_state(self):
            return {"steps": 3}

    with pytest.raises(CheckpointError) as caught:
        w8a16.save(nn.Sequential(Stateful(w8a16.quantize(nn.Linear(16, 16)))), tmp_path)
    assert str(caught.value) == "only tensors can be stored in safetensors, found 0._extra_state: dict"


def test_a_skeleton_has_nothing_to_save(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        w8a16.save(w8a16.quantize(on_meta(lambda: mlp(16, 16))), tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "cannot be saved:"
    assert sorted(lines[1:]) == [
        f"  0.{name}: on the meta device, it has no values" for name in ("bias", "int8_weights", "scales")
    ]


def test_tensors_that_cannot_be_stored_are_all_named(tmp_path):
    model = with_buffer(
        sparse=torch.eye(3).to_sparse(),
        lost=torch.empty(2, device="meta"),
        complex=torch.zeros(2, dtype=torch.complex128),
    )
    with pytest.raises(CheckpointError) as caught:
        w8a16.save(model, tmp_path)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines[0] == "sparse: layout torch.sparse_coo, expected a dense tensor"
    assert lines[1] == "lost: on the meta device, it has no values"
    assert lines[2].startswith("complex: dtype torch.complex128; supported: F64, F32, ")
    assert len(lines) == 3


def test_complex_buffers_are_stored(tmp_path):
    """Rotary frequencies are often complex, and often a conjugate view of something else."""
    frequencies = torch.randn(4, dtype=torch.complex64)
    w8a16.save(with_buffer(frequencies=frequencies, turned=frequencies.conj()), tmp_path)
    loaded = load_file(tmp_path / "model.safetensors")
    assert torch.equal(loaded["frequencies"], frequencies)
    assert torch.equal(loaded["turned"], frequencies.conj().resolve_conj())


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_rows_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"rows: layout torch\.sparse_csr, expected a dense tensor"):
        w8a16.save(with_buffer(rows=torch.eye(3).to_sparse_csr()), tmp_path)


def test_no_folder_is_made_for_a_model_that_cannot_be_stored(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be saved"):
        w8a16.save(with_buffer(lost=torch.empty(2, device="meta")), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [3, 64, 3000])
def test_tensors_that_are_not_contiguous(tmp_path, size):
    """Small ones are overwritten by the allocator, large ones are unmapped, when freed too early."""

    def build():
        model = mlp(16, 16)
        model.register_parameter("bias", nn.Parameter(torch.randn(size, 2 * size).t()))
        model.register_parameter("table", nn.Parameter(torch.randn(size, 2 * size).t()))
        model.register_buffer("every second", torch.arange(2.0 * size)[::2])
        return model

    model = w8a16.quantize(build())
    assert not model.bias.is_contiguous()  # it stays float
    assert model.table_int8_weights.is_contiguous()
    assert_same_model(w8a16.load(build(), w8a16.save(model, tmp_path)), model)


@pytest.mark.parametrize("length", [230, 300])
def test_names_that_are_too_long(tmp_path, length):
    """The name itself, or the name of the stage, which is longer; the error names the user's path."""
    target = tmp_path / ("x" * length + ".safetensors")
    with pytest.raises(ResourceError) as caught:
        w8a16.save(w8a16.quantize(mlp(16, 16)), target)
    assert str(caught.value) == f"{target}: File name too long"


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ResourceError) as caught:
        w8a16.save(w8a16.quantize(mlp(16, 16)), tmp_path / "taken" / "model")
    assert str(caught.value) == f"{tmp_path}/taken/model: Not a directory"
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_in_the_way_of_the_file(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ResourceError, match=r"model\.safetensors: Is a directory"):
        w8a16.save(w8a16.quantize(mlp(16, 16)), tmp_path)
    assert checksums(tmp_path) == {}
