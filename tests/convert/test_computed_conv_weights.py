"""weight_norm and spectral_norm on convolutions and recurrent nets: the effective weight becomes int8."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import w8a16
from support.twins import assert_equals_twin, make_twin, quantize_with_twin
from w8a16.convert import plan
from w8a16.core import error_in_half_steps
from w8a16.layers import QuantizedModule

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")

WRAPPERS = {
    "weight_norm": lambda module: parametrizations.weight_norm(module),
    "weight_norm, dim 2": lambda module: parametrizations.weight_norm(module, dim=2),
    "spectral_norm": lambda module: parametrizations.spectral_norm(module),
    "legacy weight_norm": lambda module: weight_norm(module),
    "legacy weight_norm, dim 2": lambda module: weight_norm(module, dim=2),
    "legacy spectral_norm": lambda module: spectral_norm(module),
}
LAYERS = {
    # wav2vec2's positional convolution, in small
    "conv1d": (lambda: nn.Conv1d(16, 16, 8, padding=4, groups=4), torch.randn(2, 16, 20)),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3), torch.randn(2, 6, 9, 9)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(6, 8, 4, stride=2, groups=2), torch.randn(2, 6, 9)),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def layer(request):
    return request.param


@pytest.fixture(params=WRAPPERS.values(), ids=WRAPPERS)
def wrap(request):
    return request.param


def test_the_effective_weight_is_quantized(layer, wrap):
    make, x = layer
    module = wrap(make()).eval()
    module(x)
    weight, before = module.weight.detach().clone(), module(x)
    assert {row.reason for row in plan(module).rows if len(row.shape) > 1} == {"effective_weight"}
    model, twin = quantize_with_twin(module)
    layout = model.layouts["weight"]
    errors = error_in_half_steps(
        layout.codes_of(weight).flatten(1), model.int8_weights.flatten(1), model.scales
    )
    assert errors.max() <= 1 + 2**-15
    assert set(model.state_dict()) == {"bias", "int8_weights", "scales"}
    assert_equals_twin(model, twin, x)
    assert (model(x) - before).norm() < 0.02 * before.norm()


def test_copies_and_files(layer, wrap, tmp_path):
    make, x = layer
    model = w8a16.quantize(nn.Sequential(wrap(make()))).eval()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(x), model(x))
    w8a16.save(model, tmp_path)
    for fresh in (nn.Sequential(wrap(make())), nn.Sequential(make())):
        assert torch.equal(w8a16.load(fresh, tmp_path)(x), model(x))


def test_back_to_an_ordinary_layer(layer, wrap):
    make, x = layer
    module = w8a16.dequantize(w8a16.quantize(wrap(make())))
    assert type(module) is type(make())
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    assert module(x).isfinite().all()


def test_a_recurrent_net_with_a_normed_weight():
    """Only that weight is computed; the others are plain."""
    module = weight_norm(nn.LSTM(10, 12, 2), "weight_hh_l0").eval()
    x = torch.randn(4, 3, 10)
    before = module(x)[0]
    model, twin = quantize_with_twin(module)
    assert isinstance(model, QuantizedModule)
    assert set(model.layouts) == {f"weight_{which}_l{layer}" for which in ("ih", "hh") for layer in (0, 1)}
    assert type(twin) is nn.LSTM
    assert_equals_twin(model, twin, x)
    assert (model(x)[0] - before).norm() < 0.02 * before.norm()
    assert_equals_twin(copy.deepcopy(model), make_twin(model), x)
