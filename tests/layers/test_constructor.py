import inspect

import pytest
import torch
from torch import nn

from support.twins import quantized_linear
from w8a16 import W8A16LinearLayer


def test_signature_is_that_of_nn_linear():
    ours = inspect.signature(W8A16LinearLayer.__init__).parameters.values()
    theirs = inspect.signature(nn.Linear.__init__).parameters.values()
    assert [(p.name, p.default, p.kind) for p in ours] == [(p.name, p.default, p.kind) for p in theirs]


def test_it_is_an_nn_linear():
    layer = W8A16LinearLayer(16, 32)
    assert isinstance(layer, nn.Linear)
    assert (layer.in_features, layer.out_features) == (16, 32)


def test_buffers_and_no_parameters():
    layer = W8A16LinearLayer(16, 32, dtype=torch.bfloat16)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in layer.named_buffers()} == {
        "int8_weights": (torch.int8, (32, 16)),
        "scales": (torch.float32, (32,)),
        "bias": (torch.bfloat16, (32,)),
    }
    assert list(layer.parameters()) == []
    assert list(layer.state_dict()) == ["int8_weights", "scales", "bias"]


def test_a_fresh_layer_is_deterministic_and_gives_zeros():
    torch.manual_seed(1)
    first = W8A16LinearLayer(16, 32)
    state = torch.get_rng_state()
    second = W8A16LinearLayer(16, 32)
    assert torch.equal(state, torch.get_rng_state()), "the constructor used random numbers"
    for layer in (first, second):
        assert layer.int8_weights.eq(0).all()
        assert layer.scales.eq(1).all()
        assert layer.bias.eq(0).all()
    output = first(torch.randn(1, 6, 16))
    assert output.shape == (1, 6, 32)
    assert output.dtype == torch.float32
    assert output.eq(0).all()


def test_reset_parameters_returns_to_the_fresh_state():
    layer = quantized_linear()
    layer.reset_parameters()
    fresh = W8A16LinearLayer(16, 32).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in layer.state_dict().items())


def test_without_bias():
    layer = W8A16LinearLayer(16, 32, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["int8_weights", "scales"]
    assert layer(torch.randn(2, 16)).shape == (2, 32)


def test_repr_shows_the_arguments_and_the_weight_dtype():
    assert repr(W8A16LinearLayer(16, 32, bias=False, dtype=torch.float16)) == (
        "W8A16LinearLayer(in_features=16, out_features=32, bias=False, weight_dtype=torch.float16)"
    )


def test_device_argument():
    layer = W8A16LinearLayer(16, 32, device="meta")
    assert {buffer.device.type for buffer in layer.buffers()} == {"meta"}
    assert layer.weight.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_argument_is_for_bias_and_weight_only(dtype):
    layer = W8A16LinearLayer(16, 32, dtype=dtype)
    assert layer.bias.dtype == layer.weight.dtype == dtype
    assert layer.scales.dtype == torch.float32


def test_default_dtype_is_that_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        layer = W8A16LinearLayer(4, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert layer.bias.dtype == layer.weight_dtype == torch.float64
    assert layer.scales.dtype == torch.float32


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (0, 0)])
def test_empty_layers_are_legal(shape):
    k, n = shape
    layer = W8A16LinearLayer(k, n)
    assert layer(torch.ones(3, k)).shape == (3, n)
    assert layer.weight.shape == (n, k)


def test_a_layer_made_in_inference_mode_can_be_trained_through():
    with torch.inference_mode():
        layer = W8A16LinearLayer(16, 32)
    layer.quantize(torch.randn(32, 16))
    x = torch.randn(2, 16, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.norm() > 0
