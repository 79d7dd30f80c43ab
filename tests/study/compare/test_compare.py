"""The whole comparison, against figures computed here in another way."""

import copy
import math
import weakref

import pytest
import torch
from torch import nn

import w8a16
from support.twins import mlp, snapshot
from w8a16.study.compare import Comparison, compare
from w8a16.study.compare.drift import DriftSum
from w8a16.study.compare.units import weights_of


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def pair(model):
    model = model.eval()
    return model, w8a16.quantize(copy.deepcopy(model))


def decibels(reference, other):
    reference, other = reference.double(), other.double()
    return float(10 * torch.log10(reference.square().sum() / (reference - other).square().sum()))


@pytest.mark.parametrize("in_memory", [True, False])
def test_drift_of_each_module_by_hand(in_memory):
    model, quantized = pair(mlp(64, 96, 32))
    batches = [torch.randn(5, 64), torch.randn(3, 64)]
    if in_memory:
        result = compare(model, quantized, batches)
    else:
        result = compare(None, quantized, batches, weights=weights_of(model))
    x = torch.cat(batches)
    with torch.no_grad():
        hidden, drifted = model[1](model[0](x)), quantized[1](quantized[0](x))
        first, second = result.modules
        assert (first.name, first.depth, second.name, second.depth) == ("0", 0, "2", 1)
        assert first.own == first.drifted
        assert first.own.sqnr_db == pytest.approx(decibels(model[0](x), quantized[0](x)))
        assert second.own.sqnr_db == pytest.approx(decibels(model[2](hidden), quantized[2](hidden)))
        assert second.drifted.sqnr_db == pytest.approx(decibels(model[2](hidden), quantized[2](drifted)))
        expected = model(x).double(), quantized(x).double()
    ((path, drift),) = result.outputs
    assert path == ""
    assert drift.sqnr_db == pytest.approx(decibels(*expected))
    assert drift.cosine == pytest.approx(
        float(nn.functional.cosine_similarity(*(e.flatten() for e in expected), dim=0))
    )
    # The float layers round otherwise for 8 rows than for 5 and 3: an ulp of outputs around 0.3.
    largest = float((expected[0] - expected[1]).abs().max())
    assert drift.largest_difference == pytest.approx(largest, abs=1e-7)
    assert drift.largest_reference == pytest.approx(float(expected[0].abs().max()))
    assert drift.elements == 8 * 32
    assert (result.batches, result.samples, result.model) == (2, 8, "Sequential")
    assert second.drifted.sqnr_db < second.own.sqnr_db


def test_both_ways_find_the_same():
    """A float model in memory, or the int8 model in float mode: bit for bit."""
    model, quantized = pair(mlp(64, 96, 32))
    batches = [torch.randn(5, 64)]
    ours = compare(model, quantized, batches, sensitivity=True)
    theirs = compare(None, quantized, batches, weights=weights_of(model), sensitivity=True)
    assert ours == theirs
    assert isinstance(ours, Comparison)


@pytest.mark.parametrize("in_memory", [True, False])
def test_nothing_is_changed(in_memory):
    """Weights, classes, hooks, training flags and the random state."""
    model, quantized = pair(mlp(64, 96, 32))
    quantized.train()
    model[1].train()
    before, state = snapshot(quantized), torch.get_rng_state()
    classes = [type(module) for module in quantized.modules()]
    dictionaries = [dict(module.__dict__) for module in quantized.modules()]
    source = {"weights": weights_of(model)} if not in_memory else {}
    compare(
        model if in_memory else None,
        quantized,
        [torch.randn(5, 64, generator=torch.Generator())],
        sensitivity=True,
        **source,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [type(module) for module in quantized.modules()] == classes
    assert [set(module.__dict__) for module in quantized.modules()] == [set(d) for d in dictionaries]
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantized.state_dict().items())
    assert all(module.training for module in quantized.modules())
    assert [module.training for module in model.modules()] == [False, False, True, False]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*model.modules(), *quantized.modules()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Both sides in the same dtype: what is left is the weights."""
    model, quantized = pair(mlp(64, 96, 32).to(dtype))
    batches = [torch.randn(50, 64, dtype=dtype)]
    result = compare(model, quantized, batches)
    assert all(35 < module.own.sqnr_db < 55 for module in result.modules)
    assert result == compare(None, quantized, batches, weights=weights_of(model))


def test_bytes_coverage_and_reasons_are_those_of_the_plan():
    model = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 64), nn.Linear(64, 8)).eval()
    model.vector = nn.Parameter(torch.randn(1, 64))
    expected = w8a16.plan(model, exclude="2")
    quantized = w8a16.quantize(copy.deepcopy(model), exclude="2")
    result = compare(model, quantized, [torch.randint(100, (3, 5))])
    assert (result.bytes_before, result.bytes_after) == (expected.bytes_before, expected.bytes_after)
    assert result.coverage == pytest.approx(expected.coverage)
    assert 0 < result.coverage < 1
    assert dict(result.kept_float) == {
        "vector": "a vector in the shape of a matrix: one value for each channel",
        "2.weight": "could be int8, and was left out when the model was quantized",
    }


def test_blame_by_hand():
    """Each module back in float, the others int8; a share is what the drift loses by it."""
    model, quantized = pair(mlp(64, 96, 64, 32))
    x = torch.randn(7, 64)
    result = compare(model, quantized, [x[:3], x[3:]], sensitivity=True)

    def drift(in_float):
        with torch.no_grad():
            y = x
            for position in range(len(model)):
                y = (model if position == in_float else quantized)[position](y)
            reference = model(x).double()
        return float((reference - y.double()).square().sum() / reference.square().sum())

    assert result.drift == pytest.approx(drift(None), rel=1e-4)
    assert [blame.share for blame in result.blame] == sorted((b.share for b in result.blame), reverse=True)
    assert {blame.name for blame in result.blame} == {"0", "2", "4"}
    for blame in result.blame:
        assert blame.drift_without == pytest.approx(drift(int(blame.name)), rel=1e-4)
        assert blame.share == pytest.approx(1 - blame.drift_without / result.drift)
        layer = quantized[int(blame.name)]
        assert blame.bytes_added == 3 * layer.int8_weights.numel() - 4 * layer.scales.numel()
    assert sum(blame.share for blame in result.blame) == pytest.approx(1, abs=0.2)
    assert 0.05 < result.blame[0].share < 0.9


def test_a_task_decides_what_drift_is():
    model = nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 50))
    model, quantized = pair(model)
    result = compare(model, quantized, [torch.randint(50, (4, 6))], task="language", sensitivity=True)
    assert result.task_name == "language"
    assert result.drift == result.task["kl"].value > 0
    assert result.drift_unit == "nats/token of KL divergence"
    assert sum(blame.share for blame in result.blame) == pytest.approx(1, abs=0.3)


def test_layers_that_are_not_tried_are_named():
    """Those with the most noise of their own are tried first."""
    model = mlp(64, 64, 64, 64)
    model[2].weight.data[:, 0] *= 30
    model, quantized = pair(model)
    result = compare(model, quantized, [torch.randn(5, 64)], sensitivity=True, layers_to_try=1)
    assert [blame.name for blame in result.blame] == ["2"]
    assert sorted(result.blame_untried) == ["0", "4"]
    assert compare(model, quantized, [torch.randn(5, 64)]).blame_untried == ()


def test_inputs_that_can_be_gone_through_only_once():
    model, quantized = pair(mlp(64, 96, 32))
    batches = [torch.randn(5, 64), torch.randn(2, 64)]
    assert compare(model, quantized, iter(batches), sensitivity=True) == compare(
        model, quantized, batches, sensitivity=True
    )


def test_no_batch_is_kept():
    """Streaming: when a batch is asked for, the ones before the last are gone."""
    model, quantized = pair(mlp(64, 96, 32))
    alive = []

    def batches():
        for _ in range(4):
            assert sum(reference() is not None for reference in alive) <= 1
            batch = torch.randn(5, 64)
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    assert compare(model, quantized, batches()).batches == 4


def test_progress():
    model, quantized = pair(mlp(64, 96, 32))
    seen = []
    batches = [torch.randn(5, 64), torch.randn(2, 64)]
    compare(model, quantized, batches, sensitivity=True, progress=lambda *event: seen.append(event))
    assert seen == [
        ("batches", 1, 2),
        ("batches", 2, 2),
        ("weights", 1, 2),
        ("weights", 2, 2),
        *(("blame", run, 4) for run in range(1, 5)),
    ]
    seen.clear()
    compare(model, quantized, iter(batches), progress=lambda *event: seen.append(event))
    assert seen[:2] == [("batches", 1, 0), ("batches", 2, 0)]


def test_equal_models_have_no_drift():
    """An exact weight: every output is the same, and nobody is to blame."""
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data = torch.tensor([[127.0, -1.0, 0.0, 64.0], [127.0, 3.0, 5.0, 0.0]])
    model, quantized = pair(nn.Sequential(layer))
    result = compare(model, quantized, [torch.ones(3, 4)], sensitivity=True)
    drift = dict(result.outputs)[""]
    assert (drift.sqnr_db, drift.cosine, drift.largest_difference) == (math.inf, 1.0, 0.0)
    assert (result.drift, result.blame[0].share) == (0.0, 0.0)
    assert str(result)


def test_infinities_that_both_have_are_no_drift():
    """Masks of minus infinity pass through; what only one side has is an infinite difference."""
    total = DriftSum()
    total.add(torch.tensor([1.0, -math.inf, math.nan]), torch.tensor([1.5, -math.inf, math.nan]))
    assert total.relative_noise == 0.25
    total.add(torch.tensor([1.0]), torch.tensor([math.nan]))
    assert total.result().sqnr_db == -math.inf
    assert total.result().largest_difference == math.inf
    zeros = DriftSum()
    zeros.add(torch.zeros(2), torch.ones(2))
    zeros.add(torch.zeros(0), torch.zeros(0))
    assert (zeros.result().sqnr_db, zeros.result().elements) == (-math.inf, 2)
    assert math.isnan(zeros.result().cosine)


class Masked(nn.Module):
    """Positions of padding get what is far from any other input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x, attention_mask):
        return {"states": self.second(self.first(x + 100 * (1 - attention_mask[..., None])))}


@pytest.mark.parametrize("in_memory", [True, False])
def test_padding_does_not_count(in_memory):
    """The figures are those of the sequences one by one, without padding."""
    model, quantized = pair(Masked())
    source = {} if in_memory else {"weights": weights_of(model)}
    x, mask = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    reference = model if in_memory else None
    padded = compare(reference, quantized, [{"x": x, "attention_mask": mask}], **source)
    alone = [{"x": x[:1], "attention_mask": mask[:1]}, {"x": x[1:, :2], "attention_mask": mask[1:, :2]}]
    expected = compare(reference, quantized, alone, **source)
    for ours, theirs in zip(padded.modules, expected.modules, strict=True):
        assert ours.own.elements == theirs.own.elements == 7 * 32
        assert ours.own.sqnr_db == pytest.approx(theirs.own.sqnr_db, abs=1e-3)
        assert ours.drifted.sqnr_db == pytest.approx(theirs.drifted.sqnr_db, abs=1e-3)
    assert padded.outputs[0][1].sqnr_db == pytest.approx(expected.outputs[0][1].sqnr_db, abs=1e-3)
    everything = compare(reference, quantized, [{"x": x, "attention_mask": mask * 0 + 1}], **source)
    assert everything.outputs[0][1].elements == 10 * 32
