"""The error of each quantized weight, and the law that bounds it."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import w8a16
from support.twins import mlp
from w8a16.errors import ModuleError
from w8a16.layers import COLUMNS, ROWS, quantize_with_layout
from w8a16.layers.parameters import W8A16Parameters
from w8a16.study.metrics import weight_error, weight_errors

LAW = 1 + 2**-15


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def pair(model, **options):
    return model, w8a16.quantize(copy.deepcopy(model), **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_law_holds(dtype):
    errors = weight_errors(*pair(mlp(256, 512, 64).to(dtype)))
    assert {error.name for error in errors} == {"0", "2"}
    for error in errors:
        assert 0.9 < error.largest_half_steps <= LAW
        # Uniform weights in -a..a have the power a^2 / 3, their rounding errors (a / 127)^2 / 12.
        assert error.sqnr_db == pytest.approx(10 * math.log10(4 * 127**2), abs=0.5)


def test_by_hand():
    """The scale is 1: the codes are the rounded weights, and 0.5 away is one half step."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[127.0, 10.25, -3.5, 0.0]])
    (error,) = weight_errors(*pair(nn.Sequential(layer)))
    assert (error.name, error.shape) == ("0", (1, 4))
    assert error.largest_half_steps == 1.0
    signal = 127**2 + 10.25**2 + 3.5**2
    assert error.sqnr_db == pytest.approx(10 * math.log10(signal / (0.25**2 + 0.5**2)))


def test_an_exact_weight_has_no_error():
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[127.0, -1.0, 0.0, 64.0], [0.0, 0.0, 0.0, 0.0]])
    (error,) = weight_errors(*pair(nn.Sequential(layer)))
    assert (error.sqnr_db, error.largest_half_steps) == (math.inf, 0.0)


def test_damage_is_seen():
    """One code that is two steps off is beyond the law: the measure must not hide it."""
    reference, quantized = pair(mlp(64, 64))
    quantized[0].int8_weights[3, 5] = 0 if abs(int(quantized[0].int8_weights[3, 5])) > 2 else 100
    assert weight_errors(reference, quantized)[0].largest_half_steps > 3


def test_the_worst_comes_first():
    model = mlp(64, 64, 64, 64)
    model[2].weight.data[:, 0] = 10  # one outlier for each row makes the steps coarse
    errors = weight_errors(*pair(model))
    assert errors[0].name == "2"
    assert [e.sqnr_db for e in errors] == sorted(e.sqnr_db for e in errors)
    assert errors[0].sqnr_db < errors[1].sqnr_db


def test_weights_that_stayed_float_are_left_out():
    reference, quantized = pair(mlp(64, 64, 64), exclude="2")
    assert [error.name for error in weight_errors(reference, quantized)] == ["0"]
    assert weight_errors(reference, reference) == []


def test_the_effective_weight_is_the_reference():
    reference = nn.Sequential(parametrizations.weight_norm(nn.Linear(64, 64)))
    (error,) = weight_errors(*pair(reference))
    assert 0.9 < error.largest_half_steps <= LAW


def test_nothing_is_changed():
    reference, quantized = pair(mlp(64, 64))
    before = reference[0].weight.clone(), quantized[0].int8_weights.clone()
    weight_errors(reference, quantized)
    assert torch.equal(reference[0].weight, before[0])
    assert torch.equal(quantized[0].int8_weights, before[1])


def test_other_shapes_are_named():
    with pytest.raises(ModuleError) as caught:
        weight_errors(mlp(64, 32), w8a16.quantize(mlp(64, 64)))
    assert str(caught.value) == "0: expected a weight [64, 64], got [32, 64]"


@pytest.mark.parametrize("reference", [mlp(64, 64), nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())])
def test_a_missing_counterpart_is_named(reference):
    with pytest.raises(ModuleError, match=r"[02]: no counterpart with a weight in the reference"):
        weight_errors(reference, w8a16.quantize(mlp(64, 64, 64)))


# --- tails and rows -------------------------------------------------------------------------------


def test_the_worst_row_is_the_one_with_an_outlier():
    model = mlp(256, 64)
    model[0].weight.data[17, 3] = 40 * model[0].weight.data.std()
    (error,) = weight_errors(*pair(model))
    row = model[0].weight.data[17].double()
    assert error.worst_row == 17
    assert error.worst_row_crest_factor == pytest.approx(float(row.abs().max() / row.square().mean().sqrt()))
    assert error.worst_row_sqnr_db == pytest.approx(
        20 * math.log10(127 * math.sqrt(12) / error.worst_row_crest_factor), abs=1
    )
    assert error.crest_factor == pytest.approx(math.sqrt(3), abs=0.05)  # the others are uniform
    assert error.kurtosis == pytest.approx(1.8, abs=0.1)
    assert error.sqnr_db > error.worst_row_sqnr_db + 5


def test_blocks_of_rows_do_not_matter(monkeypatch):
    reference, quantized = pair(mlp(64, 50))
    before = weight_errors(reference, quantized)
    monkeypatch.setattr("w8a16.study.metrics.weights._BLOCK_ELEMENTS", 200)
    (after,) = weight_errors(reference, quantized)
    assert after.sqnr_db == pytest.approx(before[0].sqnr_db)
    assert dataclasses.replace(after, sqnr_db=0) == dataclasses.replace(before[0], sqnr_db=0)


@pytest.mark.parametrize("layout", ["groups", "outliers"])
@pytest.mark.parametrize("transposed", [False, True])
def test_refined_weights(layout, transposed):
    """In groups, or with outliers apart, a row with an outlier keeps its other weights exact."""
    weight = torch.randn(16, 256)
    weight[5, 200] = 30.0
    stored = weight.T.contiguous() if transposed else weight
    plain = COLUMNS if transposed else ROWS
    errors = []
    for each in (plain, plain.in_groups(64) if layout == "groups" else plain.with_outliers(2)):
        module = nn.Module()
        module.weight = nn.Parameter(stored)
        W8A16Parameters.adopt(
            module, {"weight": quantize_with_layout(stored, each)}, torch.float32, {"weight": each}
        )
        errors.append(weight_error("up", module, "weight", stored))
        expected = (module.dequantized("weight").double() - stored.double()).square().sum()
        assert errors[-1].sqnr_db == pytest.approx(
            10 * math.log10(float(stored.double().square().sum() / expected)), abs=1e-3
        )
    assert [error.largest_half_steps <= LAW for error in errors] == [True, True]
    assert [error.largest_half_steps > 0.9 for error in errors] == [True, True]
    assert (errors[0].worst_row, errors[0].shape) == (5, tuple(stored.shape))
    assert errors[1].worst_row_sqnr_db > errors[0].worst_row_sqnr_db + 3
