"""What cannot be compared gets an error that says which and what to pass instead."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, mlp, snapshot
from w8a16.errors import ComparisonError, UsageError
from w8a16.study.compare import compare
from w8a16.study.compare.units import weights_of


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def pair(*widths):
    model = mlp(*(widths or (32, 64, 8))).eval()
    return model, w8a16.quantize(copy.deepcopy(model))


def message(error, *arguments, **options):
    with pytest.raises(error) as caught:
        compare(*arguments, **options)
    return str(caught.value)


X = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


# --- the models -------------------------------------------------------------------------------------


def test_a_model_without_int8_modules():
    model, _ = pair()
    expected = "quantized: Sequential has no int8 module; pass what w8a16.quantize or w8a16.load returned"
    assert message(ComparisonError, copy.deepcopy(model), model, [X]) == expected
    assert message(ComparisonError, None, model, [X], weights=weights_of(model)) == expected


def test_a_reference_that_is_int8():
    _, quantized = pair()
    assert message(ComparisonError, copy.deepcopy(quantized), quantized, [X]) == (
        "reference: expected a float model, but 2 of its modules are int8 (0, 2); pass the model as it was "
        "before w8a16.quantize"
    )
    assert "the same object: w8a16.quantize works in place" in message(
        ComparisonError, quantized, quantized, [X]
    )


def test_models_that_do_not_correspond():
    _, quantized = pair()
    shorter = message(ComparisonError, mlp(32, 8), quantized, [X])
    assert shorter == (
        "reference: Sequential is not the float model of the int8 one: 0.weight is [8, 32], expected "
        "[64, 32], 2.weight [8, 64] has no counterpart; pass the model that was quantized, before it was"
    )
    deep = w8a16.quantize(mlp(*[16] * 14))
    many = message(ComparisonError, nn.Sequential(), deep, [torch.randn(2, 16)])
    assert many.count("no counterpart") == 10
    assert "and 3 more" in many


def test_neither_or_both_references():
    model, quantized = pair()
    expected = "expected a reference model or `weights` to run the int8 model with, got "
    assert message(UsageError, None, quantized, [X]) == expected + "neither"
    assert message(UsageError, model, quantized, [X], weights=weights_of(model)) == expected + "both"


def test_weights_that_are_missing():
    model, quantized = pair()
    stored = {"0.weight": model[0].weight}
    assert "no float weight for '2.weight'" in message(
        ComparisonError, None, quantized, [X], weights=stored.__getitem__
    )


# --- the inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs, kind", [(X, "Tensor"), ({"x": X}, "dict"), ("text", "str"), (7, "int")])
def test_one_batch_instead_of_batches(inputs, kind):
    assert message(UsageError, *pair(), inputs) == (
        f"inputs: expected an iterable of batches, got one {kind}; pass [inputs] for a single batch"
    )


@pytest.mark.parametrize("inputs", [[], (), iter([])])
def test_no_batches(inputs):
    assert message(UsageError, *pair(), inputs) == "inputs: expected at least one batch, got none"


@pytest.mark.parametrize(
    "batch, words",
    [(X[:0], "float32 [0, 32]"), ({"x": X[:0]}, "x float32 [0, 32]"), ((), "no tensors, tuple")],
)
def test_an_empty_batch(batch, words):
    assert message(UsageError, *pair(), [X, batch]) == (
        f"inputs: batch 1 is empty ({words}); pass tensors with at least one sample"
    )


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "batch, words",
    [
        ({"pixel_values": X}, "(pixel_values float32 [3, 32]): TypeError: "),
        (torch.zeros(3, 32, dtype=torch.int64), "(int64 [3, 32]): RuntimeError: "),
        (torch.randn(3, 31), "(float32 [3, 31]): RuntimeError: "),
    ],
)
def test_the_wrong_modality(batch, words, in_memory):
    model, quantized = pair()
    before, classes = snapshot(quantized), [type(module) for module in quantized.modules()]
    options = {} if in_memory else {"weights": weights_of(model)}
    text = message(ComparisonError, model if in_memory else None, quantized, [X, batch], **options)
    assert text.startswith("the float model cannot take batch 1 " + words)
    assert "pass batches of what Sequential.forward takes: a tensor, a tuple of positional arguments" in text
    assert [type(module) for module in quantized.modules()] == classes
    assert_unchanged(quantized, before)
    assert not any(module._forward_hooks for module in [*model.modules(), *quantized.modules()])


def test_inputs_with_nan():
    wrong = X.clone()
    wrong[1, 2] = torch.nan
    assert message(ComparisonError, *pair(), [X, wrong]) == (
        "inputs: batch 1 holds NaN or Inf: 1 of 96 values of the output, the first at [1, 2]"
    ).replace("the output", "the tensor")


def test_an_unknown_task():
    assert message(UsageError, *pair(), [X], task="poetry") == (
        "task: expected one of language, embedding, classification, ctc, seq2seq, image, regression, any, "
        "got 'poetry'"
    )


# --- the outputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_float_model_with_nan(in_memory):
    """The first module with it is named, not the last."""
    model, quantized = pair(32, 64, 64, 8)
    for each in (model, quantized):
        each[2].bias.data[5] = torch.nan
    options = {} if in_memory else {"weights": weights_of(model)}
    kind = "Linear" if in_memory else "W8A16LinearLayer"
    assert message(ComparisonError, model if in_memory else None, quantized, [X], **options) == (
        "the float model gives NaN or Inf for batch 0: 24 of 24 values of the output, the first at [0, 0]; "
        f"the first module whose output is not finite is 2 ({kind}); "
        "there is nothing to compare with; pass inputs that suit the float model, or the model in another "
        "dtype"
    )


def test_an_int8_model_with_inf():
    model, quantized = pair(32, 64, 64, 8)
    quantized[0].scales[3] = torch.inf
    text = message(ComparisonError, model, quantized, [X])
    assert text.startswith("the int8 model gives NaN or Inf for batch 0: 24 of 24 values")
    assert (
        "the first module whose output is not finite is 0 (W8A16LinearLayer); the float model's are" in text
    )


@dataclass
class Outputs:
    logits: torch.Tensor
    states: list


class Gives(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer, self.outputs = nn.Linear(32, 32), outputs

    def forward(self, x):
        return self.outputs(self.layer(x))


@pytest.mark.parametrize(
    "ours, theirs, words",
    [
        (
            lambda y: {"a": y},
            lambda y: {"b": y},
            "a is missing in the int8 model's; b is missing in the float model's",
        ),
        (lambda y: y, lambda y: y[:2], "the output has the shapes [3, 32] and [2, 32]"),
        (
            lambda y: Outputs(y, [y, y]),
            lambda y: Outputs(y, [y, y[:, :4]]),
            "states[1] has the shapes [3, 32] and [3, 4]",
        ),
    ],
)  # fmt: skip
def test_outputs_that_do_not_fit(ours, theirs, words):
    model = Gives(ours)
    quantized = w8a16.quantize(copy.deepcopy(model))
    quantized.outputs = theirs
    assert message(ComparisonError, model, quantized, [X]) == (
        f"outputs of the float and the int8 model cannot be compared: {words}; pass two models of one "
        "architecture, set up in the same way"
    )


def test_nested_outputs_are_named_by_their_places():
    model = Gives(lambda y: {"pair": (y, Outputs(y + 1, [y * 2j])), "cache": object(), "ids": y.long()})
    comparison = compare(model, w8a16.quantize(copy.deepcopy(model)), [(X,)])
    assert [path for path, _ in comparison.outputs] == ["pair[0]", "pair[1].logits", "pair[1].states[0]"]


def test_outputs_without_floats():
    model = Gives(lambda y: y.argmax(-1))
    text = message(ComparisonError, model, w8a16.quantize(copy.deepcopy(model)), [X])
    assert text.startswith("the outputs hold no float tensor to compare: int64 [3]")
    transcripts = compare(Gives2(), w8a16.quantize(Gives2()), [X], task="seq2seq")
    assert transcripts.outputs == ()
    assert transcripts.task["token_error_rate"].value <= 1


class Gives2(nn.Module):
    """Token ids only, as `generate` returns them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(32, 32)

    def forward(self, x):
        return (self.layer(x) * 8).long()


def test_batches_without_tensors_are_the_models_affair():
    """Some models take sentences."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, sentences):
            return self.layer(torch.stack([torch.full((32,), float(len(each))) for each in sentences]))

    model = Counts()
    result = compare(model, w8a16.quantize(copy.deepcopy(model)), [{"sentences": ["one", "three"]}])
    assert dict(result.outputs)[""].elements == 64
