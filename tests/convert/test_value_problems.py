"""Weights on the meta device whose values are known to others: what they say decides."""

import pytest
import torch
from torch import nn

import w8a16
from support.files import on_meta
from support.twins import mlp
from w8a16.convert import Recipe, execute
from w8a16.errors import WeightValueError

PROBLEM = "1 of 256 values is NaN or Inf, the first at [3, 5] (nan)"


def test_keep_float_keeps_what_is_named():
    model = on_meta(lambda: mlp(16, 32, 8, 4))
    plan = execute(model, on_nonfinite="keep-float", value_problems={"2.weight": PROBLEM})
    verdicts = {row.name: (row.verdict, row.reason) for row in plan.rows}
    assert verdicts["2.weight"] == ("float", "nonfinite")
    assert [type(model[i]) for i in (0, 2, 4)] == [w8a16.W8A16LinearLayer, nn.Linear, w8a16.W8A16LinearLayer]
    (row,) = (row for row in plan.rows if row.reason == "nonfinite")
    assert row.sentence == f"values without an int8 code: {PROBLEM}"


def test_an_error_names_all_that_are_named():
    model = on_meta(lambda: mlp(16, 32, 8, 4))
    with pytest.raises(WeightValueError) as caught:
        execute(model, value_problems={"2.weight": PROBLEM, "4.weight": "all of them"})
    assert f"\n  2.weight: values without an int8 code: {PROBLEM}\n  4.weight: " in str(caught.value)
    assert all(type(model[i]) is nn.Linear for i in (0, 2, 4))


def test_any_name_of_a_tied_weight_will_do():
    for name in ("0.weight", "1.weight"):
        model = on_meta(lambda: nn.Sequential(nn.Embedding(30, 40), nn.Linear(40, 30)))
        model[1].weight = model[0].weight
        plan = execute(model, on_nonfinite="keep-float", value_problems={name: PROBLEM})
        assert [row.reason for row in plan.rows] == ["nonfinite"]
        assert model[0].weight is model[1].weight


def test_the_callers_wish_and_structure_come_first():
    model = on_meta(lambda: nn.Sequential(nn.Linear(16, 32), nn.Linear(1, 64)))
    plan = execute(
        model,
        Recipe(exclude="0"),
        on_nonfinite="keep-float",
        value_problems={"0.weight": PROBLEM, "1.weight": PROBLEM, "nobody": PROBLEM},
    )
    assert [row.reason for row in plan.rows] == ["excluded", "not_smaller"]


def test_values_that_are_here_are_looked_at_all_the_same():
    model = nn.Sequential(nn.Linear(16, 32))
    with torch.no_grad():
        model[0].weight[1, 2] = torch.inf
    plan = execute(model, on_nonfinite="keep-float", value_problems={})
    assert [row.reason for row in plan.rows] == ["nonfinite"]
