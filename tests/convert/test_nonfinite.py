import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_equals_twin, assert_unchanged, make_twin, mlp, snapshot
from w8a16.errors import UsageError, WeightValueError

HINT = (
    "; nothing was changed; on_nonfinite='keep-float' (--on-nonfinite keep-float) leaves such weights "
    "as they are"
)


def poisoned(*values, layer=2):
    """An MLP whose later layer holds the given `(row, column, value)`; the first layer is sound."""
    model = mlp(16, 32, 8, 4)
    with torch.no_grad():
        for row, column, value in values:
            model[layer].weight[row, column] = value
    return model


@pytest.mark.parametrize(
    "values, text",
    [
        ([(3, 5, torch.nan)], "1 of 256 values is NaN or Inf, the first at [3, 5] (nan)"),
        ([(7, 31, torch.inf)], "1 of 256 values is NaN or Inf, the first at [7, 31] (inf)"),
        (
            [(4, 0, -torch.inf), (2, 9, torch.nan), (2, 8, torch.inf)],
            "3 of 256 values are NaN or Inf, the first at [2, 8] (inf)",
        ),
    ],
    ids=["nan", "inf", "several"],
)
def test_the_error_names_tensor_count_and_first_index(values, text):
    model = poisoned(*values)
    before, types = snapshot(model), [type(m) for m in model.modules()]
    with pytest.raises(WeightValueError) as caught:
        w8a16.quantize(model)
    assert str(caught.value) == f"2.weight: values without an int8 code: {text}{HINT}"
    assert_unchanged(model, before)
    assert [type(m) for m in model.modules()] == types, "the sound layers before it were converted"


def test_all_bad_tensors_are_listed():
    model = poisoned((0, 0, torch.nan))
    with torch.no_grad():
        model[4].weight[1] = torch.inf
    with pytest.raises(WeightValueError) as caught:
        w8a16.quantize(model)
    assert str(caught.value) == (
        "\n  2.weight: values without an int8 code: 1 of 256 values is NaN or Inf, the first at [0, 0] (nan)"
        "\n  4.weight: values without an int8 code: 8 of 32 values are NaN or Inf, the first at [1, 0] (inf)"
        + HINT
    )


def test_a_scale_beyond_float32():
    model = mlp().double()
    with torch.no_grad():
        model[0].weight[0, 0] = 1e300
    with pytest.raises(WeightValueError, match=r"0\.weight: .*needs a scale beyond float32"):
        w8a16.quantize(model)


@pytest.mark.parametrize("include", [None, "2"])
def test_keep_float_leaves_the_weight_and_converts_the_rest(include):
    model = poisoned((3, 5, torch.nan))
    weight = model[2].weight
    w8a16.quantize(model, include=include, on_nonfinite="keep-float")
    assert type(model[2]) is nn.Linear
    assert model[2].weight is weight
    assert isinstance(model[0], w8a16.W8A16LinearLayer) == (include is None)


def test_keep_float_equals_the_twin():
    """A weight of 1e60 has no float32 scale, yet the layer computes with it in float64."""
    model = mlp(16, 32, 8, 4).double()
    with torch.no_grad():
        model[2].weight[3, 5] = 1e60
    w8a16.quantize(model, on_nonfinite="keep-float")
    assert type(model[2]) is nn.Linear
    assert_equals_twin(model, make_twin(model), torch.randn(2, 16, dtype=torch.float64), tolerance=1e-12)


def test_an_included_weight_with_nan_is_a_value_error_not_a_pattern_error():
    with pytest.raises(WeightValueError, match=r"2\.weight"):
        w8a16.quantize(poisoned((3, 5, torch.nan)), include="2")


def test_an_excluded_weight_is_not_looked_at():
    model = w8a16.quantize(poisoned((3, 5, torch.nan)), exclude="2")
    assert type(model[0]) is w8a16.W8A16LinearLayer
    assert type(model[2]) is nn.Linear


def test_plan_says_it_without_raising():
    row = w8a16.plan(poisoned((3, 5, torch.nan))).rows[1]
    assert (row.verdict, row.reason, row.bytes_after) == ("float", "nonfinite", row.bytes_before)
    assert row.sentence.endswith("the first at [3, 5] (nan)")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_nonfinite_bias_is_no_obstacle(value):
    """Only the weight is encoded; the bias stays what it was."""
    model = mlp()
    with torch.no_grad():
        model[0].bias[3] = value
    w8a16.quantize(model)
    assert not torch.isfinite(model[0].bias[3])


def test_an_unknown_choice():
    with pytest.raises(UsageError) as caught:
        w8a16.quantize(mlp(), on_nonfinite="ignore")
    assert str(caught.value) == "on_nonfinite: expected one of error, keep-float, got 'ignore'"
