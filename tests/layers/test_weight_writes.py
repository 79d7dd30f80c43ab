"""What is written into `layer.weight` is quantized and kept, as writing into a parameter is."""

import copy

import pytest
import torch
from torch import nn

import w8a16
from support.twins import assert_unchanged, quantized_linear, snapshot
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps
from w8a16.errors import ModuleError, WeightValueError


def view_of_rows(layer):
    rows = layer.weight[1:]  # no name for the weight: only the view keeps it alive
    rows.fill_(1)


def view_through_data(layer):
    layer.weight.data[0].zero_()


def half_of_the_rows(layer):
    for half in layer.weight.chunk(2):
        half.clamp_(-0.1, 0.1)


def transposed(layer):
    layer.weight.t()[3].fill_(0.25)


def two_writes_through_one_view(layer):
    view = layer.weight.view(-1)
    view[:16].fill_(3)
    view[16:32].neg_()


def without_gradient(layer):
    with torch.no_grad():
        layer.weight.sub_(0.5)


def view_of_a_view(layer):
    layer.weight[1:][2].fill_(1)


def view_of_a_view_of_data(layer):
    layer.weight.data.view(-1)[5:9].zero_()


WRITES = {
    "view of a view": view_of_a_view,
    "view of a view of data": view_of_a_view_of_data,
    "zero_": lambda layer: layer.weight.zero_(),
    "fill_": lambda layer: layer.weight.fill_(0.5),
    "copy_": lambda layer: layer.weight.copy_(torch.linspace(-1, 1, 512).view(32, 16)),
    "clamp_": lambda layer: layer.weight.clamp_(-0.05, 0.05),
    "mul_ by a tensor": lambda layer: layer.weight.mul_(torch.linspace(-1, 1, 16)),
    "mul_ by a negative number": lambda layer: layer.weight.mul_(-2),
    "data zero_": lambda layer: layer.weight.data.zero_(),
    "data copy_": lambda layer: layer.weight.data.copy_(torch.eye(32, 16)),
    "setitem": lambda layer: layer.weight.__setitem__(3, 2.0),
    "setitem of a slice": lambda layer: layer.weight.data.__setitem__((slice(1, 4), 2), 0.0),
    "index_fill_": lambda layer: layer.weight.index_fill_(0, torch.tensor([1, 5]), 0.125),
    "masked_fill_": lambda layer: layer.weight.masked_fill_(torch.eye(32, 16).bool(), 0),
    "init.constant_": lambda layer: nn.init.constant_(layer.weight, 0.75),
    "init.eye_": lambda layer: nn.init.eye_(layer.weight),
    "view of rows": view_of_rows,
    "view through data": view_through_data,
    "chunks": half_of_the_rows,
    "transposed": transposed,
    "two writes through one view": two_writes_through_one_view,
    "no_grad": without_gradient,
    "one after the other": lambda layer: layer.weight.zero_().add_(0.5),
    "what contiguous returns": lambda layer: layer.weight.contiguous().fill_(2),
}


def assert_holds(layer, expected):
    """The codes are those of `expected`, within half a step for each element."""
    codes, scales = layer.int8_weights, layer.scales
    assert (codes.dtype, scales.dtype) == (torch.int8, torch.float32)
    assert error_in_half_steps(expected, codes, scales).max() <= 1 + HALF_STEP_SLACK
    fresh = w8a16.W8A16LinearLayer(16, 32).quantize(expected)
    assert torch.equal(codes, fresh.int8_weights)
    assert torch.equal(scales, fresh.scales)


@pytest.mark.parametrize("write", WRITES)
def test_it_is_what_the_float_weight_would_be(write):
    layer = quantized_linear()
    twin = w8a16.dequantize(copy.deepcopy(layer)).requires_grad_(False)
    places = [buffer.data_ptr() for buffer in layer.buffers()]
    WRITES[write](layer)
    assert [buffer.data_ptr() for buffer in layer.buffers()] == places  # whoever holds them sees it
    WRITES[write](twin)
    assert not torch.equal(layer.weight, quantized_linear().weight)
    assert_holds(layer, twin.weight)


@pytest.mark.parametrize("init", [nn.init.normal_, nn.init.xavier_uniform_, nn.init.kaiming_uniform_])
def test_random_initialization(init):
    layer, expected = quantized_linear(), torch.empty(32, 16)
    torch.manual_seed(5)
    init(layer.weight)
    torch.manual_seed(5)
    init(expected)
    assert_holds(layer, expected)


@pytest.mark.parametrize("write", WRITES)
def test_tied_layers_see_it(write):
    first, second = nn.Linear(16, 32), nn.Linear(16, 32)
    second.weight = first.weight
    model = w8a16.quantize(nn.ModuleList([first, second]))
    before = second.weight.clone()
    WRITES[write](first)
    assert first.int8_weights is second.int8_weights
    assert first.scales is second.scales
    assert not torch.equal(second.weight, before)
    assert torch.equal(second.weight, first.weight)
    assert len({id(buffer) for buffer in model.buffers()}) == 4


def test_reading_and_viewing_write_nothing():
    layer = quantized_linear()
    before, versions = snapshot(layer), [buffer._version for buffer in layer.buffers()]
    weight = layer.weight
    _ = (weight[3], weight.t() @ weight, weight.view(-1).clone().zero_(), weight.float().double().zero_())
    weight[[1, 2]].fill_(9)  # advanced indexing is a copy
    (weight + 0).zero_()
    del weight
    assert_unchanged(layer, before)
    assert [buffer._version for buffer in layer.buffers()] == versions


def test_the_writes_of_one_name_add_up():
    layer = quantized_linear()
    weight = layer.weight
    weight.zero_()
    weight[0].fill_(1)
    weight[1].fill_(2)
    del weight
    assert layer.weight[:2].sum() == 16 + 32
    assert layer.weight.count_nonzero() == 32


def test_a_view_that_is_still_held():
    """Nobody can tell when a variable goes; what was written through it holds at once."""
    layer = quantized_linear(bias=False)
    view = layer.weight[1:]
    view.fill_(1)
    assert layer(torch.ones(1, 16))[0, 1:].sub(16).abs().max() < 1e-5
    view[0].zero_()
    assert layer.weight[1].eq(0).all()
    assert view.is_contiguous()


SCALINGS = {
    "mul_": (lambda w: w.mul_(0.3), 0.3),
    "div_": (lambda w: w.div_(4), 0.25),
    "*=": (lambda w: w.__imul__(7), 7),
    "/=": (lambda w: w.__itruediv__(3), 1 / 3),
    "data mul_": (lambda w: w.data.mul_(0.3), 0.3),
}


@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_positive_number_goes_into_the_scales_alone(scaling, monkeypatch):
    scale, factor = SCALINGS[scaling]
    layer, other = nn.Linear(16, 32), nn.Linear(16, 32)
    other.weight = layer.weight
    w8a16.quantize(nn.ModuleList([layer, other]))
    codes, scales = layer.int8_weights.clone(), layer.scales.clone()
    monkeypatch.setattr("w8a16.layers.quantizing.dequantize", None)  # needs no values
    scale(layer.weight)
    assert torch.equal(other.int8_weights, codes)
    assert torch.equal(other.scales, scales * factor)


@pytest.mark.parametrize("factor", [0, 0.0, -1, True, 1j, "2"], ids=repr)
def test_other_factors_do_not_touch_the_scales_alone(factor):
    layer = quantized_linear()
    expected = layer.weight.clone()
    try:
        expected.mul_(factor)
    except (TypeError, RuntimeError):
        before = snapshot(layer)
        with pytest.raises((TypeError, RuntimeError)):
            layer.weight.mul_(factor)
        assert_unchanged(layer, before)
    else:
        layer.weight.mul_(factor)
        assert_holds(layer, expected)


def test_values_without_a_code_are_refused_and_nothing_is_kept():
    layer = quantized_linear()
    before = snapshot(layer)
    with pytest.raises(WeightValueError, match="NaN or Inf"):
        layer.weight.fill_(torch.nan)
    assert_unchanged(layer, before)


def test_setting_its_data():
    layer = quantized_linear()
    layer.weight.data = torch.eye(32, 16)
    assert_holds(layer, torch.eye(32, 16))


def test_setting_data_of_another_shape_as_pruning_of_heads_does():
    layer, rows = quantized_linear(), torch.randn(8, 16)
    layer.weight.data = rows
    layer.bias = None
    assert (layer.out_features, layer.in_features) == (8, 16)
    assert layer(torch.randn(3, 16)).shape == (3, 8)
    assert error_in_half_steps(rows, layer.int8_weights, layer.scales).max() <= 1 + HALF_STEP_SLACK


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype(dtype):
    layer = quantized_linear(dtype=dtype)
    layer.weight[2].fill_(0.5)
    assert layer.weight.dtype == dtype
    assert layer.int8_weights[2].eq(127).all()
    assert layer.scales[2] == torch.tensor(0.5) / 127


def test_training_it_is_refused():
    layer = quantized_linear()
    text = r"int8 weights cannot be trained: dequantize the layer first \(w8a16\.dequantize\), or train"
    with pytest.raises(ModuleError, match=text):
        layer.weight.requires_grad_(True)
    with pytest.raises(ModuleError, match=text):
        layer.weight.requires_grad = True
    assert layer.weight.requires_grad_(False).requires_grad is False
    layer.weight.requires_grad = False


class TestTying:
    """`head.weight = embedding.weight` ties float layers; so it does int8 layers."""

    @staticmethod
    def pair():
        return w8a16.quantize(nn.ModuleDict({"table": nn.Embedding(32, 16), "head": nn.Linear(16, 32)}))

    def test_assigning_shares_the_tensors(self):
        model = self.pair()
        codes = model["table"].int8_weights
        model["head"].weight = model["table"].weight
        assert model["head"].int8_weights is model["table"].int8_weights is codes
        assert model["head"].scales is model["table"].scales
        model["head"].weight.fill_(1)
        assert model["table"](torch.tensor([3])).eq(1).all()

    def test_a_tie_is_saved_once_and_restored(self, tmp_path):
        model = self.pair()
        model["head"].weight = model["table"].weight
        other = w8a16.load(self.pair(), w8a16.save(model, tmp_path))
        assert torch.equal(other["head"].weight, model["table"].weight)
        restored = w8a16.dequantize(model)
        assert restored["head"].weight is restored["table"].weight

    def test_a_weight_that_lies_in_another_way_is_refused(self):
        pytest.importorskip("transformers")
        from transformers.pytorch_utils import Conv1D

        model = w8a16.quantize(nn.ModuleList([Conv1D(16, 16), nn.Linear(16, 16)]))
        before = snapshot(model)
        with pytest.raises(ModuleError, match="cannot share a weight whose codes lie in another way"):
            model[1].weight = model[0].weight
        assert_unchanged(model, before)

    def test_a_weight_of_another_shape_is_taken_as_torch_takes_it(self):
        layer, other = quantized_linear(), quantized_linear(16, 8)
        layer.weight = other.weight
        assert layer.weight.shape == (8, 16)
