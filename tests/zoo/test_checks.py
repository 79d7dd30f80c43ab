"""The checks find what is broken: each is tried on a model with one thing wrong."""

import copy

import pytest
import torch
from torch import nn
from zoo.checks import check
from zoo.copies import is_tied, tie_groups
from zoo.entry import Entry
from zoo.outputs import Unequal, call, distance, identical
from zoo.result import Result
from zoo.run import run, summary

import w8a16


def entry_of(build, inputs=lambda: (torch.randn(4, 64),), **more):
    return Entry("specimen", "plain", build, inputs, **more)


def mlp():
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 32))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


def test_a_sound_model_passes():
    result = check(entry_of(mlp))
    assert result.problems == {}
    assert result.coverage == 1.0
    assert result.error <= 1e-5 < result.drift
    assert (result.bfloat16, result.copies, result.gradients) == ("ok", "ok", "ok")
    assert result.generate == "n/a"


def test_a_crash_is_reported_and_the_next_entry_is_checked(capsys):
    from rich.console import Console

    def broken():
        raise RuntimeError("no such animal")

    results = run([entry_of(broken), entry_of(mlp)], check, Console(quiet=True))
    assert [bool(result.problems) for result in results] == [True, False]
    assert "no such animal" in results[0].runs
    assert summary(results).startswith("1 of 2 architectures pass every check")


def test_a_model_without_int8_fails():
    result = check(entry_of(lambda: nn.Sequential(nn.LayerNorm(64))))
    assert result.runs == "nothing became int8"


def test_outputs_that_do_not_depend_on_the_weights_fail():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return x + 1e-6 * self.layer(x)

    assert "nothing is proven" in check(entry_of(Deaf)).equals


def test_a_model_without_float_outputs_fails():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return self.layer(x).argmax(-1)

    assert "no floating-point tensor" in check(entry_of(Picky)).runs


@pytest.mark.parametrize("scale", [1 + 1e-4, 0.99])
def test_a_scale_that_is_off_fails(monkeypatch, scale):
    """The twin is told another story than the quantized model."""
    real = w8a16.dequantize

    def off(model):
        twin = real(model)
        with torch.no_grad():
            next(twin.parameters()).mul_(scale)
        return twin

    monkeypatch.setattr(w8a16, "dequantize", off)
    result = check(entry_of(mlp))
    assert result.equals.startswith("relative error")
    assert "the twin itself moves by" in result.equals
    assert result.gradients.startswith("relative error")


def test_a_steep_model_is_named_as_such(monkeypatch):
    """A comparison at which rounding decides: the report says how far the twin itself moves."""

    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return torch.sin(1e5 * self.layer(x))

    text = check(entry_of(Steep)).equals
    moved = float(text.split("moves by ")[1].split()[0])
    assert moved > 1e-3


def test_an_output_without_gradients_does_not_disturb_the_others():
    """In the twin the weights are trainable, so an output of weights alone asks for gradients there."""

    class Anchored(nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor, self.layer = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x):
            return self.anchor(torch.ones(1, 64)), self.layer(x)

    assert check(entry_of(Anchored)).problems == {}


def test_a_model_that_chooses_its_length_runs(monkeypatch):
    class Chooser(nn.Module):
        scale = 1.0

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            trainable = any(parameter.requires_grad for parameter in self.layer.parameters())
            return self.layer(x)[:2] if trainable else self.layer(x)[:3] * self.scale

    result = check(entry_of(Chooser))
    assert result.runs == "ok"
    assert result.drift is None
    monkeypatch.setattr(Chooser, "scale", torch.inf)
    assert check(entry_of(Chooser)).runs == "an output is not finite"


def test_a_torn_tie_is_found(monkeypatch):
    assert check(entry_of(Tied)).ties == "ok"
    real = w8a16.load

    def tearing(*arguments):
        model = real(*arguments)
        model.second.int8_weights = model.second.int8_weights.clone()
        return model

    monkeypatch.setattr(w8a16, "load", tearing)
    assert check(entry_of(Tied)).ties == "after load no longer one tensor: first.weight = second.weight"


def test_tie_groups_are_found_by_object():
    model = Tied()
    assert tie_groups(model) == [("first.weight", "second.weight")]
    assert is_tied(model, ("first.weight", "second.weight"))
    assert not is_tied(model, ("first.bias", "second.bias"))


def test_a_load_that_forgets_a_tensor_is_found(monkeypatch):
    real = w8a16.load

    def forgetful(model, path):
        model = real(model, path)
        model[2].bias.add_(1)
        return model

    monkeypatch.setattr(w8a16, "load", forgetful)
    assert check(entry_of(mlp)).round_trip == "other tensors in the state dict: ['2.bias']"


def test_a_copy_with_other_bits_is_found(monkeypatch):
    real = copy.deepcopy

    def sloppy(thing, *memo):
        made = real(thing, *memo)
        if isinstance(made, nn.Sequential):
            made[0].scales.mul_(1.001)
        return made

    monkeypatch.setattr("zoo.copies.copy.deepcopy", sloppy)
    assert check(entry_of(mlp)).copies == "deepcopy: the outputs have other bits"


def test_bfloat16_is_held_to_the_noise_of_the_twin(monkeypatch):
    real = call

    def noisy(model, inputs):
        outputs = real(model, inputs)
        quantized = any(buffer.dtype == torch.int8 for buffer in model.buffers())
        if quantized and outputs[0].dtype == torch.bfloat16:
            outputs = [output * 1.01 for output in outputs]
        return outputs

    monkeypatch.setattr("zoo.bfloat16.call", noisy)
    result = check(entry_of(mlp))
    assert result.bfloat16.startswith("median error ")
    assert list(result.problems) == ["bfloat16"]


def test_distance_is_relative_and_strict():
    ones = torch.ones(4)
    assert distance([ones * 1.5], [ones]) == pytest.approx(0.5)
    assert distance([ones, ones], [ones, ones * 2]) == pytest.approx(0.5)
    assert distance([ones], [ones * 0]) == torch.inf
    with pytest.raises(Unequal, match="2 float outputs, expected 1"):
        distance([ones, ones], [ones])
    with pytest.raises(Unequal, match=r"shape \[3\], expected \[4\]"):
        distance([ones[:3]], [ones])
    with pytest.raises(Unequal, match="not finite"):
        distance([ones * torch.nan], [ones])


def test_identical_minds_dtype_sign_of_nothing_and_nan():
    ones = torch.ones(3)
    assert identical([ones], [ones.clone()])
    assert identical([ones * torch.nan], [ones * torch.nan])
    assert not identical([ones], [ones.double()])
    assert not identical([ones], [ones * torch.nan])
    assert not identical([ones], [])


def test_verdicts_that_are_no_complaint():
    result = Result("a", "plain", runs="ok", equals="n/a: why", ties="torn")
    assert result.problems == {"ties": "torn"}
