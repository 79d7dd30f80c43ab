"""`w8a16 quantize --recipe`: groups and outliers from files to files, and what is said of them."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import w8a16
from support.files import read_raw, write_raw
from support.streaming import stored_state, write_checkpoint
from w8a16 import Recipe

RECIPE = Recipe(group_size={"first": 32}, outliers={"second": 3})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 96)
        self.second = nn.Linear(96, 64)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def test_verify_and_restore(net, run, tmp_path):
    write_checkpoint(stored_state(net), tmp_path / "float")
    RECIPE.save(tmp_path / "recipe.json")
    done = run("quantize", tmp_path / "float", tmp_path / "int8", "--recipe", tmp_path / "recipe.json")
    assert done.code == 0, done.err
    assert run("verify", tmp_path / "int8", "--source", tmp_path / "float").code == 0
    shown = run("inspect", tmp_path / "int8").out
    assert "groups of 32" in shown
    assert run("dequantize", tmp_path / "int8", tmp_path / "back").code == 0
    restored = load_file(tmp_path / "back" / "model.safetensors")
    twin = w8a16.dequantize(w8a16.load(Net(), tmp_path / "int8"))
    assert restored.keys() == twin.state_dict().keys()
    for key, tensor in twin.state_dict().items():
        assert torch.equal(restored[key], tensor), key


def test_verify_finds_an_outlier_that_was_changed(net, run, tmp_path):
    write_checkpoint(stored_state(net), tmp_path / "float")
    stream_to = tmp_path / "int8"
    RECIPE.save(tmp_path / "recipe.json")
    assert run("quantize", tmp_path / "float", stream_to, "--recipe", tmp_path / "recipe.json").code == 0
    file = stream_to / "model.safetensors"
    header, data = read_raw(file)
    start, _ = header["second.outlier_values"]["data_offsets"]
    changed = bytearray(data)
    changed[start + 2] ^= 1  # a middle bit of the first value's fraction
    write_raw(file, header, bytes(changed))
    result = run("verify", stream_to, "--source", tmp_path / "float")
    assert result.code == 3
    assert "second.outlier_values" in result.out + result.err  # its checksum
    assert "second.int8_weights" in result.out + result.err  # and the weight itself


def test_a_recipe_and_separate_rules(net, run, tmp_path):
    write_checkpoint(stored_state(net), tmp_path / "float")
    RECIPE.save(tmp_path / "recipe.json")
    result = run(
        *("quantize", tmp_path / "float", tmp_path / "int8", "--exclude", "second"),
        *("--recipe", tmp_path / "recipe.json"),
    )
    assert result.code == 2
    assert "expected a recipe, or include, exclude and kinds" in result.err
    assert not (tmp_path / "int8").exists()


def test_a_recipe_that_cannot_be_followed(net, run, tmp_path):
    write_checkpoint(stored_state(net), tmp_path / "float")
    Recipe(group_size={"second": 64}).save(tmp_path / "recipe.json")
    result = run("quantize", tmp_path / "float", tmp_path / "int8", "--recipe", tmp_path / "recipe.json")
    assert result.code == 2
    assert "expected a multiple of 64 elements in a row, got 96" in " ".join(result.err.split())
