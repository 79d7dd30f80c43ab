"""Twins: a quantized model beside the same model with the dequantized float weights.

Both stand for the same numbers, `q * s`, so their outputs may differ by the rounding of float32
arithmetic only. The quantization error is in both, which is why the tolerance can be tight.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import w8a16
from w8a16.core import output_tolerance
from w8a16.layers import QuantizedModule, W8A16LinearLayer

MODEL_TOLERANCE = 1e-5
"""Relative to the norm of the output: about a hundred float32 roundings, a thousandth of a code."""


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    """Linear layers with a GELU between them: the smallest model in which layers feed each other."""
    widths = widths or (16, 32, 8)
    layers: list[nn.Module] = []
    for k, n in itertools.pairwise(widths):
        layers += [nn.Linear(k, n, bias=bias), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def quantized_linear(in_features: int = 16, out_features: int = 32, **options: Any) -> W8A16LinearLayer:
    """A layer with random codes, scales and bias."""
    layer = w8a16.quantize(nn.Linear(in_features, out_features, **options))
    assert isinstance(layer, W8A16LinearLayer)
    return layer


def make_twin(model: nn.Module) -> nn.Module:
    """The float model that holds exactly what the quantized `model` stands for."""
    assert count_int8(model) > 0, "a model without int8 layers equals its twin trivially"
    twin = w8a16.dequantize(copy.deepcopy(model))
    assert count_int8(twin) == 0
    return twin


def quantize_with_twin(model: nn.Module, **options: Any) -> tuple[nn.Module, nn.Module]:
    """Quantize `model` in place; return it and its twin."""
    model = w8a16.quantize(model, **options)
    return model, make_twin(model)


def count_int8(model: nn.Module) -> int:
    """How many distinct int8 modules a model has."""
    return sum(isinstance(module, QuantizedModule) for module in model.modules())


def assert_equals_twin(
    model: nn.Module, twin: nn.Module, inputs: Any, tolerance: float = MODEL_TOLERANCE
) -> None:
    """Run both on the same inputs (a tensor, a tuple, or a dict of keywords) and compare every output."""
    outputs, expected = call(model, inputs), call(twin, inputs)
    assert_same_outputs(outputs, expected, tolerance)


def call(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All float tensors in the output of `model`, with the same random numbers at every call."""
    torch.manual_seed(1234)
    if isinstance(inputs, Mapping):
        return float_tensors(model(**inputs))
    return float_tensors(model(*inputs) if isinstance(inputs, tuple) else model(inputs))


def assert_same_outputs(outputs: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Compare tensors by the norm of their difference, relative to the norm of what is expected."""
    assert len(outputs) == len(expected) > 0
    for output, reference in zip(outputs, expected, strict=True):
        assert output.dtype == reference.dtype
        assert output.shape == reference.shape
        size = reference.double().norm()
        assert 0 < size < torch.inf, "nothing to compare"
        error = (output.double() - reference.double()).norm() / size
        assert error <= tolerance, f"relative error {error:.2e}, allowed {tolerance:.0e}"


def assert_layer_is_exact(layer: W8A16LinearLayer, input: Tensor) -> None:
    """Hold one layer, and its float twin, to the rounding bound around `x q^T s + b` in float64."""
    exact = input.double() @ layer.int8_weights.double().T * layer.scales.double()
    if layer.bias is not None:
        exact = exact + layer.bias.double()
    stored = (input, layer.int8_weights, layer.scales, layer.bias)
    twin = make_twin(layer)
    with torch.no_grad():
        pairs = ((layer(input), 0.0), (twin(input), 2.0**-24))
    for output, roundoff in pairs:
        tolerance = output_tolerance(*stored, weight_roundoff=roundoff)
        assert output.dtype == input.dtype
        assert tolerance.max() < exact.abs().max(), "the tolerance would accept zeros"
        assert ((output.double() - exact).abs() <= tolerance).all()


def float_tensors(output: Any) -> list[Tensor]:
    """The float tensors of a nested output, in order; caches and other objects are left out."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in float_tensors(value)]
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in float_tensors(value)]
    return []


def storage_bytes(model: nn.Module) -> int:
    """Bytes of the distinct storages behind all parameters and buffers: what the memory really holds."""
    storages = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr() or id(tensor)] = storage.nbytes()
    return sum(storages.values())


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict, to compare with later."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Every entry of the state dict is what `snapshot` saw: same names, dtypes and bits."""
    now = model.state_dict()
    assert list(now) == list(before)
    for name, tensor in before.items():
        assert now[name].dtype == tensor.dtype, name
        torch.testing.assert_close(now[name], tensor, rtol=0, atol=0, equal_nan=True, msg=name)
