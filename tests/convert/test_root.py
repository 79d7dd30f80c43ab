"""The model itself may be the layer: the object stays the same one, so every reference to it is converted."""

import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_layer_is_exact, make_twin, quantized_linear


def test_the_object_stays_and_its_class_changes():
    layer = nn.Linear(16, 32)
    elsewhere = [layer]
    assert w8a16.quantize(layer) is layer
    assert type(layer) is w8a16.W8A16LinearLayer
    assert elsewhere[0] is layer
    assert_layer_is_exact(layer, torch.randn(3, 16))


def test_its_row_has_the_plain_name():
    (row,) = w8a16.plan(nn.Linear(16, 32)).rows
    assert row.name == "weight"
    assert w8a16.plan(quantized_linear()).rows[0].name == "weight"


def test_patterns_name_the_weight_or_the_class():
    for pattern in ("weight", "*", nn.Linear):
        assert type(w8a16.quantize(nn.Linear(16, 32), include=pattern)) is w8a16.W8A16LinearLayer
        assert type(w8a16.quantize(nn.Linear(16, 32), exclude=pattern)) is nn.Linear


def test_progress_names_it_with_an_empty_path():
    seen = []
    w8a16.quantize(nn.Linear(16, 32), progress=lambda *arguments: seen.append(arguments))
    assert seen == [("", 2048, 2048)]


def test_a_root_with_children_of_its_own():
    """An adapter may hang under an nn.Linear; both are layers, and the children are not lost."""
    layer = nn.Linear(16, 16)
    layer.adapter = nn.Linear(16, 16)
    layer.register_forward_hook(lambda module, inputs, output: output + module.adapter(inputs[0]))
    w8a16.quantize(layer)
    assert type(layer.adapter) is w8a16.W8A16LinearLayer
    assert_equals_twin(layer, make_twin(layer), torch.randn(3, 16))


def test_dequantize_keeps_the_object_too():
    layer = quantized_linear()
    assert w8a16.dequantize(layer) is layer
    assert type(layer) is nn.Linear
