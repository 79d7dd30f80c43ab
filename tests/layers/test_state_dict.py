import io

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from support.twins import assert_unchanged, mlp, quantized_linear, snapshot
from w8a16 import W8A16LinearLayer, quantize


def fresh_copy(layer):
    return W8A16LinearLayer(layer.in_features, layer.out_features, bias=layer.bias is not None)


@pytest.mark.parametrize("bias", [True, False])
def test_round_trip_gives_the_same_output_bits(bias):
    layer, x = quantized_linear(bias=bias), torch.randn(3, 16)
    other = fresh_copy(layer)
    result = other.load_state_dict(layer.state_dict(), strict=True)
    assert result.missing_keys == result.unexpected_keys == []
    assert torch.equal(other(x), layer(x))


def test_loading_copies_into_the_tensors_that_are_there():
    layer = quantized_linear()
    other = fresh_copy(layer)
    tensors = {name: id(buffer) for name, buffer in other.named_buffers()}
    other.load_state_dict(layer.state_dict())
    assert {name: id(buffer) for name, buffer in other.named_buffers()} == tensors
    layer.reset_parameters()
    assert other.int8_weights.ne(0).any(), "the loaded layer still shares memory with the source"


def test_assign_puts_the_given_tensors_into_a_meta_layer():
    layer, x = quantized_linear(), torch.randn(3, 16)
    other = W8A16LinearLayer(16, 32, device="meta")
    other.load_state_dict(layer.state_dict(), assign=True)
    assert other.int8_weights.data_ptr() == layer.int8_weights.data_ptr()
    assert torch.equal(other(x), layer(x))


def test_the_code_minus_128_is_accepted():
    """We never write it, but other tools do, and it is a legal int8 value."""
    layer = quantized_linear()
    state = layer.state_dict()
    state["int8_weights"] = torch.full((32, 16), -128, dtype=torch.int8)
    state["scales"] = torch.full((32,), 0.5)
    layer.load_state_dict(state)
    assert layer.weight.eq(-64).all()
    layer.bias.zero_()
    assert layer(torch.ones(1, 16)).eq(-1024).all()


@pytest.mark.parametrize("scale", [2.0**-149, 2.0**-126, 3.4e38])
def test_every_finite_positive_scale_is_accepted(scale):
    layer = quantized_linear()
    state = {**layer.state_dict(), "scales": torch.full((32,), scale)}
    layer.load_state_dict(state)
    assert torch.equal(layer.scales, state["scales"])


def test_the_bias_follows_the_dtype_of_the_layer_as_in_torch():
    layer = quantized_linear()
    half = fresh_copy(layer).half()
    half.load_state_dict(layer.state_dict())
    assert torch.equal(half.bias, layer.bias.half())


def test_torch_save_and_load_with_weights_only():
    layer, buffer = quantized_linear(), io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    other = fresh_copy(layer)
    other.load_state_dict(state)
    assert_unchanged(other, snapshot(layer))


def test_plain_safetensors(tmp_path):
    model, x = quantize(mlp()), torch.randn(3, 16)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = nn.Sequential(W8A16LinearLayer(16, 32), nn.GELU(), W8A16LinearLayer(32, 8))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(x), model(x))


def test_names_of_a_nested_model():
    assert list(quantize(mlp()).state_dict()) == [
        "0.int8_weights",
        "0.scales",
        "0.bias",
        "2.int8_weights",
        "2.scales",
        "2.bias",
    ]


def test_missing_entries_are_reported_by_torch():
    layer = quantized_linear()
    state = layer.state_dict()
    del state["scales"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"scales\""):
        layer.load_state_dict(state)
    assert layer.load_state_dict(state, strict=False).missing_keys == ["scales"]
