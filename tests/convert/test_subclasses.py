"""A subclass keeps its own forward; where that calls the parent's, the int8 one runs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import w8a16
from support.twins import assert_equals_twin, make_twin
from w8a16.errors import CoverageError


class Scaled(nn.Linear):
    """Computes with the float weight, as Falcon's linear layers do."""

    def forward(self, input):
        return input @ self.weight.T * 0.5


class Functional(nn.Linear):
    """Hands the weight to the function."""

    def forward(self, input):
        return functional.linear(input, self.weight, self.bias) * 0.5


class Around(nn.Linear):
    """Calls the forward of the parent, as Llama 4's router does."""

    def forward(self, input):
        return super().forward(input) * 0.5


class Renamed(nn.Linear):
    """Nothing of its own."""


class Model(nn.Module):
    def __init__(self, layer_type):
        super().__init__()
        self.special, self.plain = layer_type(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        return self.plain(self.special(x))


REASONS = {Scaled: "stored", Functional: "converted", Around: "converted", Renamed: "converted"}
TIERS = {"stored": "storage", "converted": "compute"}


@pytest.mark.parametrize("layer_type", REASONS)
def test_converted_and_reported(layer_type):
    model = Model(layer_type)
    special, reason = model.special, REASONS[layer_type]
    row = w8a16.plan(model).rows[0]
    assert (row.name, row.module_type, row.kind) == ("special.weight", layer_type.__name__, "linear")
    assert (row.verdict, row.reason, row.tier) == ("int8", reason, TIERS[reason])
    w8a16.quantize(model)
    assert model.special is special
    assert type(special) is not layer_type
    assert isinstance(special, layer_type)
    assert isinstance(special, w8a16.W8A16LinearLayer)
    assert type(special).__name__ == f"W8A16{layer_type.__name__}"
    assert special.int8_weights.dtype == torch.int8
    twin = make_twin(model)
    assert type(twin.special) is layer_type
    assert_equals_twin(model, twin, torch.randn(3, 16))


@pytest.mark.parametrize("layer_type", REASONS)
def test_its_own_forward_runs(layer_type):
    """Without it, the output would be that of a plain layer."""
    model, plain = layer_type(16, 16), nn.Linear(16, 16)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(3, 16)
    changed = not torch.allclose(model(x), plain(x))
    assert changed == (layer_type is not Renamed)
    w8a16.quantize(nn.ModuleList([model, plain]))
    assert torch.allclose(model(x), plain(x)) is not changed


@pytest.mark.parametrize("layer_type", [Functional, Around, Renamed])
def test_the_compute_tier_never_dequantizes(layer_type, monkeypatch):
    layer = w8a16.quantize(layer_type(16, 16))
    monkeypatch.setattr("w8a16.layers.quantizing.dequantize", None)
    assert layer(torch.randn(3, 16)).shape == (3, 16)


def test_strict_counts_it_as_int8_and_names_what_the_class_forbids():
    class Closed(nn.Linear):
        def __init_subclass__(cls):
            raise TypeError("closed")

    assert w8a16.plan(Model(Scaled), strict=True).coverage == 1.0
    text = r"special\.weight \[16, 16\] float32: the class of the module cannot be inherited from: closed"
    with pytest.raises(CoverageError, match=text):
        w8a16.quantize(Model(Closed), strict=True)


def test_a_checkpoint_of_the_plain_layer_loads_into_it(tmp_path):
    plain, special = w8a16.quantize(Model(nn.Linear)), Model(Around)
    w8a16.load(special, w8a16.save(plain, tmp_path))
    x = torch.randn(3, 16)
    assert torch.equal(special.special(x), plain.special(x) * 0.5)


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
