"""Weights in groups and with outliers: every kind that may have them, held to its float twin."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

import w8a16
from support.twins import mlp
from w8a16 import Recipe
from w8a16.core import half_step_bound
from w8a16.errors import ModuleError, PatternError, ShapeError, WeightValueError
from w8a16.layers import COLUMNS, ROWS, Layout, quantize_with_layout

transformers = pytest.importorskip("transformers")

N, K = 24, 64
RECIPES = {
    "groups": Recipe(group_size={"*weight": 16}),
    "one group": Recipe(group_size={"*weight": K}),
    "outliers": Recipe(outliers={"*weight": 3}),
}


def linear():
    return nn.Linear(K, N), torch.randn(5, K)


def transposed():
    layer = transformers.pytorch_utils.Conv1D(N, K)
    nn.init.normal_(layer.bias)
    return layer, torch.randn(2, 5, K)


def embedding():
    return nn.Embedding(N, K), torch.tensor([[0, 3, 23], [1, 1, 2]])


def embedding_bag():
    return nn.EmbeddingBag(N, K, mode="mean"), torch.tensor([[0, 3, 23], [1, 1, 2]])


KINDS = [linear, transposed, embedding, embedding_bag]


@pytest.fixture(params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


def twin_of(layer: nn.Module) -> nn.Module:
    return w8a16.dequantize(copy.deepcopy(layer))


@pytest.mark.parametrize("build", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_computes_what_its_dequantized_twin_computes(build, recipe, dtype):
    layer, x = build()
    layer, x = layer.to(dtype), x.to(dtype) if x.is_floating_point() else x
    w8a16.quantize(layer, recipe=recipe)
    assert layer.layouts["weight"].refinement is not None
    wanted = twin_of(layer).double()(x.double() if x.is_floating_point() else x)
    found = layer(x)
    assert found.dtype == dtype
    # The twin's weights are rounded to dtype once, the layer's never are: one rounding of each term.
    bound = wanted.abs().max() * 3 * torch.finfo(dtype).eps
    assert 0 < bound < wanted.abs().max() / 10
    assert (found.double() - wanted).abs().max() <= bound


@pytest.mark.parametrize("build", KINDS)
def test_every_weight_is_within_half_a_step_of_its_own_scale(build, recipe):
    layer, _ = build()
    original = layer.weight.detach().clone()
    w8a16.quantize(layer, recipe=recipe)
    layout = layer.layouts["weight"]
    scales = layer.scales.unsqueeze(-1) if layout.group else layer.scales
    bound = half_step_bound(scales)
    error = layout.codes_of(layer.dequantized(dtype=torch.float64) - original.double()).abs()
    bound = bound if layout.group else bound.unsqueeze(-1)
    assert error.max() > 0
    # float64 sees the outliers exactly, so their error is 0
    assert (error <= bound.reshape(*bound.shape[: error.dim()])).all()


def test_finer_scales_are_more_exact_where_tails_are_heavy():
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(4.0).sample((64, 1024))
    errors = {}
    for name, layout in (("row", ROWS), ("groups", ROWS.in_groups(128)), ("outliers", ROWS.with_outliers(8))):
        held = quantize_with_layout(weight, layout)
        values = held.int8_weights.reshape(-1, held.int8_weights.shape[-1]) * held.scales.reshape(-1, 1)
        values = values.reshape(64, 1024)
        if held.outliers is not None:
            values = values.scatter(1, held.outliers.columns.long(), held.outliers.values)
        errors[name] = float((values - weight).square().mean().sqrt() / weight.square().mean().sqrt())
    assert errors["groups"] < 0.6 * errors["row"]
    assert errors["outliers"] < 0.8 * errors["row"]


@pytest.mark.parametrize("build", [linear, transposed])
def test_gradients_reach_the_input(build, recipe):
    layer, x = build()
    w8a16.quantize(layer, recipe=recipe)
    twin = twin_of(layer)
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x)
    (wanted,) = torch.autograd.grad(twin(x).square().sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5)
    assert gradient.abs().max() > 0


def test_dtype_moves_copies_and_pickles_keep_the_weights(recipe):
    layer, x = linear()
    w8a16.quantize(layer, recipe=recipe)
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items() if key != "bias"}
    for other in (copy.deepcopy(layer).half(), pickle.loads(pickle.dumps(layer)).double().bfloat16()):
        for key, tensor in before.items():
            assert torch.equal(other.state_dict()[key], tensor), key
            assert other.state_dict()[key].dtype == tensor.dtype
        assert other(x.to(other.bias.dtype)).dtype == other.bias.dtype


def test_the_weight_can_be_used_as_a_float_weight(recipe):
    layer, x = linear()
    w8a16.quantize(layer, recipe=recipe)
    values = layer.dequantized()
    assert layer.weight.shape == (N, K)
    assert torch.equal(layer.weight.clone(), values)
    assert torch.equal(functional.linear(x, layer.weight, layer.bias), layer(x))
    assert torch.equal(layer.weight.t() @ torch.ones(N), values.t() @ torch.ones(N))
    indices = torch.tensor([3, 0, 23])
    assert torch.equal(functional.embedding(indices, layer.weight), values[indices])
    layer.weight.mul_(2)
    torch.testing.assert_close(layer.dequantized(), 2 * values)
    layer.weight.data = torch.randn(N, K)
    assert (layer.dequantized() - 2 * values).abs().max() > 0.1


def test_tied_weights_share_all_their_tensors(recipe):
    model = nn.ModuleDict({"embed": nn.Embedding(N, K), "head": nn.Linear(K, N, bias=False)})
    model["head"].weight = model["embed"].weight
    w8a16.quantize(model, recipe=Recipe(group_size=recipe.group_size, outliers=recipe.outliers))
    assert all(
        model["head"]._buffers[name] is model["embed"]._buffers[name] for name in model["embed"]._buffers
    )
    assert w8a16.plan(model).rows[0].aliases == ("head.weight",)
    twin = w8a16.dequantize(copy.deepcopy(model))
    assert twin["head"].weight is twin["embed"].weight


def test_the_plan_says_so_and_counts_the_bytes(recipe):
    layer, _ = linear()
    planned = w8a16.plan(layer, recipe=recipe).rows[0]
    w8a16.quantize(layer, recipe=recipe)
    done = w8a16.plan(layer).rows[0]
    held = sum(t.numel() * t.element_size() for key, t in layer.state_dict().items() if key != "bias")
    assert planned.bytes_after == done.bytes_after == held
    assert planned.refinement == done.refinement == layer.layouts["weight"].refinement
    assert planned.refinement in planned.sentence


def test_meta_models_become_skeletons(recipe):
    with torch.device("meta"):
        layer = nn.Linear(K, N)
    real, _ = linear()
    for each in (layer, real):
        w8a16.quantize(each, recipe=recipe)
    assert {k: (t.dtype, t.shape) for k, t in layer.state_dict().items()} == {
        k: (t.dtype, t.shape) for k, t in real.state_dict().items()
    }


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_nested_tensors(recipe, layout):
    layer, _ = linear()
    w8a16.quantize(layer, recipe=recipe)
    parts = [torch.randn(2, K), torch.randn(3, K)]
    found = layer(torch.nested.nested_tensor(parts, layout=layout)).unbind()
    for part, one in zip(parts, found, strict=True):
        torch.testing.assert_close(one, layer(part), rtol=1e-5, atol=1e-5)


# --- what cannot be ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe, reason",
    [
        (
            Recipe(group_size={"conv": 8}),
            "conv.weight: group_size: a weight of the kind conv1d",
        ),
        (
            Recipe(group_size={"0": 48}),
            "0.weight: group_size: expected a multiple of 48",
        ),
        (Recipe(outliers={"0": 64}), "0.weight: outliers: expected more than 64 elements in a row, got 64"),
        (
            Recipe(group_size={"0": 16, "0.weight": 32}),
            "0.weight: several rules: group_size 16, group_size",
        ),
        (
            Recipe(group_size={"0": 16}, outliers={"*": 2}),
            "0.weight: several rules: group_size 16, outliers",
        ),
        (Recipe(outliers={"nowhere": 2}), "recipe: nothing in the model is named 'nowhere'"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_before_anything_changes(recipe, reason):
    model = nn.Sequential()
    model.append(nn.Linear(K, N))
    model.add_module("conv", nn.Conv1d(8, 16, 4))
    if "several" in reason:
        del model.conv
    with pytest.raises(PatternError) as caught:
        w8a16.quantize(model, recipe=recipe)
    assert reason in str(caught.value)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("layout", [ROWS.in_groups(16), ROWS.with_outliers(2), COLUMNS.in_groups(8)])
def test_nan_is_refused_with_its_place(layout):
    weight = torch.randn(N, K)
    weight[3, 5] = torch.nan
    with pytest.raises(WeightValueError, match="1 of 1536 values is NaN or Inf"):
        quantize_with_layout(weight, layout)


def test_layouts_that_do_not_fit():
    for layout in (ROWS.in_groups(7), ROWS.with_outliers(K), Layout(lead=2, group=16, outliers=2)):
        with pytest.raises(ShapeError, match="does not have the layout"):
            quantize_with_layout(torch.randn(N, K), layout)


@pytest.mark.parametrize(
    "columns, values, reason",
    [
        ([[1, 1]], [[1.0, 2.0]], "expected ascending columns, 0 to 63, found [1, 1] in row 0"),
        ([[1, 64]], [[1.0, 2.0]], "expected ascending columns, 0 to 63, found [1, 64] in row 0"),
        ([[-1, 3]], [[1.0, 2.0]], "expected ascending columns, 0 to 63, found [-1, 3] in row 0"),
        ([[1, 2]], [[1.0, float("nan")]], "expected finite outliers, found nan at [0, 1]"),
    ],
)
def test_bad_outliers_are_not_loaded(columns, values, reason):
    layer = w8a16.quantize(nn.Linear(K, 1), recipe=Recipe(outliers={"weight": 2}))
    state = layer.state_dict()
    state["outlier_columns"] = torch.tensor(columns, dtype=torch.int32)
    state["outlier_values"] = torch.tensor(values)
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict(state)
    assert reason in str(caught.value)


def test_refined_and_plain_weights_are_not_tied():
    model = mlp()
    first = next(name for name, m in model.named_modules() if isinstance(m, nn.Linear))
    w8a16.quantize(model, recipe=Recipe(outliers={first: 2}))
    layers = [m for m in model.modules() if isinstance(m, w8a16.W8A16LinearLayer)]
    assert len({layer.layouts["weight"] for layer in layers}) == 2
    with pytest.raises(ModuleError, match="lie in another way"):
        layers[1].register_parameter("weight", layers[0].weight)
