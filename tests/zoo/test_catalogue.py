"""The catalogue itself: what is in it, and that it can be trusted to make the same model twice."""

import importlib.util
from collections import Counter

import pytest
import torch

pytest.importorskip("transformers")

from zoo.catalogue import SOURCES, catalogue
from zoo.entry import FAMILIES, SEED, make_inputs, make_model, make_published
from zoo.outputs import call, identical

ENTRIES = catalogue().entries


def test_names_are_unique():
    assert [name for name, count in Counter(entry.name for entry in ENTRIES).items() if count > 1] == []


def test_families_are_known_and_none_is_empty():
    missing = {"diffusion"} if importlib.util.find_spec("diffusers") is None else set()
    assert {entry.family for entry in ENTRIES} == set(FAMILIES) - missing


def test_there_are_at_least_75_architectures():
    """Even without diffusers."""
    assert len([entry for entry in ENTRIES if entry.family != "diffusion"]) >= 75


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("zoo.catalogue.SOURCES", (*SOURCES, ("sculptures", "no_such_library")))
    found = catalogue()
    assert "sculptures: no_such_library is not installed" in found.missing
    assert len(found.entries) == len(ENTRIES)


def test_globs_and_families_select():
    assert [entry.name for entry in catalogue("llam?").entries] == ["llama"]
    assert {entry.family for entry in catalogue(family="audio").entries} == {"audio"}
    assert catalogue("llama", "audio").entries == ()


def test_a_tolerance_has_a_reason():
    assert all(entry.tolerance is None or len(entry.tolerance.reason) > 20 for entry in ENTRIES)


@pytest.mark.parametrize("name", ["bert", "mamba", "mixtral", "resnet", "lstm_packed", "wavenet"])
def test_models_and_inputs_are_the_same_for_the_same_seed(name):
    assert_deterministic(*catalogue(name).entries)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_model_is_the_same_for_the_same_seed(entry):
    assert_deterministic(entry)


def assert_deterministic(entry):
    first, second, other = make_model(entry), make_model(entry), make_model(entry, SEED + 1)
    state, again, different = first.state_dict(), second.state_dict(), other.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())
    assert any(not torch.equal(tensor, different[name]) for name, tensor in state.items())
    with torch.no_grad():
        assert identical(call(first, make_inputs(entry)), call(second, make_inputs(entry)))


@pytest.mark.parametrize("name", ["bert", "mamba", "mixtral", "resnet", "whisper", "controlnet"])
def test_no_parameter_is_constant(name):
    """A bias of zeros, or a layer of zeros, could be lost without any output changing."""
    if not catalogue(name).entries:
        pytest.skip("diffusers is not installed")
    model = make_model(*catalogue(name).entries)
    constant = [
        path
        for path, parameter in model.named_parameters()
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
    ]
    assert constant == []


def test_published_sizes_hold_no_memory():
    (entry,) = catalogue("llama").entries
    model = make_published(entry)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) > 6e9
