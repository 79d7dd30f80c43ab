"""Layers that share a weight or a bias must go on sharing it: in memory, through moves and copies."""

import copy
import pickle

import pytest
import torch
from torch import nn

import w8a16

TIES = ("int8_weights", "scales", "bias")


def tied_pair():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight, second.bias = first.weight, first.bias
    return w8a16.quantize(nn.Sequential(first, nn.GELU(), second))


def untied(model):
    first, second = model[0], model[2]
    return [name for name in TIES if getattr(first, name) is not getattr(second, name)]


def test_tied_from_the_start():
    assert untied(tied_pair()) == []


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_copies_are_tied_among_themselves(copied):
    model = tied_pair()
    other = copied(model)
    assert untied(other) == []
    assert other[0].int8_weights is not model[0].int8_weights


MOVES = {
    "half": lambda model: model.half(),
    "to(dtype)": lambda model: model.to(torch.bfloat16),
    "double": lambda model: model.double(),
    "round trip": lambda model: model.half().float(),
    "same device": lambda model: model.to("cpu"),
    "to_empty": lambda model: model.to_empty(device="cpu"),
    "share_memory": lambda model: model.share_memory(),
}


@pytest.mark.parametrize("move", MOVES)
def test_moves_keep_the_ties(move):
    model = tied_pair()
    MOVES[move](model)
    assert untied(model) == []


def test_quantizing_one_of_a_tied_pair_changes_both():
    model = tied_pair()
    model[0].quantize(torch.zeros(16, 16))
    assert model[2].weight.eq(0).all()


def test_loading_into_a_tied_pair_keeps_the_tie():
    model, other = tied_pair(), tied_pair()
    model.load_state_dict(other.state_dict())
    assert untied(model) == []
    assert torch.equal(model[2].weight, other[0].weight)


def test_dequantize_ties_again_after_a_move():
    model = w8a16.dequantize(tied_pair().half())
    assert model[0].weight is model[2].weight
    assert model[0].bias is model[2].bias


def test_to_meta_unties_as_it_unties_float_parameters():
    """torch cannot set the data of a CPU tensor to a meta tensor; docs/modules.md says so."""
    tied = nn.ModuleList([nn.Linear(16, 16), nn.Linear(16, 16)])
    tied[1].weight = tied[0].weight
    tied.to("meta")
    assert tied[0].weight is not tied[1].weight
    assert untied(tied_pair().to("meta")) != []
