"""Nested models of random shape: whatever the structure, the same four promises hold."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import w8a16
from support.twins import assert_equals_twin, assert_unchanged, snapshot, storage_bytes

WIDTH = 8


class Residual(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = x + part(x)
        return x


class Scaled(nn.Linear):
    def forward(self, input):
        return super().forward(input) * 2


class Own(nn.Module):
    """A parameter of its own, used as it is and as a weight."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        return nn.functional.linear(x, self.table) + self.table[0] + x @ self.table


LEAVES = {
    "own parameter": Own,
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "no bias": lambda: nn.Linear(WIDTH, WIDTH, bias=False),
    "bottleneck": lambda: nn.Sequential(nn.Linear(WIDTH, 1), nn.Linear(1, WIDTH)),
    "subclass": lambda: Scaled(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
    "activation": lambda: nn.Tanh(),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH)),
}
SHAPES = st.recursive(
    st.sampled_from(sorted(LEAVES)),
    lambda inner: st.tuples(
        st.sampled_from(["sequential", "residual"]), st.lists(inner, min_size=1, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def models(draw):
    """A module tree; some leaves are used twice, some weights and biases are tied."""
    built = []

    def build(shape):
        if not isinstance(shape, str):
            kind, parts = shape
            container = nn.Sequential if kind == "sequential" else Residual
            return container(*map(build, parts))
        if built and draw(st.integers(0, 4)) == 0:
            return draw(st.sampled_from(built))
        built.append(LEAVES[shape]())
        return built[-1]

    torch.manual_seed(draw(st.integers(0, 1000)))
    model = build(draw(SHAPES))
    plain = [m for m in model.modules() if type(m) is nn.Linear and m.weight.shape == (WIDTH, WIDTH)]
    if len(plain) > 1 and draw(st.booleans()):
        plain[-1].weight = plain[0].weight
    own = [m for m in model.modules() if type(m) is Own]
    if plain and own and draw(st.booleans()):
        own[0].table = plain[0].weight
    if len(plain) > 1 and draw(st.booleans()) and plain[0].bias is not None:
        plain[-1].bias = plain[0].bias
    return model.eval()


@settings(max_examples=120, deadline=None, derandomize=True)
@given(models())
def test_the_promises(model):
    x = torch.randn(3, WIDTH)
    before = snapshot(model)
    plan = w8a16.plan(model)
    assert_unchanged(model, before)
    assert plan.bytes_before == storage_bytes(model)

    original = copy.deepcopy(model)
    assert w8a16.quantize(model) is model
    assert plan.bytes_after == storage_bytes(model)
    wide = [name for name, parameter in model.named_parameters() if parameter.dim() >= 2]
    assert [name for name in wide if model.get_parameter(name).shape[1] > 1] == [], (
        "a weight stayed float, though nothing spoke against it"
    )

    twin = w8a16.dequantize(copy.deepcopy(model))
    assert_equals_twin(model, twin, x)
    changed = any(row.verdict == "int8" for row in plan.rows)
    assert changed == (storage_bytes(model) < storage_bytes(original))

    quantized = snapshot(model)
    assert_unchanged(w8a16.quantize(model), quantized)
