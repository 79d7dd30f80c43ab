"""Every experts class of the installed transformers, found by reading its sources."""

import copy

import pytest
import torch

import w8a16
from support.experts import (
    EXPERTS,
    HIDDEN,
    INNER,
    decorated_classes,
    experts_class,
    make_experts,
    other_classes,
    routed,
)
from support.twins import assert_same_outputs, make_twin
from w8a16.layers import W8A16Experts

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

OWN_FORWARD = {
    "inkling.InklingSharedExperts": lambda: (torch.randn(2, 5, HIDDEN), torch.rand(2, 5, EXPERTS)),
    "jetmoe.JetMoeParallelExperts": lambda: (torch.randn(9, HIDDEN), [4, 0, 3, 2]),
    "llama4.Llama4TextExperts": lambda: (torch.randn(EXPERTS * 3, HIDDEN),),
    "longcat_flash.LongcatFlashExperts": routed,
    "step3p7.Step3p7Experts": routed,
}
"""The classes without the decorator, and inputs for each."""
UNCLEAR = {"inkling.InklingSharedExperts"}
"""Without a gate in the same parameter, and without a size to go by: handled as any parameter."""


def test_the_sources_were_read():
    assert len(decorated_classes()) >= 20
    assert "mixtral.MixtralExperts" in decorated_classes()


def test_no_class_without_the_decorator_is_unknown():
    assert set(other_classes()) <= set(OWN_FORWARD)


@pytest.mark.parametrize("name", decorated_classes())
def test_the_plan_takes_both_projections_and_nothing_else(name):
    rows = w8a16.plan(make_experts(name)).rows
    taken = {row.name: (row.kind, row.tier, row.reason) for row in rows if row.verdict == "int8"}
    up = "up_proj" if "up_proj" in taken else "gate_up_proj"
    assert taken == dict.fromkeys((up, "down_proj"), ("experts", "compute", "converted"))


@pytest.mark.parametrize("name", decorated_classes())
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_it_equals_every_implementation_of_the_twin(name, implementation):
    module = w8a16.quantize(make_experts(name))
    twin = make_twin(module)
    twin.config = copy.copy(twin.config)
    twin.config._experts_implementation = implementation
    inputs = routed()
    with torch.no_grad():
        assert_same_outputs([module(*inputs)], [twin(*inputs)], 1e-5)
    assert isinstance(module, W8A16Experts)
    assert type(twin) is experts_class(name)


@pytest.mark.parametrize("name", OWN_FORWARD)
def test_a_class_with_its_own_forward_keeps_it(name):
    if name.startswith("jetmoe"):
        module = experts_class(name)(EXPERTS, HIDDEN, INNER)
        torch.nn.init.normal_(module.weight, std=0.2)
    else:
        module = make_experts(name)
    rows = [row for row in w8a16.plan(module).rows if len(row.shape) == 3]
    assert rows
    assert {row.verdict for row in rows} == {"int8"}
    assert {row.kind for row in rows} == {"parameter" if name in UNCLEAR else "experts"}
    w8a16.quantize(module)
    twin = make_twin(module)
    inputs = OWN_FORWARD[name]()
    with torch.no_grad():
        assert_same_outputs([module(*inputs)], [twin(*inputs)], 1e-5)
