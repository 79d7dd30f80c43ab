"""A checkpoint that does not fit is refused as a whole: one error with every mismatch, nothing changed."""

import sys

import pytest
import torch
from torch import nn

import w8a16
from support.files import Block, Untouched, edit_manifest, on_meta, saved_block
from support.twins import mlp
from w8a16.errors import CheckpointError, ResourceError


def refused(model, file):
    """Load into a model that does not fit; return the lines of the error."""
    untouched = Untouched(model)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(model, file)
    untouched.check()
    head, *lines = str(caught.value).splitlines()
    assert head == f"{file} does not fit {type(model).__name__}:"
    return [line.strip() for line in lines]


class OtherBlock(Block):
    """Differs from `Block` in every way a model can."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(16, 31)
        self.first = nn.Linear(32, 63)
        self.second = nn.Conv1d(64, 8, 1, bias=False)
        self.counter = torch.tensor(7.0)
        self.extra = nn.LayerNorm(2)
        del self.norm


@pytest.mark.parametrize("skeleton", [False, True])
def test_every_mismatch_is_named_at_once(tmp_path, skeleton):
    _, file = saved_block(tmp_path)
    lines = refused(on_meta(OtherBlock) if skeleton else OtherBlock(), file)
    for line in (
        "first: expected a weight [63, 32], found [64, 32]",
        "second: expected a Linear, found a Conv1d",
        "embedding: expected a weight [16, 31], found [16, 32]",
        "first.bias: expected shape [63], found [64]",
        "counter: expected torch.float32, found torch.int64",
        "extra.weight: missing in the checkpoint",
        "extra.bias: missing in the checkpoint",
        "norm.weight: unexpected, not in the model",
        "norm.bias: unexpected, not in the model",
    ):
        assert line in lines
    assert len(lines) == 9


def test_int8_in_the_model_but_float_in_the_file(tmp_path):
    file = w8a16.save(w8a16.quantize(Block(), exclude="second"), tmp_path)
    lines = refused(w8a16.quantize(Block()), file)
    assert "second: int8 in the model, float in the checkpoint" in lines
    assert all(line.startswith("second") for line in lines)


def test_int8_in_the_file_but_no_such_module_in_the_model(tmp_path):
    file = w8a16.save(w8a16.quantize(mlp(16, 16, 16)), tmp_path)
    lines = refused(mlp(16, 16), file)
    assert "2: int8 in the checkpoint, not in the model (expected a Linear)" in lines
    assert all(line.startswith("2") for line in lines)


def test_int8_in_the_file_of_another_kind(tmp_path):
    file = w8a16.save(w8a16.quantize(nn.Sequential(nn.Linear(16, 8, bias=False))), tmp_path)
    assert refused(nn.Sequential(nn.Embedding(8, 16)), file) == ["0: expected a Linear, found a Embedding"]
    assert refused(w8a16.quantize(nn.Sequential(nn.Embedding(8, 16))), file) == [
        "0: expected a W8A16LinearLayer, found a W8A16Embedding"
    ]


def test_another_weight_of_the_same_module(tmp_path):
    """Which parameters of a module are int8 is part of what was saved."""

    class Tables(nn.Module):
        def __init__(self, *names):
            super().__init__()
            for name in names:
                setattr(self, name, nn.Parameter(torch.randn(4, 16)))

    file = w8a16.save(w8a16.quantize(Tables("rows", "columns"), exclude="rows"), tmp_path)
    lines = refused(Tables("rows", "others"), file)
    assert lines[0] == "the root: expected a Module with columns, found a Tables"
    assert "others: missing in the checkpoint" in lines
    lines = refused(w8a16.quantize(Tables("rows", "columns")), file)
    assert lines[0] == "the root: expected int8 weights ['columns', 'rows'], found ['columns']"


def test_a_subclass_takes_the_codes_of_its_parent_class(tmp_path):
    class Scaled(nn.Linear):
        def forward(self, input):
            return super().forward(input) * 2

    plain, special = w8a16.quantize(nn.Sequential(nn.Linear(16, 16))), nn.Sequential(Scaled(16, 16))
    w8a16.load(special, w8a16.save(plain, tmp_path))
    assert isinstance(special[0], Scaled)
    x = torch.randn(3, 16)
    assert torch.equal(special(x), plain(x) * 2)


@pytest.mark.parametrize("bias_in", ["file", "model"])
def test_bias_on_one_side_only(tmp_path, bias_in):
    file = w8a16.save(w8a16.quantize(mlp(16, 16, bias=bias_in == "file")), tmp_path)
    expected = {
        "file": ["0.bias: unexpected, not in the model"],
        "model": ["0.bias: missing in the checkpoint"],
    }
    assert refused(mlp(16, 16, bias=bias_in == "model"), file) == expected[bias_in]


def test_root_is_called_the_root(tmp_path):
    file = w8a16.save(w8a16.quantize(nn.Linear(16, 16)), tmp_path)
    assert (
        refused(nn.Linear(16, 8, bias=False), file)[0]
        == "the root: expected a weight [8, 16], found [16, 16]"
    )


def test_state_that_is_no_tensor_is_missing_in_the_file(tmp_path):
    class Stateful(nn.Sequential):
        def get_extra_state(self):
            return {"steps": 3}

        def set_extra_state(self, state):
            raise AssertionError("nothing may be set")

    file = w8a16.save(w8a16.quantize(mlp(16, 16)), tmp_path)
    assert refused(Stateful(nn.Linear(16, 16)), file) == ["_extra_state: missing in the checkpoint"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 0.0])
def test_wrong_scales_are_found_before_anything_is_changed(tmp_path, value):
    """They are inside the data, so only reading finds them; the model must still be untouched."""
    model = w8a16.quantize(Block())
    model.second.scales[5] = value
    file = w8a16.save(model, tmp_path)
    target = Block()
    untouched = Untouched(target)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(target, file)
    assert str(caught.value) == (
        f"{file}: second.scales: expected finite positive scales, found {value} at [5]"
    )
    untouched.check()


def test_a_file_cut_after_its_header_was_checked(tmp_path, monkeypatch):
    """Another process truncates it while we read: a clean error, and the model is untouched."""
    _, file = saved_block(tmp_path)
    module = sys.modules["w8a16.checkpoint.load"]  # the package holds the function under this name
    real = module.open_checkpoint

    def cut(path):
        checkpoint = real(path)
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size - 100)
        return checkpoint

    monkeypatch.setattr(module, "open_checkpoint", cut)
    target = Block()
    untouched = Untouched(target)
    with pytest.raises(ResourceError, match=r"block\.safetensors: was changed or exchanged after its header"):
        w8a16.load(target, file)
    untouched.check()


def test_names_from_the_file_are_escaped(tmp_path):
    def rename(manifest):
        manifest["modules"] = {"evil\x1b[31m\n": manifest["modules"].pop("first"), **manifest["modules"]}

    _, file = saved_block(tmp_path)
    edit_manifest(file, rename)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(Block(), file)
    assert "\x1b" not in str(caught.value)
    assert "evil\\x1b[31m\\n" in str(caught.value)
