"""Whatever is returned keeps the budget when it is measured anew, for models of every kind."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import w8a16
from w8a16.convert import Recipe, dequantize, quantize
from w8a16.errors import BudgetError
from w8a16.study.repair import Budget, repair
from w8a16.study.variants import float_rows
from w8a16.study.variants.quantizers import per_channel

WIDTH = 32


class Steps(nn.Module):
    """Layers that keep `[batch, steps, WIDTH]`, behind an embedding whose table may be the head too."""

    def __init__(self, layers, tied):
        super().__init__()
        self.table = nn.Embedding(40, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, 40, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, indices):
        x = self.table(indices)
        for layer in self.layers:
            if isinstance(layer, nn.Conv1d):
                y = layer(x.mT).mT
            else:
                y = layer(x)
                y = y[0] if isinstance(y, tuple) else y
            x = nn.functional.layer_norm(x + y, (WIDTH,))
        return self.head(x)


LAYERS = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "pruned": lambda: nn.utils.prune.random_unstructured(nn.Linear(WIDTH, WIDTH), "weight", 0.3),
    "conv": lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
    "gru": lambda: nn.GRU(WIDTH, WIDTH, batch_first=True),
    "encoder": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.1, batch_first=True),
}


def heavy(model, generator):
    """Some weights become many times larger; what the float model computes does not matter here."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                hit = torch.rand(parameter.shape, generator=generator) < 0.02
                parameter[hit] *= 15
    return model


def sqnr(model, quantized, inputs):
    model, quantized = model.eval(), quantized.eval()
    with torch.no_grad():
        pairs = [(model(x).double(), quantized(x).double()) for x in inputs]
    noise = sum(float((a - b).square().sum()) for a, b in pairs)
    return 10 * math.log10(sum(float(a.square().sum()) for a, _ in pairs) / noise) if noise else math.inf


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=3),
    tied=st.booleans(),
    limit=st.floats(15, 70),
    upgrades=st.sampled_from([("outliers", "groups", "float"), ("outliers", "groups"), ("float",)]),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_the_budget_is_kept_or_the_error_says_so(names, tied, limit, upgrades, dtype, seed):
    torch.manual_seed(seed)
    model = Steps([LAYERS[name]() for name in names], tied)
    model = heavy(model, torch.Generator().manual_seed(seed)).to(dtype).eval()
    inputs = [torch.randint(40, (2, 6))]
    try:
        found = repair(model, inputs, Budget("sqnr_db", limit), upgrades=upgrades)
    except BudgetError:
        # Only where float is not allowed; and then all that is allowed must miss as well.
        assert "float" not in upgrades
        return
    repaired = quantize(copy.deepcopy(model), recipe=found.recipe)
    value = sqnr(model, repaired, inputs)
    assert value == pytest.approx(found.value, rel=1e-6)
    assert value >= limit
    plain = w8a16.plan(model).bytes_after
    assert found.bytes_added == w8a16.plan(model, recipe=found.recipe).bytes_after - plain
    assert found.bytes_added == sum(choice.bytes_added for choice in found.choices)
    held = {choice.kind for choice in found.choices if choice.held not in ("int8", "float")}
    assert held <= {"linear", "embedding"}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_recipe_names_each_weight_and_no_other(name):
    """One weight in float at a time, computed ones too: it keeps its values, all others are int8's."""
    model = Steps([LAYERS[name](), LAYERS[name]()], tied=True).eval()
    model(torch.randint(40, (2, 6)))  # a pruned weight can be copied only after a run
    weights = float_rows(model)
    assert len(weights) == len({weight.pattern for weight in weights}) > 2
    for weight in weights:
        spared = dequantize(quantize(copy.deepcopy(model), recipe=Recipe(exclude=[weight.pattern])))
        after = {rows.name: rows.read() for rows in float_rows(spared)}
        assert after.keys() == {rows.name for rows in weights}
        for rows in weights:
            expected = rows.read() if rows.name == weight.name else per_channel(rows.read())
            assert torch.equal(after[rows.name], expected)
            assert not torch.equal(rows.read(), per_channel(rows.read()))
