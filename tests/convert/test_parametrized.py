"""torch.nn.utils.parametrize: what is quantized is the effective weight; the machinery is dropped."""

import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import w8a16
from support.twins import (
    assert_equals_twin,
    assert_layer_is_exact,
    assert_unchanged,
    make_twin,
    snapshot,
    storage_bytes,
)
from support.unusual import with_a_computed_bias
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps

KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


class LowRankUpdate(nn.Module):
    """Has matrices of its own, as LoRA written as a parametrization has."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(32, 2)), nn.Parameter(torch.randn(2, 16))

    def forward(self, weight):
        return weight + self.a @ self.b


class Unflatten(nn.Module):
    """Keeps the weight `[32, 16]` in another shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, kept):
        return kept.reshape(32, 16)

    def right_inverse(self, weight):
        return weight.reshape(self.shape)


def check(layer, expected):
    """Quantize `layer` and hold it to the effective weight `expected` and to the bytes of its plan."""
    plan = w8a16.plan(layer, strict=True)
    assert plan.bytes_before == storage_bytes(layer)
    assert {(row.verdict, row.reason, row.module_type) for row in plan.rows} == {
        ("int8", "effective_weight", "Linear")
    }
    w8a16.quantize(layer)
    assert plan.bytes_after == storage_bytes(layer)
    assert type(layer) is w8a16.W8A16LinearLayer
    assert list(layer.state_dict()) == ["int8_weights", "scales", "bias"]
    assert list(layer.children()) == []
    assert list(layer.parameters()) == []
    # The effective weight is computed anew at each reading, with a few float32 roundings of difference.
    assert error_in_half_steps(expected, layer.int8_weights, layer.scales).max() <= 1 + 2**-12
    assert_layer_is_exact(layer, torch.randn(5, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_the_effective_weight_is_quantized(kind):
    layer = KINDS[kind](nn.Linear(16, 32)).eval()
    with torch.no_grad():
        layer.parametrizations.weight[0].train(False)
        expected = layer.weight
    check(layer, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_in_training_mode_changes_no_buffer(kind):
    """spectral_norm advances its power iteration at every look at the weight in training mode."""
    model = nn.Sequential(KINDS[kind](nn.Linear(16, 32))).train()
    before = snapshot(model)
    w8a16.plan(model)
    assert_unchanged(model, before)
    assert all(module.training for module in model.modules())


def test_training_mode_gives_the_codes_of_evaluation_mode():
    layers = [parametrizations.spectral_norm(nn.Linear(16, 32)) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    w8a16.quantize(layers[0].train())
    w8a16.quantize(layers[1].eval())
    assert torch.equal(layers[0].int8_weights, layers[1].int8_weights)
    assert torch.equal(layers[0].scales, layers[1].scales)


def test_a_frozen_parametrization():
    layer = parametrizations.weight_norm(nn.Linear(16, 32)).requires_grad_(False)
    check(layer, layer.weight.clone())


def test_several_parametrizations_on_top_of_each_other():
    layer = parametrizations.weight_norm(nn.Linear(16, 32))
    parametrize.register_parametrization(layer, "weight", LowRankUpdate())
    check(layer, layer.weight.detach())


def test_parameters_of_the_parametrization_itself_are_dropped_and_counted():
    layer = nn.Linear(16, 32)
    parametrize.register_parametrization(layer, "weight", LowRankUpdate())
    assert len(w8a16.plan(layer).rows) == 3
    check(layer, layer.weight.detach())


@pytest.mark.parametrize("shape", [(512,), (2, 16, 16), (16, 32)], ids=str)
def test_the_original_may_have_another_shape(shape):
    layer = nn.Linear(16, 32)
    parametrize.register_parametrization(layer, "weight", Unflatten(shape), unsafe=True)
    check(layer, layer.weight.detach())


@pytest.mark.parametrize("also_weight", [True, False])
def test_a_parametrized_bias(also_weight):
    class Positive(nn.Module):
        def forward(self, bias):
            return bias.abs()

    layer = nn.Linear(16, 32)
    parametrize.register_parametrization(layer, "bias", Positive())
    if also_weight:
        parametrizations.weight_norm(layer)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    plan = w8a16.plan(layer)
    assert plan.bytes_before == storage_bytes(layer)
    w8a16.quantize(layer)
    assert plan.bytes_after == storage_bytes(layer)
    assert torch.equal(layer.bias, bias)
    assert not layer.bias.requires_grad
    assert error_in_half_steps(weight, layer.int8_weights, layer.scales).max() <= 1 + HALF_STEP_SLACK * 8
    assert list(layer.state_dict()) == ["int8_weights", "scales", "bias"]


def test_what_computes_a_bias_is_planned_as_dropped():
    layer = with_a_computed_bias(nn.Linear(16, 32))
    bias, plan = layer.bias.detach(), w8a16.plan(layer, strict=True)
    assert {(row.name, row.verdict, row.reason, row.bytes_after) for row in plan.rows} == {
        ("weight", "int8", "converted", 32 * 16 + 4 * 32),
        ("parametrizations.bias.0.matrix", "float", "dropped", 0),
    }
    assert plan.bytes_before == storage_bytes(layer)
    w8a16.quantize(layer)
    assert plan.bytes_after == storage_bytes(layer)
    assert torch.equal(layer.bias, bias)


def test_what_computes_a_bias_stays_where_another_layer_uses_it_or_the_weight_stays():
    layers = nn.ModuleList([with_a_computed_bias(nn.Linear(16, 32)), nn.Linear(16, 32)])
    parametrize.register_parametrization(layers[1], "bias", layers[0].parametrizations.bias[0])
    plan = w8a16.plan(layers, exclude="1.weight")
    (row,) = [row for row in plan.rows if row.name.endswith("matrix")]
    assert (row.reason, row.bytes_after) == ("computed_weight", row.bytes_before)
    w8a16.quantize(layers, exclude="1.weight")
    assert plan.bytes_after == storage_bytes(layers)
    assert parametrize.is_parametrized(layers[1], "bias")


def test_a_parametrized_layer_that_stays_float_is_left_alone():
    layer = parametrizations.weight_norm(nn.Linear(16, 32))
    before = snapshot(layer)
    w8a16.quantize(layer, exclude="*")
    assert parametrize.is_parametrized(layer, "weight")
    assert_unchanged(layer, before)


def test_excluding_one_of_the_originals_excludes_the_weight():
    layer = parametrizations.weight_norm(nn.Linear(16, 32))
    plan = w8a16.plan(layer, exclude="parametrizations.weight.original0")
    assert {row.reason for row in plan.rows} == {"excluded"}
    w8a16.quantize(layer, exclude="parametrizations.weight.original0")
    assert parametrize.is_parametrized(layer, "weight")


def test_a_nan_in_an_original_is_refused():
    layer = parametrizations.weight_norm(nn.Linear(16, 32))
    with torch.no_grad():
        layer.parametrizations.weight.original1[3, 4] = torch.nan
    before = snapshot(layer)
    with pytest.raises(w8a16.errors.WeightValueError, match="NaN or Inf"):
        w8a16.quantize(layer)
    assert_unchanged(layer, before)


def test_dequantize_gives_a_plain_linear():
    layer = w8a16.dequantize(w8a16.quantize(parametrizations.weight_norm(nn.Linear(16, 32))))
    assert type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_parametrized_subclass_keeps_its_own_name_and_forward():
    class Special(nn.Linear):
        def forward(self, input):
            return super().forward(input) * 2

    model = nn.Sequential(parametrizations.weight_norm(Special(16, 32)))
    weight, bias, x = model[0].weight.detach(), model[0].bias, torch.randn(3, 16)
    rows = w8a16.plan(model).rows
    assert {(row.module_type, row.reason) for row in rows} == {("Special", "effective_weight")}
    w8a16.quantize(model)
    assert isinstance(model[0], Special)
    assert isinstance(model[0], w8a16.W8A16LinearLayer)
    allowed = (x.abs() @ (model[0].scales[:, None] / 2 * (1 + 2**-12)).expand(32, 16).T) * 2 + 1e-5
    assert ((model(x) - 2 * (x @ weight.T + bias)).abs() <= allowed).all()
    assert type(make_twin(model)[0]) is Special


def test_an_original_that_is_also_an_embedding():
    """One parameter, two weights: the table as it is, and what the layer makes of it."""
    model = nn.ModuleDict({"table": nn.Embedding(32, 16), "layer": nn.Linear(16, 32, bias=False)})
    model["layer"].weight = model["table"].weight
    parametrizations.spectral_norm(model["layer"])
    model["layer"].parametrizations.weight.original = model["table"].weight
    model.eval()
    table, weight = model["table"].weight.detach().clone(), model["layer"].weight.detach()
    plan = w8a16.plan(model)
    (row,) = plan.rows
    assert (row.verdict, row.reason) == ("int8", "effective_weight")
    assert plan.bytes_before == storage_bytes(model)
    w8a16.quantize(model)
    assert plan.bytes_after == storage_bytes(model)
    for layer, expected in ((model["table"], table), (model["layer"], weight)):
        assert error_in_half_steps(expected, layer.int8_weights, layer.scales).max() <= 1 + 2**-12


def test_an_original_that_another_module_cannot_give_up_stays_float():
    class Reader(nn.Module):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def forward(self, x):
            return x @ self.table

    layer = parametrizations.spectral_norm(nn.Linear(16, 32, bias=False))
    traced = torch.fx.symbolic_trace(Reader(layer.parametrizations.weight.original))
    (row,) = w8a16.plan(nn.ModuleList([layer, traced])).rows
    assert (row.verdict, row.reason) == ("float", "tied_to_float")


def test_inside_a_model_it_equals_the_twin():
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(16, 32)),
        nn.GELU(),
        parametrizations.spectral_norm(nn.Linear(32, 16)),
        parametrizations.orthogonal(nn.Linear(16, 16)),
    )
    w8a16.quantize(model)
    assert_equals_twin(model, make_twin(model), torch.randn(4, 16))


def test_a_module_that_was_weight_normed_can_be_pickled():
    """torch leaves a local function among the load hooks, which pickle cannot store."""
    model = w8a16.quantize(nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 32))))
    x = torch.randn(2, 16)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
