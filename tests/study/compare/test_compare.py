"""The whole comparison, against figures computed here in another way."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from support.twins import mlp, snapshot
from w8a16.study.compare import Comparison, compare
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
    assert drift.largest_difference == pytest.approx(float((expected[0] - expected[1]).abs().max()))
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
