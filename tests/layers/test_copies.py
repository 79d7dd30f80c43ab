import copy
import io
import pickle

import pytest
import torch

from support.twins import assert_unchanged, mlp, quantized_linear, snapshot
from w8a16 import W8A16LinearLayer, quantize


def through_pickle(module):
    return pickle.loads(pickle.dumps(module))


def through_torch_save(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = [copy.deepcopy, through_pickle, through_torch_save]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_computes_the_same_bits(way):
    layer, x = quantized_linear(dtype=torch.bfloat16), torch.randn(3, 16, dtype=torch.bfloat16)
    other = way(layer)
    assert type(other) is W8A16LinearLayer
    assert other.weight_dtype == torch.bfloat16
    assert torch.equal(other(x), layer(x))
    assert repr(other) == repr(layer)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_shares_no_memory(way):
    model = quantize(mlp())
    before = snapshot(model)
    for buffer in way(model).buffers():
        buffer.zero_()
    assert_unchanged(model, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_can_be_quantized_anew(way):
    layer = way(quantized_linear())
    layer.quantize(torch.zeros(32, 16))
    assert layer.weight.eq(0).all()


def test_deepcopy_of_a_layer_on_the_meta_device():
    layer = copy.deepcopy(W8A16LinearLayer(16, 32, device="meta"))
    assert layer.int8_weights.is_meta
