"""transformers' Conv1D, a linear layer whose weight is `[in, out]`: codes `[out, in]`, same arithmetic."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import w8a16
from support.files import assert_same_model, on_meta
from support.twins import assert_equals_twin, assert_unchanged, make_twin, quantize_with_twin, snapshot
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps, output_tolerance
from w8a16.layers import COLUMNS
from w8a16.layers.transposed_linear import W8A16TransposedLinear

pytestmark = pytest.mark.transformers
Conv1D = pytest.importorskip("transformers.pytorch_utils").Conv1D


def conv1d(out_features=32, in_features=16, dtype=torch.float32):
    layer = Conv1D(out_features, in_features)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer.to(dtype)


def through_torch_save(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def test_plan_and_tensors():
    layer = conv1d()
    weight = layer.weight.detach().clone()
    (row,) = w8a16.plan(layer).rows
    assert (row.kind, row.tier, row.reason, row.shape) == (
        "transposed_linear",
        "compute",
        "converted",
        (16, 32),
    )
    w8a16.quantize(layer)
    assert isinstance(layer, W8A16TransposedLinear)
    assert isinstance(layer, Conv1D)
    assert layer.layouts == {"weight": COLUMNS}
    assert layer.weight.shape == (16, 32)
    assert layer.int8_weights.shape == (32, 16)
    assert error_in_half_steps(weight.t(), layer.int8_weights, layer.scales).max() <= 1 + HALF_STEP_SLACK
    assert isinstance(layer.bias, nn.Parameter)
    assert list(layer.state_dict()) == ["bias", "int8_weights", "scales"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(16,), (1, 16), (3, 16), (2, 40, 16), (0, 16)], ids=str)
def test_the_law(dtype, shape):
    layer, x = w8a16.quantize(conv1d(dtype=dtype)), torch.randn(shape, dtype=dtype)
    exact = x.double() @ layer.int8_weights.double().T * layer.scales.double() + layer.bias.double()
    output = layer(x)
    assert output.dtype == dtype
    assert output.shape == exact.shape
    flat = x.reshape(-1, 16)
    tolerance = output_tolerance(flat, layer.int8_weights, layer.scales, layer.bias).reshape(exact.shape)
    assert ((output.double() - exact).abs() <= tolerance).all()


def test_it_gives_the_bits_of_a_linear_layer_with_the_same_codes():
    layer, x = w8a16.quantize(conv1d()), torch.randn(3, 16)
    linear = w8a16.W8A16LinearLayer(16, 32)
    linear.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), linear(x))


def test_it_equals_its_twin():
    model, twin = quantize_with_twin(nn.Sequential(conv1d(), nn.GELU(), conv1d(8, 32)))
    assert [type(layer) for layer in twin] == [Conv1D, nn.GELU, Conv1D]
    assert_equals_twin(model, twin, torch.randn(5, 16))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch_save]
)
def test_copies(copied):
    layer, x = w8a16.quantize(conv1d()), torch.randn(3, 16)
    other = copied(layer)
    assert type(other) is type(layer)
    assert torch.equal(other(x), layer(x))
    before = snapshot(layer)
    other.int8_weights.zero_()
    assert_unchanged(layer, before)


@pytest.mark.parametrize("skeleton", [False, True])
def test_round_trip_through_a_file(tmp_path, skeleton):
    def build():
        return nn.Sequential(conv1d(), conv1d(8, 32))

    model, x = w8a16.quantize(build()), torch.randn(3, 16)
    other = w8a16.load(on_meta(build) if skeleton else build(), w8a16.save(model, tmp_path))
    assert_same_model(other, model)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_moves_keep_codes_and_scales(dtype):
    layer = w8a16.quantize(conv1d())
    codes, scales = layer.int8_weights.clone(), layer.scales.clone()
    layer.to(dtype)
    assert torch.equal(layer.int8_weights, codes)
    assert torch.equal(layer.scales, scales)
    assert layer.bias.dtype == layer.weight_dtype == layer.weight.dtype == dtype
    assert layer(torch.randn(2, 16, dtype=dtype)).dtype == dtype


def test_gradients_to_input_and_bias():
    layer = w8a16.quantize(conv1d())
    twin, x, grads = make_twin(layer), torch.randn(4, 16), []
    for module in (layer, twin):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        grads.append((leaf.grad, module.bias.grad))
    for ours, theirs in zip(*grads, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_the_weight_can_be_read_multiplied_and_written():
    layer, x = w8a16.quantize(conv1d()), torch.randn(3, 16)
    torch.testing.assert_close(x @ layer.weight + layer.bias, layer(x), rtol=1e-5, atol=1e-5)
    layer.weight[:, 3].fill_(2)
    assert layer.int8_weights[3].eq(127).all()
    layer.weight.data.zero_()
    assert torch.equal(layer(x), layer.bias.expand(3, 32))
    layer.quantize(torch.eye(16, 32))
    torch.testing.assert_close(layer(x)[:, :16], x + layer.bias[:16], rtol=1e-5, atol=1e-5)


def test_in_a_compiled_graph():
    torch.compiler.reset()
    model, twin = quantize_with_twin(nn.Sequential(conv1d(), nn.GELU(), conv1d(8, 32)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 7):
        assert_equals_twin(compiled, twin, torch.randn(rows, 16))


class Doubled(Conv1D):
    def forward(self, x):
        return super().forward(x) * 2


class Unbiased(Conv1D):
    """Computes with the weight itself, as transformers' own forward does."""

    def forward(self, x):
        return torch.mm(x, self.weight)


@pytest.mark.parametrize("layer_type, tier", [(Doubled, "compute"), (Unbiased, "storage")])
def test_subclasses_keep_their_forward(layer_type, tier):
    layer, x = layer_type(32, 16), torch.randn(3, 16)
    (row,) = w8a16.plan(layer).rows
    assert (row.kind, row.tier) == ("transposed_linear", tier)
    model, twin = quantize_with_twin(nn.Sequential(layer))
    assert type(twin[0]) is layer_type
    assert isinstance(model[0], layer_type)
    assert_equals_twin(model, twin, x)
    as_plain = torch.allclose(model(x), W8A16TransposedLinear.forward(model[0], x), rtol=1e-4, atol=1e-5)
    assert as_plain == (layer_type is Unbiased)  # the bias is still zero


def test_tied_layers_share_codes():
    first, second = conv1d(16, 16), conv1d(16, 16)
    second.weight = first.weight
    model, twin = quantize_with_twin(nn.Sequential(first, nn.GELU(), second))
    assert model[0].int8_weights is model[2].int8_weights
    assert twin[0].weight is twin[2].weight
    assert_equals_twin(model, twin, torch.randn(3, 16))
