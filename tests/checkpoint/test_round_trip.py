"""What is saved comes back to the bit, whatever kind of model it is loaded into."""

import pytest
import torch
from torch import nn

import w8a16
from support.files import TOKENS, Block, assert_same_model, on_meta, saved_block
from support.twins import mlp
from w8a16 import W8A16LinearLayer

INTO = {
    "float": Block,
    "skeleton": lambda: on_meta(Block),
    "int8": lambda: w8a16.quantize(Block()),
    "int8 skeleton": lambda: w8a16.quantize(on_meta(Block)),
    "half int8": lambda: w8a16.quantize(Block(), exclude="second"),
}


@pytest.mark.parametrize("into", INTO)
def test_loaded_model_equals_the_saved_one(tmp_path, into):
    model, file = saved_block(tmp_path)
    loaded = w8a16.load(INTO[into](), file)
    assert_same_model(loaded, model)
    assert [type(m) for m in (loaded.first, loaded.second)] == [W8A16LinearLayer] * 2
    assert torch.equal(loaded(TOKENS), model(TOKENS))


def test_load_fills_the_model_in_place(tmp_path):
    """The same root and the same layers: references that others hold stay valid."""
    _, file = saved_block(tmp_path)
    target = Block()
    first = target.first
    assert w8a16.load(target, file) is target
    assert target.first is first


@pytest.mark.parametrize("build", [lambda: nn.Linear(16, 8), lambda: on_meta(lambda: nn.Linear(16, 8))])
def test_root_that_is_itself_a_linear(tmp_path, build):
    layer = w8a16.quantize(nn.Linear(16, 8))
    loaded = w8a16.load(build(), w8a16.save(layer, tmp_path))
    assert_same_model(loaded, layer)
    assert loaded.extra_repr() == layer.extra_repr()


def test_a_loaded_model_can_be_saved_again_to_the_same_bytes(tmp_path):
    _, file = saved_block(tmp_path)
    again = w8a16.save(w8a16.load(on_meta(Block), file), tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


def test_saving_changes_nothing_in_the_model(tmp_path):
    model = w8a16.quantize(Block())
    expected = model(TOKENS)
    w8a16.save(model, tmp_path)
    assert torch.equal(model(TOKENS), expected)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_path_of_a_folder_and_of_its_file_are_the_same(tmp_path):
    model = w8a16.quantize(mlp())
    file = w8a16.save(model, tmp_path / "made" / "on the way")
    assert file == tmp_path / "made" / "on the way" / "model.safetensors"
    assert_same_model(w8a16.load(mlp(), file), model)
    assert_same_model(w8a16.load(mlp(), str(file.parent)), model)


def test_a_loaded_model_stands_for_the_same_float_weights(tmp_path):
    model, file = saved_block(tmp_path)
    assert_same_model(w8a16.dequantize(w8a16.load(on_meta(Block), file)), w8a16.dequantize(model))


def test_parameters_stay_trainable(tmp_path):
    _, file = saved_block(tmp_path)
    target = Block()
    target.norm.bias.requires_grad_(False)
    w8a16.load(target, file)
    assert {name for name, p in target.named_parameters() if p.requires_grad} == {"norm.weight"}


def test_weights_that_stayed_float_stay_trainable(tmp_path):
    model = w8a16.quantize(Block(), exclude="embedding")
    loaded = w8a16.load(Block(), w8a16.save(model, tmp_path))
    assert_same_model(loaded, model)
    assert type(loaded.embedding) is nn.Embedding
    assert loaded.embedding.weight.requires_grad


def test_codes_of_minus_128_are_accepted(tmp_path):
    """We never write it, but other tools' int8 files hold it, and it is an honest number."""
    layer = w8a16.quantize(nn.Linear(16, 8))
    layer.int8_weights[3, 5] = -128
    assert_same_model(w8a16.load(nn.Linear(16, 8), w8a16.save(layer, tmp_path)), layer)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (5, 0)])
def test_tensors_without_elements(tmp_path, shape):
    def build():
        model = mlp()
        model.register_parameter("empty", nn.Parameter(torch.empty(shape)))
        return model

    model = w8a16.quantize(build())
    assert_same_model(w8a16.load(build(), w8a16.save(model, tmp_path)), model)
