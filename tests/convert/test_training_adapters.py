"""LoRA: small float matrices are trained beside the frozen int8 weights, through them."""

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, make_twin, mlp, quantize_with_twin, snapshot


class Lora(nn.Module):
    """`layer(x) + up(down(x))`, with `up` zero at the start as usual."""

    def __init__(self, layer, rank=4):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def with_lora(model):
    torch.manual_seed(7)
    return nn.Sequential(Lora(model[0]), nn.Tanh(), Lora(model[2]))


def train(model, steps, autocast=None, dtype=torch.float32):
    torch.manual_seed(8)
    x = torch.randn(64, 16, dtype=dtype)
    target = torch.sin(3 * x[:, :8])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
            output = model(x)
        loss = (output.to(dtype) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_loss_falls_and_the_base_stays(autocast):
    base = w8a16.quantize(mlp())
    before = snapshot(base)
    model = with_lora(base)
    losses = train(model, 100, autocast)
    assert losses[-1] < losses[0] * 0.7
    assert_unchanged(base, before)
    # Without the gradient through the second int8 layer, the first adapter would not have moved.
    assert model[0].up.weight.norm() > 0.01


def test_every_step_is_that_of_the_float_twin():
    """In float64, so that a wrong gradient cannot hide behind rounding."""
    base, twin = quantize_with_twin(mlp().double())
    twin.requires_grad_(False)
    ours, theirs = (train(with_lora(module).double(), 20, dtype=torch.float64) for module in (base, twin))
    assert ours == pytest.approx(theirs, rel=1e-10)
    assert ours[-1] < ours[0]


def test_adapters_added_after_quantize_are_not_quantized_with_the_base_again():
    model = with_lora(w8a16.quantize(mlp()))
    rows = {row.name: row.reason for row in w8a16.plan(model, exclude=["*.down", "*.up"]).rows}
    assert rows["0.down.weight"] == rows["2.up.weight"] == "excluded"
    assert rows["0.layer.weight"] == "already_quantized"


def test_training_after_dequantize():
    model = make_twin(w8a16.quantize(mlp()))
    losses = train(model, 60)
    assert losses[-1] < losses[0] * 0.8


class Adapted(nn.Module):
    """As peft's layers are: the base beside parts that `adapter_layer_names` names."""

    adapter_layer_names = ("lora_A", "lora_embedding_B")

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(64, 64)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(64, 32, bias=False)})
        self.lora_embedding_B = nn.ParameterDict({"default": nn.Parameter(torch.randn(64, 32))})


def test_adapters_that_are_there_already_stay_float_and_trainable():
    model = nn.Sequential(Adapted())
    w8a16.quantize(model, strict=True)
    rows = {row.name: (row.verdict, row.reason) for row in w8a16.plan(nn.Sequential(Adapted())).rows}
    assert rows == {
        "0.base_layer.weight": ("int8", "converted"),
        "0.lora_A.default.weight": ("float", "adapter"),
        "0.lora_embedding_B.default": ("float", "adapter"),
    }
    assert type(model[0].base_layer) is w8a16.W8A16LinearLayer
    assert model[0].lora_A["default"].weight.requires_grad
