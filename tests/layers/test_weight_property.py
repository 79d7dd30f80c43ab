"""Model code reads `layer.weight`: it must look and compute like the weight of an nn.Linear."""

import pytest
import torch
from torch import nn

from support.twins import assert_unchanged, quantized_linear, snapshot
from w8a16 import W8A16LinearLayer
from w8a16.errors import ModuleError

READ_ONLY = (
    "the weight of a W8A16LinearLayer is read-only: it is computed from int8_weights and scales; "
    "call layer.quantize(new_weight), or w8a16.dequantize(model) to get float weights back"
)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_it_is_codes_times_scales_rounded_once(dtype):
    layer = quantized_linear(dtype=dtype)
    exact = layer.int8_weights.double() * layer.scales.double().unsqueeze(1)
    wide = exact if dtype == torch.float64 else exact.float()  # 8 times 24 bits: rounded once to float32
    assert torch.equal(layer.weight, wide.to(dtype))


def test_what_model_code_does_with_it():
    layer = quantized_linear()
    assert isinstance(layer.weight, torch.Tensor)
    assert layer.weight.dtype == torch.float32
    assert layer.weight.device == torch.device("cpu")
    assert layer.weight.shape == layer.weight.size() == (32, 16)
    assert layer.weight.t().shape == (16, 32)
    assert layer.weight.view(2, 16, 16).shape == (2, 16, 16)
    assert layer.weight.data.numel() == 512
    assert not layer.weight.requires_grad
    assert isinstance(layer.weight, nn.Parameter)
    assert hasattr(layer, "weight")
    x = torch.randn(3, 16)
    by_hand = nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(by_hand, layer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(32, 16), nn.Parameter(torch.zeros(32, 16)), None],
    ids=["tensor", "parameter", "None"],
)
def test_assigning_it_is_refused(value):
    layer = quantized_linear()
    before = snapshot(layer)
    with pytest.raises(ModuleError) as caught:
        layer.weight = value
    assert str(caught.value) == READ_ONLY
    assert_unchanged(layer, before)


def test_registering_a_parameter_of_that_name_is_refused():
    with pytest.raises(ModuleError) as caught:
        quantized_linear().register_parameter("weight", nn.Parameter(torch.zeros(32, 16)))
    assert str(caught.value) == READ_ONLY


def test_registering_other_parameters_is_allowed():
    layer = quantized_linear()
    layer.register_parameter("adapter", nn.Parameter(torch.zeros(2, 16)))
    assert [name for name, _ in layer.named_parameters()] == ["adapter"]


def test_it_is_in_no_list_of_tensors():
    layer = quantized_linear()
    names = [*layer.state_dict(), *dict(layer.named_parameters()), *dict(layer.named_buffers())]
    assert "weight" not in names


def test_it_follows_quantize():
    layer = W8A16LinearLayer(16, 32)
    assert layer.weight.eq(0).all()
    layer.quantize(torch.eye(32, 16))
    torch.testing.assert_close(layer.weight, torch.eye(32, 16), rtol=2**-23, atol=0)


def test_parametrizing_it_is_refused_by_torch():
    layer = quantized_linear()
    with pytest.raises(ValueError, match="weight"):
        nn.utils.parametrizations.spectral_norm(layer)
    assert type(layer) is W8A16LinearLayer
