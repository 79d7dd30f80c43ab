"""Every reason for staying float, and that the model still works with the rest converted."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, snapshot, storage_bytes
from w8a16.convert import REASONS


class Tagged(nn.Parameter):
    """A Parameter class of another library."""


class Wrapped(torch.Tensor):
    """A tensor class of another library."""


def linear_with(weight):
    layer = nn.Linear(16, 16)
    layer.weight = weight
    return layer


def frozen(tensor):
    return nn.Parameter(tensor, requires_grad=False)


def named(name, value):
    layer = nn.Linear(16, 16)
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        layer.register_buffer(name, value)
    else:
        setattr(layer, name, value)
    return layer


CASES = {
    "float8": (lambda: linear_with(frozen(torch.ones(16, 16).to(torch.float8_e4m3fn))), "dtype"),
    "complex": (lambda: linear_with(nn.Parameter(torch.ones(16, 16, dtype=torch.complex64))), "dtype"),
    "int8": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.int8))), "dtype"),
    "int64": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.int64))), "dtype"),
    "bool": (lambda: linear_with(frozen(torch.ones(16, 16, dtype=torch.bool))), "dtype"),
    "coo": (lambda: linear_with(nn.Parameter(torch.eye(16).to_sparse())), "layout"),
    "csr": (lambda: linear_with(nn.Parameter(torch.eye(16).to_sparse_csr())), "layout"),
    "parameter class": (lambda: linear_with(Tagged(torch.ones(16, 16))), "tensor_subclass"),
    "tensor class": (
        lambda: linear_with(nn.Parameter(torch.ones(16, 16).as_subclass(Wrapped))),
        "tensor_subclass",
    ),
    "three dimensions": (lambda: linear_with(nn.Parameter(torch.ones(2, 16, 16))), "shape"),
    "buffer named scales": (lambda: named("scales", torch.ones(16)), "attribute_taken"),
    "attribute named scales": (lambda: named("scales", "mine"), "attribute_taken"),
    "attribute named weight_dtype": (lambda: named("weight_dtype", torch.half), "attribute_taken"),
    "child named int8_weights": (lambda: named("int8_weights", nn.Identity()), "attribute_taken"),
    "parameter named scales": (lambda: named("scales", nn.Parameter(torch.ones(16))), "attribute_taken"),
    "K = 0": (lambda: nn.Linear(0, 5), "not_smaller"),
    "N = 0": (lambda: nn.Linear(5, 0), "not_smaller"),
    "K = 1": (lambda: nn.Linear(1, 64), "not_smaller"),
    "K = 4 in bfloat16": (lambda: nn.Linear(4, 64, dtype=torch.bfloat16), "not_smaller"),
    "convolution": (lambda: nn.Conv2d(4, 4, 3), "unknown_kind"),
    "recurrent": (lambda: nn.LSTM(4, 4), "unknown_kind"),
    "bilinear": (lambda: nn.Bilinear(4, 4, 4), "unknown_kind"),
    "list of parameters": (lambda: nn.ParameterList([torch.ones(4, 4)]), "unknown_kind"),
    "dict of parameters": (lambda: nn.ParameterDict({"a": torch.ones(4, 4)}), "unknown_kind"),
    "lazy": (lambda: nn.LazyLinear(4), "uninitialized"),
}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors", "ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("case", CASES)
def test_stays_float_for_this_reason(case):
    build, reason = CASES[case]
    model = nn.ModuleDict({"kept": build(), "plain": nn.Linear(16, 16)})
    plan = w8a16.plan(model)
    kept = [row for row in plan.rows if row.name.startswith("kept.")]
    assert kept
    for row in kept:
        assert (row.verdict, row.reason) == ("float", reason)
        assert row.sentence.startswith(REASONS[reason])
        assert row.bytes_before == row.bytes_after
    kinds, tensors = type(model["kept"]), [id(t) for t in model["kept"].parameters()]
    w8a16.quantize(model)
    assert type(model["kept"]) is kinds
    assert [id(t) for t in model["kept"].parameters()] == tensors
    assert type(model["plain"]) is w8a16.W8A16LinearLayer


@pytest.mark.parametrize("k, dtype", [(2, torch.float32), (5, torch.bfloat16), (1, torch.float64)])
def test_the_smallest_weight_that_gets_smaller_is_converted(k, dtype):
    """K + 4 bytes a row against K times the size of an element."""
    layer = nn.Linear(k, 64, dtype=dtype)
    plan = w8a16.plan(layer)
    assert plan.rows[0].verdict == "int8"
    w8a16.quantize(layer)
    assert plan.bytes_after == storage_bytes(layer) < plan.bytes_before


def test_a_weight_of_another_shape_than_the_layer_says_is_taken_as_it_is():
    """in_features and out_features are only what the constructor was told."""
    layer = linear_with(nn.Parameter(torch.randn(8, 16)))
    x = torch.randn(3, 16)
    layer.bias = None
    expected = layer(x)
    w8a16.quantize(layer)
    assert layer(x).shape == expected.shape == (3, 8)


def test_a_parameter_that_a_linear_does_not_have():
    layer = nn.Linear(16, 16)
    layer.adapter = nn.Parameter(torch.randn(4, 16))
    rows = {row.name: row for row in w8a16.plan(layer).rows}
    assert rows["weight"].reason == "converted"
    assert rows["adapter"].reason == "unknown_kind"
    w8a16.quantize(layer)
    assert [name for name, _ in layer.named_parameters()] == ["adapter"]


def test_a_model_of_which_nothing_can_be_converted():
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.Embedding(4, 4))
    before = snapshot(model)
    plan = w8a16.plan(model)
    assert plan.coverage == 0
    assert plan.bytes_before == plan.bytes_after == storage_bytes(model)
    assert_unchanged(w8a16.quantize(model), before)
