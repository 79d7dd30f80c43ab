import json

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, mlp, snapshot, storage_bytes
from w8a16.convert import PlanRow
from w8a16.layers import QuantizedModule


class Mixed(nn.Module):
    """One of each: compute and storage tier, kept float, shared, and small things."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.position = nn.Parameter(torch.randn(1, 10, 32))
        self.bias = nn.Parameter(torch.randn(4, 4))
        self.body = nn.Sequential(nn.Linear(32, 64), nn.LayerNorm(64), nn.Linear(64, 32))
        self.again = self.body[0]
        self.head = nn.Linear(32, 3, bias=False)
        self.register_buffer("steps", torch.zeros(7, dtype=torch.int64))


TEXT = """\
       module     weights   before    after  why
int8   Linear           3  16.8 kB  4.59 kB  int8 codes, one float32 scale per output channel
int8   Embedding        1  6.40 kB  1.80 kB  int8 codes, one float32 scale per output channel
int8   Mixed            1  1.28 kB    360 B  int8 codes and scales, dequantized on use
float  Mixed            1     64 B     64 B  a bias is added in float32; int8 would save next to nothing
       other                 952 B    952 B  vectors and buffers, not quantized
       total            6  25.5 kB  7.76 kB  30% of the float bytes; 99.7% of the weight bytes are int8"""


def test_one_row_for_each_weight_in_the_order_of_the_model():
    rows = w8a16.plan(Mixed()).rows
    modules = ["embedding.weight", "body.0.weight", "body.2.weight", "head.weight"]
    assert [row.name for row in rows] == ["position", "bias", *modules]
    assert [row.verdict for row in rows] == ["int8", "float", "int8", "int8", "int8", "int8"]


def test_a_converted_row():
    assert w8a16.plan(Mixed()).rows[3] == PlanRow(
        name="body.0.weight",
        aliases=("again.weight",),
        module_type="Linear",
        kind="linear",
        tier="compute",
        shape=(64, 32),
        dtype="float32",
        bytes_before=64 * 32 * 4,
        bytes_after=64 * 32 + 64 * 4,
        verdict="int8",
        reason="converted",
        sentence="int8 codes, one float32 scale per output channel",
    )


def test_a_row_that_is_stored():
    assert w8a16.plan(Mixed()).rows[0] == PlanRow(
        name="position",
        aliases=(),
        module_type="Mixed",
        kind="parameter",
        tier="storage",
        shape=(1, 10, 32),
        dtype="float32",
        bytes_before=1280,
        bytes_after=320 + 10 * 4,
        verdict="int8",
        reason="stored",
        sentence="int8 codes and scales, dequantized on use",
    )


def test_a_row_that_stays_float():
    assert w8a16.plan(Mixed()).rows[1] == PlanRow(
        name="bias",
        aliases=(),
        module_type="Mixed",
        kind="parameter",
        tier="storage",
        shape=(4, 4),
        dtype="float32",
        bytes_before=64,
        bytes_after=64,
        verdict="float",
        reason="bias",
        sentence="a bias is added in float32; int8 would save next to nothing",
    )


def test_the_text():
    assert str(w8a16.plan(Mixed())) == TEXT


def test_coverage_is_the_share_of_the_weight_bytes():
    converted, kept = (32 * 64 * 2 + 32 * 3 + 50 * 32 + 10 * 32) * 4, 4 * 4 * 4
    assert w8a16.plan(Mixed()).coverage == converted / (converted + kept)
    assert w8a16.plan(mlp()).coverage == 1.0
    assert w8a16.plan(nn.LayerNorm(4)).coverage == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_totals_are_the_bytes_that_memory_really_holds(dtype):
    model = Mixed().to(dtype)
    plan = w8a16.plan(model)
    assert plan.bytes_before == storage_bytes(model)
    w8a16.quantize(model)
    assert plan.bytes_after == storage_bytes(model) < plan.bytes_before
    after = w8a16.plan(model)
    assert (after.bytes_before, after.bytes_after) == (plan.bytes_before, plan.bytes_after)
    assert after.coverage == plan.coverage
    assert facts(after) == facts(plan)


def facts(plan):
    """What a plan says of each row, which must not change when it is carried out."""
    int8 = {
        row.name: (row.kind, row.tier, row.shape, row.aliases) for row in plan.rows if row.verdict == "int8"
    }
    return int8, {row.name: row.reason for row in plan.rows if row.verdict == "float"}


def test_to_dict_is_json():
    plan = w8a16.plan(Mixed())
    data = json.loads(json.dumps(plan.to_dict()))
    assert set(data) == {
        "bytes_before",
        "bytes_after",
        "other_bytes",
        "other_bytes_after",
        "coverage",
        "rows",
    }
    assert data["bytes_after"] == plan.bytes_after
    assert data["rows"][3]["aliases"] == ["again.weight"]
    assert [row["name"] for row in data["rows"]] == [row.name for row in plan.rows]


def test_a_plan_changes_nothing():
    model = Mixed().train()
    before, tensors = snapshot(model), [id(t) for t in (*model.parameters(), *model.buffers())]
    types = [type(module) for module in model.modules()]
    random = torch.get_rng_state()
    w8a16.plan(model)
    assert_unchanged(model, before)
    assert [id(t) for t in (*model.parameters(), *model.buffers())] == tensors
    assert [type(module) for module in model.modules()] == types
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_a_plan_is_what_quantize_does():
    model = Mixed()
    plan = w8a16.plan(model, exclude="head")
    w8a16.quantize(model, exclude="head")
    int8 = {
        f"{path}.{name}".removeprefix(".")
        for path, module in model.named_modules()
        if isinstance(module, QuantizedModule)
        for name in module.layouts
    }
    assert int8 == {row.name for row in plan.rows if row.verdict == "int8"}
    assert int8 == {"position", "embedding.weight", "body.0.weight", "body.2.weight"}


@pytest.mark.parametrize(
    "model, text",
    [
        (nn.Sequential(), "  total         0     0 B    0 B  100% of the float bytes; 0.0% of the weight"),
        (nn.LayerNorm(4), "  other              32 B   32 B  vectors and buffers, not quantized"),
        (
            nn.Embedding(9, 1),
            "float  Embedding        1    36 B   36 B  int8 and scales would not be smaller",
        ),
    ],
    ids=["empty", "vectors only", "nothing convertible"],
)
def test_models_without_anything_to_convert(model, text):
    before = snapshot(model)
    assert text in str(w8a16.plan(model))
    assert w8a16.quantize(model) is model
    assert_unchanged(model, before)


@pytest.mark.parametrize("call", [w8a16.plan, w8a16.quantize, w8a16.dequantize])
def test_something_that_is_no_module(call):
    with pytest.raises(w8a16.W8A16Error) as caught:
        call({"weight": torch.zeros(2, 2)})
    assert str(caught.value) == "model: expected a torch.nn.Module, got dict"
