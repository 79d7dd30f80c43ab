"""Which modules count as fused experts, and which way their weights lie, told by structure."""

import pytest
import torch
from torch import nn

import w8a16
from w8a16.layers.expert_layouts import COLUMNS_OF_EXPERTS, ROWS_OF_EXPERTS, expert_layouts

E, HIDDEN, INNER = 6, 32, 20


def module(shapes, **attributes):
    built = nn.Module()
    for name, value in attributes.items():
        setattr(built, name, value)
    for name, shape in shapes.items():
        built.register_parameter(name, nn.Parameter(torch.randn(shape)))
    return built


ROWS = {
    "gate and up in one": ({"gate_up": (E, 2 * INNER, HIDDEN), "down": (E, HIDDEN, INNER)}, {}),
    "hidden twice as wide": ({"gate_up": (E, 40, 40), "down": (E, 40, 20)}, {}),
    "three": (
        {"gate": (E, INNER, HIDDEN), "up": (E, INNER, HIDDEN), "down": (E, HIDDEN, INNER)},
        {"hidden_size": HIDDEN},
    ),
    "no gate": ({"up": (E, INNER, HIDDEN), "down": (E, HIDDEN, INNER)}, {"hidden_dim": HIDDEN}),
    "only one": ({"weight": (E, INNER, HIDDEN)}, {"input_size": HIDDEN, "output_size": INNER}),
}
COLUMNS = {
    "gate and up in one": ({"gate_up": (E, HIDDEN, 2 * INNER), "down": (E, INNER, HIDDEN)}, {}),
    "no gate": ({"up": (E, HIDDEN, INNER), "down": (E, INNER, HIDDEN)}, {"hidden_size": HIDDEN}),
    "only one": ({"weight": (E, HIDDEN, INNER)}, {"in_features": HIDDEN, "out_features": INNER}),
}
NOTHING = {
    "either way": ({"up": (E, INNER, HIDDEN), "down": (E, HIDDEN, INNER)}, {}),
    "square": ({"weight": (E, HIDDEN, HIDDEN)}, {"input_size": HIDDEN, "output_size": HIDDEN}),
    "contradiction": (
        {"first": (E, INNER, HIDDEN), "second": (E, HIDDEN, INNER)},
        {"input_size": HIDDEN, "output_size": INNER},
    ),
    "matrices": ({"up": (E * INNER, HIDDEN), "down": (E * INNER, HIDDEN)}, {"hidden_size": HIDDEN}),
    "no sizes": ({"weight": (E, INNER, HIDDEN)}, {}),
}


@pytest.mark.parametrize(("shapes", "sizes"), ROWS.values(), ids=ROWS)
def test_output_channels_before_inputs(shapes, sizes):
    assert expert_layouts(module(shapes, num_experts=E, **sizes)) == dict.fromkeys(shapes, ROWS_OF_EXPERTS)


@pytest.mark.parametrize(("shapes", "sizes"), COLUMNS.values(), ids=COLUMNS)
def test_inputs_before_output_channels(shapes, sizes):
    found = expert_layouts(module(shapes, n_routed_experts=E, **sizes))
    assert found == dict.fromkeys(shapes, COLUMNS_OF_EXPERTS)


@pytest.mark.parametrize(("shapes", "sizes"), NOTHING.values(), ids=NOTHING)
def test_what_is_unclear_is_handled_as_any_parameter(shapes, sizes):
    built = module(shapes, num_experts=E, **sizes)
    assert expert_layouts(built) == {}
    assert {(row.kind, row.verdict) for row in w8a16.plan(built).rows} == {("parameter", "int8")}


@pytest.mark.parametrize("attributes", [{}, {"num_experts": E + 1}, {"num_heads": E}, {"num_experts": True}])
def test_without_a_count_of_experts_there_are_none(attributes):
    assert expert_layouts(module(ROWS["gate and up in one"][0], **attributes)) == {}


def test_a_count_of_one_does_not_make_a_token_an_expert():
    tokens = {"start": (1, 1, HIDDEN), "end": (1, 1, HIDDEN)}
    assert expert_layouts(module(tokens, num_experts_per_tok=1, hidden_size=HIDDEN)) == {}


def test_only_the_projections_are_taken():
    shapes = ROWS["gate and up in one"][0]
    others = {"gate_up_bias": (E, 1, 2 * INNER), "norm": (E, 7, 9), "table": (E, HIDDEN)}
    built = module(shapes | others, num_experts=E)
    assert expert_layouts(built) == dict.fromkeys(shapes, ROWS_OF_EXPERTS)
    kinds = {row.name: (row.kind, row.verdict) for row in w8a16.plan(built).rows}
    assert kinds["gate_up"] == kinds["down"] == ("experts", "int8")
    assert kinds["gate_up_bias"] == ("parameter", "float")
    assert kinds["norm"][0] == kinds["table"][0] == "parameter"


def test_a_parametrized_stack_is_recognised_and_its_effective_weight_taken():
    built = module(ROWS["gate and up in one"][0], num_experts=E)

    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    plain = built.down.detach().clone()
    nn.utils.parametrize.register_parametrization(built, "down", Doubled())
    assert set(expert_layouts(built)) == {"gate_up", "down"}
    w8a16.quantize(built)
    error = (built.dequantized("down") - 2 * plain).abs().amax(-1)
    assert (error <= built.scales_of("down") * 0.501).all()


def test_kinds_chooses_them():
    built = nn.ModuleList([nn.Linear(64, 64), module(ROWS["gate and up in one"][0], num_experts=E)])
    rows = {row.name: row.verdict for row in w8a16.plan(built, kinds="experts").rows}
    assert rows == {"0.weight": "float", "1.gate_up": "int8", "1.down": "int8"}
