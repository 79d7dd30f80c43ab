"""Convolutions in int8: every option of the float layers, memory formats, subclasses."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

import w8a16
from support.twins import assert_equals_twin, quantize_with_twin
from w8a16.convert import plan
from w8a16.layers import QuantizedModule

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid", "stride": 2},
    "reflect": {"padding": 1, "padding_mode": "reflect"},
    "replicate": {"padding": 2, "padding_mode": "replicate"},
    "circular, same": {"padding": "same", "padding_mode": "circular"},
    "groups": {"groups": 3, "stride": 2, "padding": 1},
    "depthwise": {"groups": 6},
}


@pytest.mark.parametrize("dimensions", CONVS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("batch", [(2,), (), (0,)], ids=["batched", "unbatched", "empty batch"])
def test_equals_its_twin(dimensions, options, batch):
    model, twin = quantize_with_twin(CONVS[dimensions](6, 12, 3, **options))
    x = torch.randn(*batch, 6, *(9, 8, 7)[:dimensions])
    if batch == (0,):
        assert model(x).shape == twin(x).shape
    else:
        assert_equals_twin(model, twin, x)


@pytest.mark.parametrize("dimensions", TRANSPOSED)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "output_padding": 1}, {"dilation": 2, "padding": 1}])
@pytest.mark.parametrize("is_batched", [True, False])
def test_transposed_equals_its_twin(dimensions, groups, options, is_batched):
    model, twin = quantize_with_twin(TRANSPOSED[dimensions](6, 12, 3, groups=groups, **options))
    x = torch.randn(*(2,) * is_batched, 6, *(5, 4, 3)[:dimensions])
    assert model.scales.shape == (12,)
    assert_equals_twin(model, twin, x)


@pytest.mark.parametrize("dimensions", TRANSPOSED)
def test_transposed_with_an_output_size(dimensions):
    model, twin = quantize_with_twin(TRANSPOSED[dimensions](6, 4, 3, stride=2, padding=1))
    x = torch.randn(2, 6, *(5, 4, 3)[:dimensions])
    for extra in (0, 1):
        size = [2 * length - 1 + extra for length in x.shape[2:]]
        assert model(x, size).shape[2:] == torch.Size(size)
        assert_equals_twin(model, twin, (x, size))


CHANNELS_LAST = [
    (lambda: nn.Conv2d(6, 8, 3), torch.randn(2, 6, 9, 8)),
    (lambda: nn.Conv3d(6, 8, 3), torch.randn(2, 6, 5, 6, 7)),
    (lambda: nn.ConvTranspose2d(6, 8, 3, groups=2), torch.randn(2, 6, 9, 8)),
]


@pytest.mark.parametrize("make, x", CHANNELS_LAST)
@pytest.mark.parametrize("what", list(itertools.product(["as it is", "converted"], repeat=2)))
def test_channels_last(make, x, what):
    """Input and layer each in either memory format: the output has the one that the float layer gives it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    model, twin = quantize_with_twin(make())
    codes = model.int8_weights.clone()
    if what[0] == "converted":
        model.to(memory_format=formats[x.dim()])
        twin.to(memory_format=formats[x.dim()])
        assert not model.int8_weights.is_contiguous()
    if what[1] == "converted":
        x = x.to(memory_format=formats[x.dim()])
    assert torch.equal(model.int8_weights, codes)
    assert_equals_twin(model, twin, x)
    assert model.weight.shape == twin.weight.shape
    assert torch.equal(model.dequantized(), twin.weight)
    if isinstance(model, nn.Conv2d):
        assert model(x).stride() == twin(x).stride()


@pytest.mark.parametrize("make", [m for m, _ in CHANNELS_LAST])
def test_a_weight_that_is_channels_last_keeps_its_format(make):
    layer, plain = make(), make()
    plain.load_state_dict(layer.state_dict())
    last = {4: torch.channels_last, 5: torch.channels_last_3d}[layer.weight.dim()]
    model, expected = w8a16.quantize(layer.to(memory_format=last)), w8a16.quantize(plain)
    assert model.int8_weights.is_contiguous(memory_format=last)
    assert not model.int8_weights.is_contiguous()
    assert torch.equal(model.int8_weights, expected.int8_weights)
    assert torch.equal(model.scales, expected.scales)
    if isinstance(model, nn.Conv2d):
        assert model.weight.clone().is_contiguous(memory_format=last)  # what code that reads it computes with
    assert torch.equal(model.weight.clone(), expected.dequantized())
    restored = w8a16.dequantize(model)
    assert restored.weight.is_contiguous(memory_format=last)
    assert not restored.weight.is_contiguous()
    assert torch.equal(restored.weight, expected.dequantized())


def test_a_weight_without_a_spatial_extent_stays_contiguous():
    """It fits both formats; the usual one wins."""
    model = w8a16.quantize(nn.Conv2d(6, 8, 1).to(memory_format=torch.channels_last))
    assert model.int8_weights.is_contiguous()


def test_channels_last_survives_saving(tmp_path):
    model = w8a16.quantize(nn.Conv2d(6, 8, 3)).to(memory_format=torch.channels_last)
    w8a16.save(model, tmp_path)
    loaded, x = w8a16.load(nn.Conv2d(6, 8, 3), tmp_path), torch.randn(2, 6, 9, 8)
    assert torch.equal(loaded.int8_weights, model.int8_weights)
    torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-6)


def test_the_weight_is_rounded_once_to_the_dtype_of_the_input():
    """One tap, so that the output shows every weight: not rounded on the way to `weight_dtype` first."""
    model = w8a16.quantize(nn.Conv1d(1, 64, 8, bias=False).to(torch.bfloat16))
    x = torch.eye(1, 8, dtype=torch.float64).unsqueeze(0)
    expected = model.int8_weights[:, 0, 0].double() * model.scales.double()
    assert torch.equal(model(x)[0, :, 0], expected)
    assert not torch.equal(expected, expected.bfloat16().double())


class CausalConv(nn.Conv1d):
    """Its forward takes more arguments, as transformers' causal convolutions do."""

    def forward(self, x, cache=None):
        padding = torch.zeros(*x.shape[:-1], 2) if cache is None else cache
        x = torch.cat([padding, x], dim=-1)
        return super().forward(x), x[..., -2:]


class Standardized(nn.Conv2d):
    """Weight standardisation, as in BiT: computes with the weight."""

    def forward(self, x):
        weight = self.weight.flatten(1)
        weight = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
        arguments = (self.bias, self.stride, self.padding, self.dilation, self.groups)
        return functional.conv2d(x, weight.view_as(self.weight), *arguments)


class Halved(nn.Conv2d):
    """Changes the step behind `forward`."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, weight / 2, bias)


class Gained(nn.ConvTranspose2d):
    """A parameter of its own beside the weight."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gain = nn.Parameter(torch.randn(8, 9, 9))

    def forward(self, x):
        return super().forward(x, [9, 9]) * self.gain


@pytest.mark.parametrize(
    "make, inputs, names",
    [
        (lambda: CausalConv(6, 8, 3), (torch.randn(2, 6, 9), torch.randn(2, 6, 2)), {"weight"}),
        (lambda: Standardized(6, 8, 3, stride=2), (torch.randn(2, 6, 9, 9),), {"weight"}),
        (lambda: Halved(6, 8, 3), (torch.randn(2, 6, 9, 9),), {"weight"}),
        (lambda: Gained(6, 8, 3), (torch.randn(2, 6, 7, 7),), {"weight", "gain"}),
    ],
)
def test_subclasses(make, inputs, names):
    floats = make()
    model, twin = quantize_with_twin(floats)
    assert set(model.layouts) == names
    assert isinstance(model, QuantizedModule)
    assert_equals_twin(model, twin, inputs)
    for excluded in names - {"weight"}:
        model, twin = quantize_with_twin(make(), exclude=excluded)
        assert set(model.layouts) == {"weight"}
        assert_equals_twin(model, twin, inputs)


def test_the_weight_alone_may_stay_float():
    model, twin = quantize_with_twin(Gained(6, 8, 3), exclude="weight")
    assert set(model.layouts) == {"gain"}
    assert isinstance(model.weight, nn.Parameter)
    assert_equals_twin(model, twin, torch.randn(2, 6, 7, 7))


def test_a_depthwise_convolution_that_would_not_be_smaller_stays_float():
    """Three codes and a scale are 7 bytes; three values in 16 bits are 6."""
    model = nn.Sequential(nn.Conv1d(16, 16, 3, groups=16), nn.Conv1d(16, 16, 5, groups=16)).bfloat16()
    rows = plan(model).rows
    assert [(row.verdict, row.reason) for row in rows] == [("float", "not_smaller"), ("int8", "stored")]
    assert "112 bytes against 96" in rows[0].sentence
    w8a16.quantize(model)
    assert type(model[0]) is nn.Conv1d
    assert isinstance(model[1], QuantizedModule)
    assert model(torch.randn(2, 16, 9).bfloat16()).dtype == torch.bfloat16


def test_autocast():
    model, twin = quantize_with_twin(nn.Conv2d(6, 8, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 6, 9, 9)).dtype == torch.bfloat16
        assert_equals_twin(model, twin, torch.randn(2, 6, 9, 9), 2**-8)


def test_a_lazy_convolution_has_no_weight_yet_and_then_has_one():
    model = nn.Sequential(nn.LazyConv2d(8, 3))
    assert {row.reason for row in plan(model).rows} == {"uninitialized"}
    x = torch.randn(2, 6, 9, 9)
    model(x)
    assert_equals_twin(*quantize_with_twin(model), x)
