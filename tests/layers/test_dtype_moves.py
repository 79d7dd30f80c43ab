"""Codes stay int8 and scales stay float32, bit for bit, whatever the rest of the model is cast to."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_layer_is_exact, quantized_linear

MOVES = {
    "half": (lambda m: m.half(), torch.float16),
    "bfloat16": (lambda m: m.bfloat16(), torch.bfloat16),
    "float": (lambda m: m.float(), torch.float32),
    "double": (lambda m: m.double(), torch.float64),
    "to(dtype)": (lambda m: m.to(torch.float16), torch.float16),
    "to(device, dtype)": (lambda m: m.to("cpu", torch.bfloat16), torch.bfloat16),
    "to(tensor)": (lambda m: m.to(torch.ones(1, dtype=torch.float64)), torch.float64),
    "type": (lambda m: m.type(torch.float16), torch.float16),
    "type(str)": (lambda m: m.type("torch.DoubleTensor"), torch.float64),
}


@pytest.mark.parametrize("start", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("move", MOVES)
def test_only_bias_and_weight_follow(move, start):
    apply, dtype = MOVES[move]
    model = nn.Sequential(quantized_linear(dtype=start))
    layer = model[0]
    codes, scales = layer.int8_weights.clone(), layer.scales.clone()
    bias = layer.bias.to(dtype)
    assert apply(model) is model
    assert layer.int8_weights.dtype == torch.int8
    assert torch.equal(layer.int8_weights, codes)
    assert layer.scales.dtype == torch.float32
    assert torch.equal(layer.scales, scales)
    assert torch.equal(layer.bias, bias)
    assert layer.weight.dtype == layer.weight_dtype == layer.bias.dtype == dtype


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_layer_still_obeys_the_law(move):
    apply, dtype = MOVES[move]
    layer = apply(quantized_linear(48, 32))
    x = torch.randn(4, 48, dtype=dtype)
    exact = x.double() @ layer.int8_weights.double().T * layer.scales.double() + layer.bias.double()
    output = layer(x)
    assert output.dtype == dtype
    tolerance = w8a16.core.output_tolerance(x, layer.int8_weights, layer.scales, layer.bias)
    assert tolerance.max() < exact.abs().max()
    assert ((output.double() - exact).abs() <= tolerance).all()


def test_a_round_trip_through_half_precision_loses_nothing_of_the_weight():
    """A float layer would come back with rounded weights; here codes and scales never change."""
    layer = quantized_linear(bias=False)
    weight, x = layer.weight, torch.randn(3, 16)
    before = layer(x)
    layer.half().bfloat16().float()
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer(x), before)
    assert_layer_is_exact(layer, x)


def test_integer_dtypes_are_refused_by_torch_and_change_nothing():
    layer = quantized_linear()
    with pytest.raises(TypeError, match="floating point"):
        layer.to(torch.int8)
    assert layer.weight_dtype == torch.float32


def test_moves_accept_memory_formats_and_non_blocking():
    layer = quantized_linear()
    weight = layer.weight
    layer.to("cpu", non_blocking=True).to(memory_format=torch.channels_last)
    assert torch.equal(layer.weight, weight)


def test_share_memory():
    layer = quantized_linear().share_memory()
    assert all(buffer.is_shared() for buffer in layer.buffers())
    assert layer.weight_dtype == torch.float32


def test_moves_in_inference_mode_leave_a_layer_that_can_be_trained_through():
    layer = quantized_linear()
    with torch.inference_mode():
        layer.half().float()
    x = torch.randn(2, 16, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad.norm() > 0


class TestMeta:
    def test_to_meta_keeps_shapes_and_dtypes(self):
        layer = quantized_linear(dtype=torch.bfloat16).to("meta")
        assert {name: (b.device.type, b.dtype, tuple(b.shape)) for name, b in layer.named_buffers()} == {
            "int8_weights": ("meta", torch.int8, (32, 16)),
            "scales": ("meta", torch.float32, (32,)),
            "bias": ("meta", torch.bfloat16, (32,)),
        }
        assert layer.weight_dtype == torch.bfloat16

    def test_dtype_moves_on_the_meta_device(self):
        layer = quantized_linear().to("meta").half()
        assert layer.weight.dtype == layer.bias.dtype == torch.float16
        assert layer.scales.dtype == torch.float32
        assert layer(torch.empty(5, 16, device="meta")).shape == (5, 32)

    def test_to_empty_and_load_bring_the_layer_back(self):
        layer, x = quantized_linear(), torch.randn(3, 16)
        state, before = layer.state_dict(), layer(x)
        restored = w8a16.W8A16LinearLayer(16, 32, device="meta").to_empty(device="cpu")
        restored.load_state_dict(state)
        assert restored.weight_dtype == torch.float32
        assert torch.equal(restored(x), before)

    def test_leaving_the_meta_device_with_to_is_refused_like_in_torch(self):
        with pytest.raises(NotImplementedError, match="to_empty"):
            w8a16.W8A16LinearLayer(16, 32, device="meta").to("cpu")
