"""A bias that something else holds too stays one parameter: BERT-like heads register theirs twice."""

import copy
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.twins import storage_bytes


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(64, 80)
        self.bias = self.decoder.bias

    def forward(self, x):
        return self.decoder(x)


@pytest.mark.parametrize(
    "move",
    [
        lambda model: model,
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model.to(torch.bfloat16),
        w8a16.dequantize,
    ],
    ids=["as it is", "deepcopy", "pickle", "bfloat16", "dequantize"],
)
def test_it_stays_tied(move):
    model = move(w8a16.quantize(Head()))
    assert model.bias is model.decoder.bias
    assert isinstance(model.bias, nn.Parameter)
    x = torch.zeros(2, 64, dtype=model.bias.dtype)
    with torch.no_grad():
        model.bias.fill_(3)
    assert torch.equal(model(x), torch.full_like(model(x), 3))


def test_the_plan_counts_it_once():
    model = Head()
    plan = w8a16.plan(model)
    w8a16.quantize(model)
    assert plan.bytes_after == w8a16.plan(model).bytes_after == storage_bytes(model)


def test_a_bias_shared_with_an_excluded_layer():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    model[1].bias = model[0].bias
    w8a16.quantize(model, exclude="1")
    assert model[0].bias is model[1].bias
    w8a16.quantize(model)
    assert model[0].bias is model[1].bias


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_saved_once_and_tied_again_after_loading(tmp_path, device):
    model = w8a16.quantize(Head())
    file = w8a16.save(model, tmp_path)
    with torch.device(device):
        target = Head()
    loaded = w8a16.load(target, file)
    assert loaded.bias is loaded.decoder.bias
    x = torch.randn(3, 64)
    assert torch.equal(loaded(x), model(x))
