from __future__ import annotations

import torch
from torch import nn

from support.toy_scenario import Toy
from w8a16.study.runner import peers
from w8a16.study.runner.rows import ScoredModel
from w8a16.study.runner.settings import PEER_LIBRARIES


def rows(monkeypatch, apply):
    toy = Toy()
    model = toy.build("small")
    monkeypatch.setattr(peers, "PEERS", {"some-library": apply})
    return list(peers.peer_rows(model, ScoredModel(toy, model, 0, quick=True)))


def test_a_library_that_is_not_installed_is_listed(monkeypatch):
    (found,) = rows(monkeypatch, lambda model: model)
    assert found.row["note"] == "not installed"
    assert found.row["version"] is None
    assert found.row["score"] is None


def test_an_installed_one_is_scored_with_its_version_and_bytes(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: "1.2")

    def halve(model):
        model[1].weight.data = model[1].weight.data * 0.5
        model[1].bias = None
        return model

    (found,) = rows(monkeypatch, halve)
    assert found.row["version"] == "1.2"
    assert found.row["loss"]["value"] != 0
    assert found.row["bytes"] == 4 * (64 + 32 * 32 + 32 * 3 + 3)


def test_a_library_that_converts_nothing_is_said_to(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: "1.2")
    (found,) = rows(monkeypatch, lambda model: model)
    assert found.row["note"] == "no weight was converted"
    assert found.row["loss"]["value"] == 0


def test_the_fingerprint_names_every_library():
    assert tuple(peers.PEERS) == PEER_LIBRARIES


def test_a_library_that_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: "1.2")

    def fail(model):
        raise RuntimeError("no kernel\nfor this")

    (found,) = rows(monkeypatch, fail)
    assert found.row["note"] == "RuntimeError: no kernel"


def test_bytes_count_tied_weights_once():
    layer = nn.Linear(8, 8, bias=False)
    tied = nn.ModuleList([layer, nn.Linear(8, 8, bias=False)])
    tied[1].weight = layer.weight
    assert peers.held_bytes(tied) == 4 * 64
    assert peers.held_bytes(nn.ParameterList([nn.Parameter(torch.ones(3, dtype=torch.float16))])) == 6
