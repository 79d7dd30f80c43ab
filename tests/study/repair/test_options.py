"""What the upgrades do to the error of heavy-tailed weights, and which of them are worth their bytes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from w8a16.convert import Recipe, quantize
from w8a16.study.repair.options import OUTLIERS, options_of
from w8a16.study.variants import float_rows

ROWS, COLUMNS = 256, 4096


def gaussian():
    torch.manual_seed(0)
    return torch.randn(ROWS, COLUMNS)


def student_t():
    torch.manual_seed(0)
    return torch.distributions.StudentT(4.0).sample((ROWS, COLUMNS))


def one_outlier():
    weight = gaussian()
    weight[torch.arange(ROWS), torch.randint(COLUMNS, (ROWS,))] = 20.0
    return weight


def layer_of(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


@pytest.mark.parametrize(
    "make, plain, grouped, with_outliers",
    [(gaussian, 0.87, 0.65, 0.74), (student_t, 2.6, 1.08, 1.37), (one_outlier, 4.4, 0.98, 0.73)],
)
@torch.no_grad()
def test_output_errors_in_percent(make, plain, grouped, with_outliers):
    """Groups bring Student-t tails down, outliers the one large weight; both measured on the layer."""
    layer = layer_of(make())
    x = torch.randn(64, COLUMNS)
    reference = layer(x)
    errors = []
    for recipe in (None, Recipe(group_size={"weight": 128}), Recipe(outliers={"weight": 4})):
        output = quantize(layer_of(layer.weight), recipe=recipe)(x)
        errors.append(100 * float((output - reference).norm() / reference.norm()))
    assert errors == pytest.approx([plain, grouped, with_outliers], rel=0.05)


def test_options_are_priced_as_the_plan_prices_them_and_their_errors_are_those_of_the_weight():
    layer = layer_of(student_t())
    (weight,) = float_rows(layer)
    options = options_of(weight, ("outliers", "groups", "float"), None)
    assert options[0].words == "int8"
    assert options[-1].words == "float"
    for option in options:
        layout = option.layout
        if layout is None:
            assert option.bytes == layer.weight.nbytes
            continue
        rules = {"group_size": {"weight": layout.group}} if layout.group else {}
        rules |= {"outliers": {"weight": layout.outliers}} if layout.outliers else {}
        made = quantize(layer_of(layer.weight), recipe=Recipe(**rules))
        assert option.bytes == sum(b.nbytes for b in made.buffers() if b is not None)
    assert [o.bytes for o in options] == sorted(o.bytes for o in options)
    assert [o.error for o in options] == sorted((o.error for o in options), reverse=True)
    bought = [(a.error - b.error) / (b.bytes - a.bytes) for a, b in pairwise(options)]
    assert bought == sorted(bought, reverse=True)
    assert len(options) >= 4


def test_one_outlier_is_the_bargain_where_there_is_one_large_weight():
    (weight,) = float_rows(layer_of(one_outlier()))
    options = options_of(weight, ("outliers", "groups", "float"), None)
    assert options[1].words == "1 outlier a row"
    assert options[1].error < 0.05
    assert options[1].bytes - options[0].bytes == 8 * ROWS


def test_an_error_counts_by_the_input_that_it_meets():
    """The outlier's column is never fed: keeping it exact buys nothing by itself, the finer step does."""
    (weight,) = float_rows(layer_of(torch.randn(4, 64)))
    alike = options_of(weight, ("outliers",), torch.ones(64, dtype=torch.float64))
    assert [o.error for o in alike] == pytest.approx(
        [o.error for o in options_of(weight, ("outliers",), None)]
    )
    largest = weight.read().abs().argmax(1)
    power = torch.zeros(64, dtype=torch.float64)
    power[largest] = 1
    fed_only_there = options_of(weight, ("outliers",), power)
    assert fed_only_there[1].error < alike[1].error


def test_what_does_not_fit_is_no_option():
    odd = float_rows(nn.Linear(100, 4))[0]
    words = [option.words for option in options_of(odd, ("groups", "float"), None)]
    assert words == ["int8", "float"]
    convolution = float_rows(nn.Conv2d(64, 64, 3))[0]
    assert [o.words for o in options_of(convolution, ("outliers", "groups"), None)] == ["int8"]
    narrow = float_rows(nn.Linear(5, 64))[0]
    offered = {option.words for option in options_of(narrow, ("outliers",), None)}
    assert "8 outliers a row" not in offered
    assert max(OUTLIERS) > 5


def test_an_exact_weight_needs_nothing():
    exact = float_rows(layer_of(torch.tensor([[127.0, -3.0, 5.0, 0.0] * 16])))[0]
    assert [option.words for option in options_of(exact, ("outliers", "groups", "float"), None)] == ["int8"]
