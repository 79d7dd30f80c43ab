"""Bags of int8 rows: what `nn.EmbeddingBag` gives with the dequantized table, in every calling convention."""

import copy
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.files import assert_same_model, on_meta
from support.twins import quantize_with_twin
from w8a16.layers import W8A16EmbeddingBag

FLAT = torch.tensor([1, 4, 0, 19, 4, 4, 2, 0])
OFFSETS = torch.tensor([0, 3, 3, 6])  # the second bag is empty
BAGS = torch.tensor([[1, 4, 0], [19, 4, 4]])
MODES = ["sum", "mean", "max"]
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def bags_with_twin(**options):
    layer, twin = quantize_with_twin(nn.EmbeddingBag(20, 16, **options))
    assert type(layer) is W8A16EmbeddingBag
    assert type(twin) is nn.EmbeddingBag
    assert layer.int8_weights.shape == (20, 16)
    return layer, twin


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_bags_of_one_length(mode, dtype):
    layer, twin = bags_with_twin(mode=mode, dtype=dtype)
    assert layer(BAGS).dtype == dtype
    assert torch.equal(layer(BAGS), twin(BAGS))
    assert torch.equal(layer(BAGS.int()), twin(BAGS))
    assert layer(BAGS[:0]).shape == (0, 16)


@pytest.mark.parametrize("padding", [None, 0, 4, -1])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_offsets(mode, last, padding):
    layer, twin = bags_with_twin(mode=mode, include_last_offset=last, padding_idx=padding)
    offsets = torch.cat([OFFSETS, torch.tensor([len(FLAT)])]) if last else OFFSETS
    assert layer(FLAT, offsets).shape == (4, 16)
    assert torch.equal(layer(FLAT, offsets), twin(FLAT, offsets))
    assert layer(FLAT, offsets)[1].eq(0).all()
    assert torch.equal(layer(FLAT.int(), offsets.int()), twin(FLAT, offsets))
    assert torch.equal(layer(FLAT, offsets.int()), twin(FLAT, offsets))


@pytest.mark.parametrize("padding", [0, 4, -1, 19])
@pytest.mark.parametrize("mode", MODES)
def test_padding_is_left_out(mode, padding):
    layer, twin = bags_with_twin(mode=mode, padding_idx=padding)
    layer.weight[padding].fill_(100)  # seen at once, if it were added
    twin.weight.data[padding].fill_(100)
    bags = torch.cat([BAGS, torch.full((1, 3), padding % 20)])
    torch.testing.assert_close(layer(bags), twin(bags), **CLOSE)
    assert layer(bags)[2].eq(0).all()


@pytest.mark.parametrize("padding", [None, 4])
def test_weights_of_the_samples(padding):
    layer, twin = bags_with_twin(mode="sum", padding_idx=padding)
    for arguments, shape in (((BAGS,), (2, 3)), ((FLAT, OFFSETS), (8,))):
        weights = torch.randn(shape)
        torch.testing.assert_close(
            layer(*arguments, per_sample_weights=weights),
            twin(*arguments, per_sample_weights=weights),
            **CLOSE,
        )


@pytest.mark.parametrize("padding", [None, 4])
def test_gradient_of_the_weights_of_the_samples(padding):
    layer, twin = bags_with_twin(mode="sum", padding_idx=padding)
    weights, grads = torch.randn(8), []
    for module in (layer, twin):
        leaf = weights.clone().requires_grad_()
        module(FLAT, OFFSETS, leaf).square().sum().backward()
        grads.append(leaf.grad)
    assert grads[1].norm() > 0
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-5)


def test_max_norm():
    layer, twin = bags_with_twin(mode="sum", max_norm=1.0)
    with torch.no_grad():
        torch.testing.assert_close(layer(BAGS), twin(BAGS), **CLOSE)


@pytest.mark.parametrize("arguments", [(FLAT,), (BAGS, OFFSETS)], ids=["no offsets", "offsets of a matrix"])
def test_calls_that_torch_refuses(arguments):
    layer, twin = bags_with_twin()
    with pytest.raises(ValueError) as expected:
        twin(*arguments)
    with pytest.raises(ValueError) as caught:
        layer(*arguments)
    assert str(caught.value) == str(expected.value)


def test_from_pretrained_and_copies():
    layer = w8a16.quantize(nn.EmbeddingBag.from_pretrained(torch.randn(20, 16), mode="sum"))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(BAGS), layer(BAGS))
        assert other.mode == "sum"


@pytest.mark.parametrize("skeleton", [False, True])
def test_round_trip_through_a_file(tmp_path, skeleton):
    def build():
        return nn.Sequential(nn.EmbeddingBag(20, 16, padding_idx=4), nn.Linear(16, 4))

    model = w8a16.quantize(build())
    other = w8a16.load(on_meta(build) if skeleton else build(), w8a16.save(model, tmp_path))
    assert_same_model(other, model)
    assert torch.equal(other(BAGS), model(BAGS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moves(dtype):
    layer, _ = bags_with_twin()
    codes, scales = layer.int8_weights.clone(), layer.scales.clone()
    layer.to(dtype)
    assert torch.equal(layer.int8_weights, codes)
    assert torch.equal(layer.scales, scales)
    assert layer(BAGS).dtype == dtype
    assert torch.equal(layer(BAGS), w8a16.dequantize(copy.deepcopy(layer))(BAGS))


def test_in_a_compiled_graph():
    torch.compiler.reset()
    layer, _ = bags_with_twin(mode="mean", padding_idx=0)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(FLAT, OFFSETS), layer(FLAT, OFFSETS), **CLOSE)


def test_a_subclass_with_its_own_forward():
    class Doubled(nn.EmbeddingBag):
        def forward(self, input, offsets=None):
            return super().forward(input, offsets) * 2

    layer, twin = quantize_with_twin(Doubled(20, 16))
    assert isinstance(layer, W8A16EmbeddingBag)
    assert type(twin) is Doubled
    assert torch.equal(layer(FLAT, OFFSETS), twin(FLAT, OFFSETS))
    assert torch.equal(layer(BAGS), 2 * W8A16EmbeddingBag.forward(layer, BAGS))
