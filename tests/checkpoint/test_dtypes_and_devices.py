"""The file decides on dtypes; the model, or the caller, decides on devices."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import w8a16
from support.files import TOKENS, Block, assert_same_model, on_meta, saved_block
from support.twins import mlp
from w8a16.checkpoint import open_checkpoint

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("into", ["float32", "float32 skeleton", "float32 int8"])
def test_the_dtype_of_the_file_wins(tmp_path, dtype, into):
    model, file = saved_block(tmp_path, dtype)
    target = {
        "float32": Block,
        "float32 skeleton": lambda: on_meta(Block),
        "float32 int8": lambda: w8a16.quantize(Block()),
    }[into]()
    loaded = w8a16.load(target, file)
    assert_same_model(loaded, model)
    assert loaded.first.weight.dtype == loaded.first.bias.dtype == loaded.norm.weight.dtype == dtype
    assert loaded.first.scales.dtype == torch.float32
    assert loaded(TOKENS).dtype == dtype
    assert torch.equal(loaded(TOKENS), model(TOKENS))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_the_dtype_of_the_float_weight_is_recorded(tmp_path, dtype):
    """The scales are float32 for every dtype, so only the manifest can tell."""
    file = w8a16.save(w8a16.quantize(nn.Linear(16, 8, bias=False, dtype=dtype)), tmp_path)
    manifest = open_checkpoint(file).manifest
    assert manifest.modules[""].weight_dtype == dtype
    assert w8a16.load(nn.Linear(16, 8, bias=False), file).weight_dtype == dtype


def test_mixed_dtypes(tmp_path):
    def build():
        return nn.Sequential(nn.Linear(16, 16, dtype=torch.float16), nn.Linear(16, 16, dtype=torch.float64))

    model = w8a16.quantize(build())
    loaded = w8a16.load(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), w8a16.save(model, tmp_path))
    assert_same_model(loaded, model)
    assert [layer.weight_dtype for layer in loaded] == [torch.float16, torch.float64]


def test_skeletons_go_to_the_cpu_by_default(tmp_path):
    _, file = saved_block(tmp_path)
    loaded = w8a16.load(on_meta(Block), file)
    assert {t.device.type for t in [*loaded.parameters(), *loaded.buffers()]} == {"cpu"}


@pytest.mark.parametrize("device", ["meta", torch.device("meta")])
def test_device_argument(tmp_path, device):
    """The meta device stands in for an accelerator: every stored tensor must arrive there."""
    _, file = saved_block(tmp_path)
    target = Block()
    loaded = w8a16.load(target, file, device=device)
    assert all(tensor.is_meta for tensor in loaded.state_dict().values())
    assert len(loaded.state_dict()) == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_round_trip_on_a_gpu(tmp_path):
    model = w8a16.quantize(mlp()).cuda()
    file = w8a16.save(model, tmp_path)
    assert_same_model(w8a16.load(on_meta(mlp), file, device="cuda"), model)
    assert w8a16.load(mlp().cuda(), file)[0].scales.is_cuda
    assert_same_model(w8a16.load(mlp(), file), model.cpu())


def test_loading_inside_a_device_context(tmp_path):
    """Under `with torch.device("meta")` every torch.empty is without memory; in a process of its own, as
    reading into that kills it."""
    _, file = saved_block(tmp_path)
    code = f"""
        import torch, w8a16
        from support.files import Block, on_meta
        with torch.device("meta"):
            model = w8a16.load(Block(), {str(file)!r})
        assert model.first.int8_weights.device.type == "cpu", model.first.int8_weights.device
        assert model.first.int8_weights.any()
        print("ok")
    """
    tests = str(next(p for p in map(str, sys.path) if p.rstrip("/").endswith("tests")))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n" + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
