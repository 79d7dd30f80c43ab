"""The older hook-based utilities: weight_norm, spectral_norm and pruning."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm

import w8a16
from support.twins import (
    assert_equals_twin,
    assert_layer_is_exact,
    assert_unchanged,
    make_twin,
    snapshot,
    storage_bytes,
)
from w8a16.core import error_in_half_steps

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")


def pruned(layer):
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


def pruned_twice(layer):
    prune.random_unstructured(layer, "weight", amount=0.2)
    prune.ln_structured(layer, "weight", amount=0.25, n=2, dim=0)
    return layer


def pruned_with_bias(layer):
    prune.l1_unstructured(layer, "bias", amount=5)
    return pruned(layer)


KINDS = {
    "weight_norm": weight_norm,
    "weight_norm of the whole": lambda layer: weight_norm(layer, dim=None),
    "spectral_norm": spectral_norm,
    "pruned": pruned,
    "pruned twice": pruned_twice,
    "pruned with bias": pruned_with_bias,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_effective_weight_is_quantized_and_the_hooks_are_gone(kind, training):
    layer = KINDS[kind](nn.Linear(16, 32)).eval()
    layer(torch.randn(2, 16))  # the hook computes the weight
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.train(training)
    plan = w8a16.plan(layer, strict=True)
    assert {row.reason for row in plan.rows} == {"effective_weight"}
    assert plan.bytes_before == storage_bytes(layer)
    w8a16.quantize(layer)
    assert plan.bytes_after == storage_bytes(layer)
    assert list(layer.state_dict()) == ["int8_weights", "scales", "bias"]
    assert list(layer.parameters()) == []
    assert len(layer._forward_pre_hooks) == 0
    assert error_in_half_steps(weight, layer.int8_weights, layer.scales).max() <= 1 + 2**-12
    assert torch.equal(layer.bias, bias)
    assert_layer_is_exact(layer, torch.randn(5, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_in_training_mode_changes_nothing(kind):
    layer = KINDS[kind](nn.Linear(16, 32)).train()
    before, hooks = snapshot(layer), dict(layer._forward_pre_hooks)
    w8a16.plan(layer)
    assert_unchanged(layer, before)
    assert layer._forward_pre_hooks == hooks


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_saves_and_goes_back(kind):
    """The utilities also leave hooks on the state dict, which must not outlive the weight."""
    model = w8a16.quantize(nn.Sequential(KINDS[kind](nn.Linear(16, 32)), nn.Linear(32, 4)))
    model.load_state_dict(model.state_dict())
    twin = make_twin(model)
    twin.load_state_dict(twin.state_dict())
    assert list(twin.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert_equals_twin(model, twin, torch.randn(4, 16))


def test_pruned_weights_stay_zero():
    layer = pruned(nn.Linear(16, 32))
    zeros = layer.weight == 0
    assert zeros.sum() == round(0.3 * 512)
    w8a16.quantize(layer)
    assert layer.int8_weights[zeros].eq(0).all()


def test_a_pruned_bias_alone():
    layer = nn.Linear(16, 32)
    prune.l1_unstructured(layer, "bias", amount=5)
    bias = layer.bias.detach().clone()
    plan = w8a16.plan(layer)
    assert plan.rows[0].reason == "converted"
    w8a16.quantize(layer)
    assert torch.equal(layer.bias, bias)
    assert plan.bytes_after == storage_bytes(layer)
    assert_layer_is_exact(layer, torch.randn(2, 16))


def test_other_pre_hooks_stay():
    layer, calls = weight_norm(nn.Linear(16, 32)), []
    layer.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    w8a16.quantize(layer)
    layer(torch.randn(2, 16))
    assert calls == [1]


def test_a_weight_computed_by_a_hook_of_unknown_kind():
    """Only the owner of the hook knows which parameters could go; what the hook reads is stored."""
    layer = nn.Linear(16, 32)
    original = layer.weight
    del layer.weight
    layer.weight_raw = original

    def compute(module, inputs):
        module.weight = module.weight_raw * 2

    layer.register_forward_pre_hook(compute)
    (row,) = w8a16.plan(layer).rows
    assert (row.name, row.verdict, row.reason) == ("weight_raw", "int8", "stored")
    w8a16.quantize(layer)
    half_step = layer.weight_raw_scales / 2 * (1 + 2**-15)
    x = torch.randn(2, 16)
    allowed = 2 * x.abs().sum(1, keepdim=True) * half_step + 1e-5
    assert ((layer(x) - (x @ original.T * 2 + layer.bias)).abs() <= allowed).all()
    assert_equals_twin(layer, make_twin(layer), x)
