"""Only exact classes are converted: a subclass may compute something else with its weight."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, make_twin
from w8a16.errors import CoverageError


class Scaled(nn.Linear):
    """Its own forward, as Falcon's and Llama 4's linear layers have."""

    def forward(self, input):
        return input @ self.weight.T * 0.5


class Renamed(nn.Linear):
    """Nothing of its own."""


class Model(nn.Module):
    def __init__(self, layer_type):
        super().__init__()
        self.special, self.plain = layer_type(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        return self.plain(self.special(x))


@pytest.mark.parametrize("layer_type", [Scaled, Renamed])
def test_kept_and_reported(layer_type):
    model = Model(layer_type)
    special, weight = model.special, model.special.weight
    row = w8a16.plan(model).rows[0]
    assert (row.name, row.module_type, row.verdict, row.reason) == (
        "special.weight",
        layer_type.__name__,
        "float",
        "subclass",
    )
    assert row.sentence.endswith(f": {layer_type.__name__}")
    w8a16.quantize(model)
    assert model.special is special
    assert type(model.special) is layer_type
    assert model.special.weight is weight
    assert_equals_twin(model, make_twin(model), torch.randn(3, 16))


def test_strict_names_it():
    with pytest.raises(CoverageError, match=r"special\.weight \[16, 16\] float32: a subclass"):
        w8a16.quantize(Model(Scaled), strict=True)


def test_a_subclass_of_our_own_layer_is_quantized_already():
    class Ours(w8a16.W8A16LinearLayer):
        pass

    model = nn.Sequential(Ours(16, 8).quantize(torch.randn(8, 16)))
    assert [row.reason for row in w8a16.plan(model).rows] == ["already_quantized"]
    assert type(w8a16.quantize(model)[0]) is Ours
    x = torch.randn(3, 16)
    before = model(x)
    torch.testing.assert_close(w8a16.dequantize(model)(x), before, rtol=1e-5, atol=1e-6)


def test_a_model_that_is_a_subclass_of_a_container_is_walked_through():
    class Stack(nn.Sequential):
        pass

    model = w8a16.quantize(Stack(nn.Linear(16, 16), Stack(nn.Linear(16, 4))))
    assert type(model) is Stack
    assert_equals_twin(model, make_twin(model), torch.randn(3, 16))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_scripted_children_are_left_alone():
    model = nn.Sequential(torch.jit.script(nn.Linear(16, 16)), nn.Linear(16, 16))
    assert [row.verdict for row in w8a16.plan(model).rows] == ["float", "int8"]
    w8a16.quantize(model)
    assert_equals_twin(model[1], make_twin(model[1]), model[0](torch.randn(3, 16)).detach())
