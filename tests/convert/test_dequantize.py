import copy

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, mlp, quantized_linear
from w8a16.core import half_step_bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_within_half_a_step_of_the_original(dtype):
    model = mlp(48, 64, 8).to(dtype)
    original = copy.deepcopy(model)
    w8a16.quantize(model)
    scales = {name: model[int(name)].scales.clone() for name in "02"}
    assert w8a16.dequantize(model) is model
    for name, scale in scales.items():
        ours, theirs = model[int(name)].weight, original[int(name)].weight
        assert ours.dtype == dtype
        # The product is rounded to the dtype of the weight, by at most half a unit of its last place.
        rounding = theirs.double().abs() * torch.finfo(dtype).eps
        error = (ours.double() - theirs.double()).abs()
        assert (error <= half_step_bound(scale)[:, None] + rounding).all()
        assert error.max() > 0
        assert torch.equal(model[int(name)].bias, original[int(name)].bias)


def test_classes_names_and_order_are_those_of_the_float_model():
    model, original = mlp(), mlp()
    w8a16.dequantize(w8a16.quantize(model))
    assert [type(m) for m in model.modules()] == [type(m) for m in original.modules()]
    assert list(model.state_dict()) == list(original.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in original.named_parameters()]
    assert list(model.buffers()) == []
    assert set(vars(model[0])) == set(vars(original[0]))
    assert repr(model) == repr(original)
    original.load_state_dict(model.state_dict())


def test_parameters_are_trainable_leaves():
    model = w8a16.dequantize(w8a16.quantize(mlp()))
    model(torch.randn(3, 16)).sum().backward()
    assert all(p.requires_grad and p.is_leaf and p.grad is not None for p in model.parameters())


def test_no_memory_is_shared_with_a_quantized_copy():
    model = w8a16.quantize(mlp())
    float_model = w8a16.dequantize(copy.deepcopy(model))
    bias = model[0].bias.clone()
    with torch.no_grad():
        for parameter in float_model.parameters():
            parameter.zero_()
    assert torch.equal(model[0].bias, bias)
    assert model[0].weight.ne(0).any()


def test_without_bias():
    layer = w8a16.dequantize(quantized_linear(bias=False))
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert "bias" in layer._parameters


def test_the_dtype_it_was_moved_to():
    model = w8a16.dequantize(w8a16.quantize(mlp()).half())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_float_models_and_float_parts_are_left_alone():
    model = mlp()
    parameters = [id(parameter) for parameter in model.parameters()]
    assert w8a16.dequantize(model) is model
    assert [id(parameter) for parameter in model.parameters()] == parameters
    w8a16.dequantize(w8a16.quantize(model, include="0"))
    assert [id(parameter) for parameter in model[2].parameters()] == parameters[2:]


def test_ties_come_back():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight, second.bias = first.weight, first.bias
    model = w8a16.dequantize(w8a16.quantize(nn.Sequential(first, nn.ReLU(), second)))
    assert first.weight is second.weight
    assert first.bias is second.bias
    assert len(list(model.parameters())) == 2


def test_layers_that_share_codes_but_not_the_dtype_are_untied():
    """One Parameter cannot have two dtypes; both must still hold the right values."""
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight = first.weight
    model = w8a16.quantize(nn.ModuleList([first, second]))
    second.half()
    w8a16.dequantize(model)
    assert (first.weight.dtype, second.weight.dtype) == (torch.float32, torch.float16)
    assert torch.equal(first.weight.half(), second.weight)


def test_the_training_flag_and_a_second_quantize():
    model = w8a16.quantize(mlp()).eval()
    x = torch.randn(3, 16)
    before = model(x)
    w8a16.quantize(w8a16.dequantize(model))
    assert not model.training
    assert_equals_twin(model, w8a16.dequantize(copy.deepcopy(model)), x)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-6)


def test_fresh_layers_become_zero_weights():
    layer = w8a16.dequantize(w8a16.W8A16LinearLayer(16, 8))
    assert type(layer) is nn.Linear
    assert layer.weight.eq(0).all()
