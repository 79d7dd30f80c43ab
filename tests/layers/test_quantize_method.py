import pytest
import torch

from support.twins import assert_layer_is_exact, assert_unchanged, quantized_linear, snapshot
from w8a16 import W8A16LinearLayer
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps, quantize_weight
from w8a16.errors import DtypeError, ShapeError, WeightValueError


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_quantize_fills_the_buffers_by_the_law(dtype):
    weights = torch.randn(32, 16, dtype=dtype)
    layer = W8A16LinearLayer(16, 32)
    assert layer.quantize(weights) is layer
    expected = quantize_weight(weights)
    assert torch.equal(layer.int8_weights, expected.int8_weights)
    assert torch.equal(layer.scales, expected.scales)
    assert layer.weight_dtype == layer.weight.dtype == dtype
    worst = error_in_half_steps(weights, layer.int8_weights, layer.scales).max()
    assert 0.5 < worst <= 1 + HALF_STEP_SLACK


def test_quantize_keeps_bias_and_tensor_objects():
    layer = quantized_linear()
    buffers = {name: id(buffer) for name, buffer in layer.named_buffers()}
    bias = layer.bias.clone()
    layer.quantize(torch.randn(32, 16))
    assert {name: id(buffer) for name, buffer in layer.named_buffers()} == buffers
    assert torch.equal(layer.bias, bias)


def test_a_second_quantize_replaces_the_first():
    weights = torch.randn(2, 32, 16)
    layer = W8A16LinearLayer(16, 32).quantize(weights[0]).quantize(weights[1])
    assert torch.equal(layer.weight, W8A16LinearLayer(16, 32).quantize(weights[1]).weight)
    assert_layer_is_exact(layer, torch.randn(3, 16))


def test_quantizing_the_dequantized_weight_is_stable():
    """The codes are a fixed point; scales may move by a rounding of `127 * s / 127`."""
    layer = quantized_linear(256, 64)
    codes, scales = layer.int8_weights.clone(), layer.scales.clone()
    layer.quantize(layer.weight)
    assert torch.equal(layer.int8_weights, codes)
    torch.testing.assert_close(layer.scales, scales, rtol=2**-22, atol=0)


def test_quantize_takes_a_parameter_and_keeps_no_link_to_it():
    weight = torch.nn.Parameter(torch.randn(32, 16))
    layer = W8A16LinearLayer(16, 32).quantize(weight)
    before = layer.weight
    with torch.no_grad():
        weight.zero_()
    assert not layer.weight.requires_grad
    assert torch.equal(layer.weight, before)


def test_quantize_in_inference_mode_then_training_through_the_layer():
    layer = W8A16LinearLayer(16, 32)
    with torch.inference_mode():
        layer.quantize(torch.randn(32, 16))
    assert not any(buffer.is_inference() for buffer in layer.buffers())
    x = torch.randn(2, 16, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad.norm() > 0


def test_quantize_on_the_meta_device_sets_the_dtype():
    layer = W8A16LinearLayer(16, 32, device="meta").quantize(
        torch.empty(32, 16, device="meta", dtype=torch.bfloat16)
    )
    assert layer.weight.is_meta
    assert layer.weight.dtype == torch.bfloat16


def nan_at(row, column, value=float("nan")):
    weights = torch.randn(32, 16)
    weights[row, column] = value
    return weights


@pytest.mark.parametrize(
    "weights, error, text",
    [
        (
            torch.zeros(16, 32),
            ShapeError,
            "weights: expected [out_features, in_features] = [32, 16], got [16, 32]",
        ),
        (torch.zeros(32), ShapeError, "expected a weight [N, K] with two dimensions, got [32]"),
        (
            torch.zeros(1, 32, 16),
            ShapeError,
            "expected a weight [N, K] with two dimensions, got [1, 32, 16]",
        ),
        (
            torch.zeros(32, 16, dtype=torch.int8),
            DtypeError,
            "expected a float16, bfloat16, float32 or float64 weight to quantize, got torch.int8",
        ),
        (
            torch.zeros(32, 16, dtype=torch.complex64),
            DtypeError,
            "expected a float16, bfloat16, float32 or float64 weight to quantize, got torch.complex64",
        ),
        (
            torch.zeros(32, 16).to_sparse(),
            DtypeError,
            "expected a dense weight, got layout torch.sparse_coo; call .to_dense() first",
        ),
        ([[1.0] * 16] * 32, DtypeError, "expected a tensor of float weights, got list"),
        (nan_at(3, 5), WeightValueError, "1 of 512 values is NaN or Inf, the first at [3, 5] (nan)"),
        (
            nan_at(slice(7, 9), 2, -torch.inf),
            WeightValueError,
            "2 of 512 values are NaN or Inf, the first at [7, 2] (-inf)",
        ),
        (
            torch.full((32, 16), 1e300, dtype=torch.float64),
            WeightValueError,
            "the largest value 1e+300 needs a scale beyond float32 (largest / 127 > 3.4e38)",
        ),
        (
            torch.empty(32, 16, device="meta"),
            DtypeError,
            "weights: expected a tensor on cpu for this layer, got one on meta; "
            "call layer.to_empty(device=...) to leave the meta device",
        ),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:24].replace(" ", "_"),
)
def test_a_refused_weight_changes_nothing(weights, error, text):
    layer = quantized_linear()
    before, dtype = snapshot(layer), layer.weight_dtype
    with pytest.raises(error) as caught:
        layer.quantize(weights)
    assert str(caught.value) == text
    assert_unchanged(layer, before)
    assert layer.weight_dtype == dtype


def test_a_real_weight_for_a_meta_layer_is_refused():
    layer = W8A16LinearLayer(16, 32, device="meta")
    with pytest.raises(DtypeError) as caught:
        layer.quantize(torch.randn(32, 16))
    assert str(caught.value) == (
        "weights: expected a tensor on meta for this layer, got one on cpu; "
        "call layer.to_empty(device=...) to leave the meta device"
    )
    assert layer.int8_weights.is_meta
