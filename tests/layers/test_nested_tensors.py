"""Batches of sequences of different lengths, as nn.TransformerEncoder makes them from a padding mask."""

import pytest
import torch
from torch import nn

from support.twins import make_twin, quantized_linear
from w8a16.errors import ShapeError

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str),
]


def parts():
    return [torch.randn(3, 16), torch.randn(5, 16), torch.randn(1, 16)]


@pytest.mark.parametrize("bias", [True, False])
def test_every_component_is_what_it_is_alone(layout, bias):
    layer, components = quantized_linear(bias=bias), parts()
    output = layer(torch.nested.nested_tensor(components, layout=layout))
    assert output.layout == layout
    for component, result in zip(components, output.unbind(), strict=True):
        torch.testing.assert_close(result, layer(component), rtol=0, atol=1e-5)


def test_the_result_can_be_added_to_the_input(layout):
    """A residual connection: in the jagged layout that needs the very same offsets."""
    layer, components = quantized_linear(16, 16), parts()
    nested = torch.nested.nested_tensor(components, layout=layout)
    total = nn.functional.relu(layer(nested)) + nested
    for component, result in zip(components, total.unbind(), strict=True):
        torch.testing.assert_close(result, layer(component).relu() + component, rtol=0, atol=1e-5)


def test_gradients(layout):
    layer, components = quantized_linear(), parts()
    twin, grads = make_twin(layer), []
    for module in (layer, twin):
        leaves = [component.clone().requires_grad_() for component in components]
        output = module(torch.nested.as_nested_tensor(leaves, layout=layout))
        sum(result.square().sum() for result in output.unbind()).backward()
        grads.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*grads, strict=True):
        assert theirs.norm() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_wrong_width(layout):
    with pytest.raises(ShapeError, match="expected a last dimension of 16"):
        quantized_linear()(torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(2, 8)], layout=layout))
