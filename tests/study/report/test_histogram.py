"""Counting the weights of a layer."""

from __future__ import annotations

import copy

import pytest
import torch

import w8a16
from study.report.examples import heavy_tailed
from w8a16.core import quantize_weight
from w8a16.errors import ShapeError, WeightValueError
from w8a16.study.compare import compare
from w8a16.study.report import histogram, worst_layer, worst_layer_of


def test_every_weight_and_every_code_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(37, 53, generator=torch.Generator().manual_seed(1))
    codes = quantize_weight(weight).int8_weights
    whole = worst_layer("w", weight, codes)
    assert sum(whole.counts) == sum(whole.codes) == whole.elements == 37 * 53
    assert whole.edges[1] == -whole.edges[0] == float(weight.abs().max())
    assert whole.codes[:1] == (0,), "-128 is not used"
    assert whole.codes[255] == int((codes == 127).sum()) > 0
    assert whole.rms == pytest.approx(float(weight.square().mean().sqrt()), rel=1e-6)
    monkeypatch.setattr(histogram, "_CHUNK", 100)
    pieces = worst_layer("w", weight, codes)
    assert (pieces.counts, pieces.codes) == (whole.counts, whole.codes)


def test_places_of_the_bins() -> None:
    weight = torch.linspace(-1, 1, 97, dtype=torch.float64)
    counts = worst_layer("w", weight, torch.zeros(97, dtype=torch.int8)).counts
    assert len(counts) == 96
    assert min(counts) >= 0
    assert counts[0] >= 1
    assert counts[-1] >= 1
    assert sum(counts[:48]) == pytest.approx(48, abs=1)


def test_heavy_tails_show() -> None:
    layer = heavy_tailed()
    assert layer.peak_to_rms > 15
    assert sum(count > 0 for count in layer.counts) < 96


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zeros_and_dtypes(dtype: torch.dtype) -> None:
    layer = worst_layer("w", torch.zeros(2, 3, dtype=dtype), torch.zeros(2, 3, dtype=torch.int8))
    assert layer.edges == (-1.0, 1.0)
    assert (layer.rms, layer.peak_to_rms, layer.small_codes) == (0.0, 0.0, 1.0)
    assert layer.codes[128] == 6


def test_what_cannot_be_counted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "_CHUNK", 1)
    with pytest.raises(ShapeError, match="w: expected weights"):
        worst_layer("w", torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int8))
    with pytest.raises(WeightValueError, match="w: expected finite"):
        worst_layer("w", torch.tensor([1.0, float("nan")]), torch.zeros(2, dtype=torch.int8))
    with pytest.raises(WeightValueError, match="NaN or Inf"):
        worst_layer("w", torch.tensor([float("inf"), float("nan")]), torch.zeros(2, dtype=torch.int8))


@pytest.mark.parametrize("by_name", [False, True])
def test_the_layer_that_lost_most_is_found(by_name: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(32, 32), "rnn": torch.nn.LSTM(32, 16)})
    with torch.no_grad():
        model["rnn"].weight_hh_l0[:, 3] *= 50
    whole = torch.nn.Sequential(model["a"], model["rnn"])
    quantized = w8a16.quantize(copy.deepcopy(whole))
    found = compare(whole, quantized, [torch.randn(4, 32)])
    asked = []

    def weights(name: str) -> torch.Tensor:
        asked.append(name)
        return whole.get_parameter(name)

    worst = worst_layer_of(found, quantized, weights if by_name else whole)
    assert worst is not None
    assert worst.name == "1.weight_hh_l0"
    assert worst.elements == sum(worst.codes) == 64 * 16
    assert worst.edges[1] == pytest.approx(float(whole[1].weight_hh_l0.detach().abs().max()))
    assert asked == (["1.weight_hh_l0"] if by_name else [])


def test_a_model_that_is_not_the_one_compared_has_no_worst_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 16))
    found = compare(model, w8a16.quantize(copy.deepcopy(model)), [torch.randn(4, 16)])
    assert worst_layer_of(found, torch.nn.Identity(), model) is None
