"""torch alone would cast a float tensor into the int8 buffer, mostly zeros, without a word."""

import pytest
import torch
from torch import nn

from support.twins import assert_unchanged, mlp, quantized_linear, snapshot
from w8a16 import quantize


def scales_with(value, at=7):
    scales = torch.ones(32)
    scales[at] = value
    return scales


WRONG = {
    "float codes": (
        {"int8_weights": torch.randn(32, 16)},
        "int8_weights: expected torch.int8, found torch.float32",
    ),
    "uint8 codes": (
        {"int8_weights": torch.zeros(32, 16, dtype=torch.uint8)},
        "int8_weights: expected torch.int8, found torch.uint8",
    ),
    "transposed codes": (
        {"int8_weights": torch.zeros(16, 32, dtype=torch.int8)},
        "int8_weights: expected shape [32, 16], found [16, 32]",
    ),
    "half scales": (
        {"scales": torch.ones(32, dtype=torch.float16)},
        "scales: expected torch.float32, found torch.float16",
    ),
    "column of scales": (
        {"scales": torch.ones(32, 1)},
        "scales: expected shape [32], found [32, 1]",
    ),
    "too few scales": ({"scales": torch.ones(31)}, "scales: expected shape [32], found [31]"),
    "NaN scale": ({"scales": scales_with(torch.nan)}, "expected finite positive scales, found nan at [7]"),
    "infinite scale": (
        {"scales": scales_with(torch.inf)},
        "expected finite positive scales, found inf at [7]",
    ),
    "negative scale": ({"scales": scales_with(-1)}, "expected finite positive scales, found -1.0 at [7]"),
    "zero scale": ({"scales": scales_with(0, at=31)}, "expected finite positive scales, found 0.0 at [31]"),
    "not a tensor": ({"scales": [1.0] * 32}, "scales: expected a tensor, found list"),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_entry_is_named_and_nothing_is_loaded(wrong, strict):
    """`strict=False` is about names; wrong values are never loaded."""
    entries, text = WRONG[wrong]
    model = nn.Sequential(nn.Identity(), quantized_linear())
    before = snapshot(model)
    state = nn.Sequential(nn.Identity(), quantized_linear()).state_dict()
    state.update({f"1.{name}": value for name, value in entries.items()})
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state, strict=strict)
    assert "\t1." in str(caught.value)
    assert str(caught.value).endswith(text)
    assert_unchanged(model, before)


def test_all_wrong_entries_of_all_modules_are_listed_at_once():
    model = quantize(mlp())
    state = model.state_dict()
    state["0.int8_weights"] = state["0.int8_weights"].float()
    state["0.scales"] = state["0.scales"].double()
    state["2.scales"] = -state["2.scales"]
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert lines[0] == "0.int8_weights: expected torch.int8, found torch.float32"
    assert lines[1] == "0.scales: expected torch.float32, found torch.float64"
    assert lines[2].startswith("2.scales: expected finite positive scales, found -")
    assert len(lines) == 3


@pytest.mark.parametrize("strict", [True, False])
def test_a_float_checkpoint_for_a_quantized_model(strict):
    """Without the check, strict=False would keep the old codes and load only the new bias."""
    state = mlp().state_dict()
    model = quantize(mlp())
    before = snapshot(model)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state, strict=strict)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert (
        "0.weight: found a float weight for a W8A16LinearLayer, which expects 0.int8_weights and 0.scales; "
        "load the float checkpoint into the float model and quantize that, or call layer.quantize(weight)"
    ) in lines
    assert sum("found a float weight" in line for line in lines) == 2
    assert_unchanged(model, before)


def test_a_quantized_checkpoint_for_a_float_model():
    """The float module is torch's own: it must refuse, and it names our entries."""
    with pytest.raises(RuntimeError) as caught:
        nn.Sequential(nn.Linear(16, 32)).load_state_dict(nn.Sequential(quantized_linear()).state_dict())
    assert 'Missing key(s) in state_dict: "0.weight"' in str(caught.value)
    assert 'Unexpected key(s) in state_dict: "0.int8_weights", "0.scales"' in str(caught.value)


def test_assign_is_checked_too():
    model = nn.Sequential(quantized_linear())
    state = {**model.state_dict(), "0.int8_weights": torch.randn(32, 16)}
    with pytest.raises(RuntimeError, match=r"expected torch\.int8, found torch\.float32"):
        model.load_state_dict(state, assign=True)
    assert model[0].int8_weights.dtype == torch.int8
