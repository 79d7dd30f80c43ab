"""Every reason of the plan, and that the model still works with the rest converted."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_unchanged, make_twin, snapshot, storage_bytes
from support.unusual import STAYS_FLOAT, Bare, linear_with, with_a_computed_bias
from w8a16.convert import REASONS
from w8a16.layers import W8A16Embedding

pytestmark = pytest.mark.filterwarnings(
    "ignore:Initializing zero-element tensors",
    "ignore:Sparse CSR tensor support",
    "ignore:.*torch.jit.*deprecated:DeprecationWarning",
)


@pytest.mark.parametrize("case", STAYS_FLOAT)
def test_stays_float_for_this_reason(case):
    build, reason = STAYS_FLOAT[case]
    model = nn.ModuleDict({"kept": build(), "plain": nn.Linear(16, 16)})
    plan = w8a16.plan(model)
    kept = [row for row in plan.rows if row.name.startswith("kept.")]
    assert kept
    for row in kept:
        assert (row.verdict, row.reason) == ("float", reason)
        assert row.sentence.startswith(REASONS[reason])
        assert row.bytes_before == row.bytes_after
    types = [type(module) for module in model["kept"].modules()]
    tensors = [id(tensor) for tensor in model["kept"].parameters()]
    w8a16.quantize(model, on_nonfinite="keep-float")
    assert [type(module) for module in model["kept"].modules()] == types
    assert [id(tensor) for tensor in model["kept"].parameters()] == tensors
    assert type(model["plain"]) is w8a16.W8A16LinearLayer


def layer_and_table():
    return nn.ModuleDict({"layer": nn.Linear(16, 16), "table": nn.Embedding(8, 16)})


def quantized_in_part():
    return w8a16.quantize(Bare(a=torch.ones(4, 16), b=torch.ones(4, 16)), exclude="b")


MIXED = {
    "layer and table": (layer_and_table, {}, {"layer.weight": "converted", "table.weight": "converted"}),
    "kinds": (
        layer_and_table,
        {"kinds": "embedding"},
        {"layer.weight": "kind_not_asked", "table.weight": "converted"},
    ),
    "exclude": (
        layer_and_table,
        {"exclude": "table"},
        {"layer.weight": "converted", "table.weight": "excluded"},
    ),
    "include": (
        layer_and_table,
        {"include": "table"},
        {"layer.weight": "not_included", "table.weight": "converted"},
    ),
    "bare parameters": (lambda: nn.ParameterList([torch.ones(4, 16)]), {}, {"0": "stored"}),
    "computed": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)),
        {},
        {"parametrizations.weight.original": "effective_weight"},
    ),
    "a computed bias": (
        lambda: with_a_computed_bias(nn.Linear(16, 16)),
        {},
        {"weight": "converted", "parametrizations.bias.0.matrix": "dropped"},
    ),
    "int8 already": (quantized_in_part, {}, {"b": "partly_quantized", "a": "already_quantized"}),
    "the larger dtype wins": (
        lambda: Bare(a=torch.ones(4, 16), b=torch.ones(9, 16).bfloat16(), c=torch.ones(4, 16)),
        {},
        {"a": "mixed_dtype", "b": "stored", "c": "mixed_dtype"},
    ),
}
"""The reasons of the rows of one module after the other, with the options of the caller."""


@pytest.mark.parametrize("case", MIXED)
def test_each_row_has_its_own_reason(case):
    build, options, reasons = MIXED[case]
    model = build()
    rows = w8a16.plan(model, **options).rows
    assert {row.name: row.reason for row in rows} == reasons
    assert all(row.sentence.startswith(REASONS[row.reason]) for row in rows)
    w8a16.quantize(model, **options)
    after = {row.name for row in w8a16.plan(model).rows if row.reason == "already_quantized"}
    assert len(after) == sum(row.verdict == "int8" for row in rows)


def test_the_larger_weights_of_a_module_decide_about_its_dtype():
    """Counted in elements: many small ones against a large one of another dtype."""
    model = Bare(a=torch.ones(4, 16), b=torch.ones(4, 16), c=torch.ones(7, 16).bfloat16())
    rows = {row.name: row for row in w8a16.plan(model).rows}
    assert {name: row.reason for name, row in rows.items()} == {
        "a": "stored",
        "b": "stored",
        "c": "mixed_dtype",
    }
    assert rows["c"].sentence.endswith(": torch.bfloat16")
    w8a16.quantize(model)
    assert (model.a.dtype, model.c.dtype) == (torch.float32, torch.bfloat16)
    assert list(model._parameters) == ["c"]


def test_a_kind_may_refuse_a_layer(monkeypatch):
    def why_not(cls, module):
        return "sparse=True" if module.sparse else None

    monkeypatch.setattr(W8A16Embedding, "why_not", classmethod(why_not))
    model = nn.ModuleList([nn.Embedding(8, 16, sparse=True), nn.Embedding(8, 16)])
    rows = w8a16.plan(model).rows
    assert [row.reason for row in rows] == ["option", "converted"]
    assert rows[0].sentence == REASONS["option"] + ": sparse=True"
    w8a16.quantize(model)
    assert [type(layer) for layer in model] == [nn.Embedding, W8A16Embedding]


def test_every_reason_has_a_case():
    reasons = {reason for _, reason in STAYS_FLOAT.values()} | {"option"}
    for _, _, rows in MIXED.values():
        reasons |= set(rows.values())
    assert reasons == set(REASONS)


def test_a_tensor_that_is_spread_over_devices(tmp_path):
    """DTensor stands for what FSDP2 and tensor parallelism make of a weight."""
    distributed = pytest.importorskip("torch.distributed")
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        weight = nn.Parameter(distribute_tensor(torch.ones(16, 16), mesh, [Replicate()]))
        (row,) = w8a16.plan(linear_with(weight)).rows
        assert (row.reason, row.verdict) == ("tensor_subclass", "float")
    finally:
        distributed.destroy_process_group()


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
    """It is stored beside the weight; the layer's own forward does not ask for it."""
    layer = nn.Linear(16, 16)
    layer.adapter = nn.Parameter(torch.randn(4, 16))
    rows = {row.name: row for row in w8a16.plan(layer).rows}
    assert {name: row.reason for name, row in rows.items()} == {"weight": "converted", "adapter": "stored"}
    w8a16.quantize(layer)
    assert list(layer.parameters()) == []
    assert layer.adapter_int8_weights.shape == layer.adapter.shape == (4, 16)
    assert_equals_twin(layer, make_twin(layer), torch.randn(3, 16))


def test_a_model_of_which_nothing_can_be_converted():
    model = nn.Sequential(nn.Conv1d(4, 4, 1).half(), nn.BatchNorm1d(4), nn.Embedding(4, 1))
    before = snapshot(model)
    plan = w8a16.plan(model)
    assert plan.coverage == 0
    assert plan.bytes_before == plan.bytes_after == storage_bytes(model)
    assert_unchanged(w8a16.quantize(model), before)
