"""The switch between buffers and frozen Parameters: same tensors, names and results."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from w8a16.convert import Recipe
from w8a16.layers.frozen import hold_as_buffers, hold_as_parameters


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(64, 32)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.conv = nn.Conv1d(32, 32, 3)
        self.head = nn.Linear(32, 64)
        self.head.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        x = self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.conv(x.transpose(1, 2)).transpose(1, 2))


IDS = torch.tensor([[1, 5, 9, 63, 2, 7]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return w8a16.quantize(Tied().eval(), recipe=Recipe(outliers={"attention.out_proj": 2}))


def names(model, dtype):
    return {name for name, p in model.named_parameters() if p.dtype == dtype}


@pytest.mark.parametrize("floats", [True, False])
def test_same_tensors_names_and_results(model, floats):
    expected, state = model(IDS), {key: value.clone() for key, value in model.state_dict().items()}
    assert hold_as_parameters(model, floats=floats) is model
    assert "table.int8_weights" in names(model, torch.int8)
    assert "attention.in_proj_weight_int8_weights" in names(model, torch.int8)
    assert names(model, torch.int32) == {"attention.out_proj.outlier_columns"}
    assert ("table.scales" in names(model, torch.float32)) == floats
    assert not any(p.requires_grad for n, p in model.named_parameters() if "int8" in n or "scales" in n)
    frozen = model.state_dict()
    assert frozen.keys() == state.keys()
    assert all(torch.equal(frozen[key], state[key]) for key in state)
    assert torch.equal(model(IDS), expected)
    assert w8a16.plan(model).bytes_after == w8a16.plan(hold_as_buffers(copy.deepcopy(model))).bytes_after


def test_and_back(model):
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    parameters = {name for name, _ in model.named_parameters()}
    assert hold_as_buffers(hold_as_parameters(model)) is model
    assert {name for name, _ in model.named_buffers(remove_duplicate=False)} == buffers
    assert {name for name, _ in model.named_parameters()} == parameters
    assert not any(buffer.requires_grad for buffer in model.buffers())


def test_probes_are_set_aside():
    """accelerate asks the state dict for every parameter."""
    model = w8a16.quantize(nn.Sequential(nn.Linear(32, 32, dtype=torch.bfloat16)))
    assert [name for name, _ in model.named_parameters()] == ["0.dtype_probe"]
    hold_as_parameters(model)
    assert {name for name, _ in model.named_parameters()} <= model.state_dict().keys()
    hold_as_buffers(model)
    assert [(name, p.dtype) for name, p in model.named_parameters()] == [("0.dtype_probe", torch.bfloat16)]
    assert not any("probe" in name for name in vars(model[0]))


def test_ties_stay(model):
    for held in (hold_as_parameters(model), hold_as_buffers(model)):
        assert held.head.int8_weights is held.table.int8_weights
        assert held.head.scales is held.table.scales


def test_moves_keep_scales_and_ties(model):
    hold_as_parameters(model).half()
    assert model.head.scales.dtype == torch.float32
    assert model.head.int8_weights.dtype == torch.int8
    assert model.head.weight_dtype == torch.float16
    assert model.head.int8_weights is model.table.int8_weights
    assert model.to("meta").head.int8_weights.is_meta


def test_weight_can_be_read_written_and_tied(model):
    hold_as_parameters(model)
    assert model.head.weight.shape == (64, 32)
    with torch.no_grad():
        model.table.weight[3].zero_()
    assert model.head.int8_weights[3].count_nonzero() == 0
    other = hold_as_parameters(w8a16.quantize(nn.Linear(32, 64)))
    other.weight = model.head.weight
    assert other.int8_weights is model.head.int8_weights


def test_load_state_dict_checks_as_ever(model):
    state = model.state_dict()
    other = hold_as_parameters(copy.deepcopy(model))
    with pytest.raises(RuntimeError, match=r"head.scales: expected torch\.float32"):
        other.load_state_dict({**state, "head.scales": state["head.scales"].half()})
    other.load_state_dict(state)


def test_saved_and_loaded(model, tmp_path):
    expected = model(IDS)
    file = w8a16.save(hold_as_parameters(model), tmp_path)
    assert torch.equal(w8a16.load(Tied().eval(), file)(IDS), expected)


def test_dequantize(model):
    expected = w8a16.dequantize(copy.deepcopy(model))(IDS)
    back = w8a16.dequantize(hold_as_parameters(model))
    assert type(back.head) is nn.Linear
    assert back.head.weight is back.table.weight
    assert not names(back, torch.int8)
    assert torch.equal(back(IDS), expected)


def test_gradients_reach_the_input(model):
    hold_as_parameters(model)
    x = torch.randn(2, 32, requires_grad=True)
    model.head(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
