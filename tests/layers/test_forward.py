from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from support.twins import assert_equals_twin, assert_layer_is_exact, make_twin, quantized_linear
from w8a16 import W8A16LinearLayer, w8_a16_forward

SHAPES = [(16,), (1, 16), (5, 16), (1, 6, 16), (2, 3, 4, 16), (1, 1, 1, 1, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_every_number_of_dimensions(shape, bias):
    layer = quantized_linear(bias=bias)
    x = torch.randn(shape)
    assert layer(x).shape == (*shape[:-1], 32)
    assert_layer_is_exact(layer, x)


@pytest.mark.parametrize("shape", [(0, 16), (2, 0, 16), (0, 3, 16)], ids=str)
def test_batches_of_nothing(shape):
    output = quantized_linear()(torch.ones(shape))
    assert output.shape == (*shape[:-1], 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_output_has_the_dtype_of_the_input_whatever_the_bias(dtype):
    assert quantized_linear()(torch.randn(2, 16, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::2],
        lambda x: x.T[:16].T,
        lambda x: x[:1, :16].expand(4, 16),
        lambda x: x.flatten()[3:67].view(4, 16),
    ],
    ids=["strided", "transposed", "expanded", "offset"],
)
def test_inputs_that_are_views(view):
    x = view(torch.randn(32, 32))
    assert_layer_is_exact(quantized_linear(), x[:, :16])


def test_it_is_the_public_function_on_the_buffers():
    layer, x = quantized_linear(), torch.randn(3, 16)
    assert torch.equal(layer(x), w8_a16_forward(layer.int8_weights, x, layer.scales, layer.bias))


def test_the_input_may_be_a_keyword_as_in_nn_linear():
    layer, x = quantized_linear(), torch.randn(3, 16)
    assert torch.equal(layer(input=x), layer(x))


def test_the_input_is_not_changed():
    layer, x = quantized_linear(), torch.randn(3, 16)
    before = x.clone()
    layer(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_its_dtype(dtype):
    layer, x = quantized_linear(), torch.randn(3, 16)
    with torch.autocast("cpu", dtype=dtype):
        output, expected = layer(x), make_twin(layer)(x)
    assert output.dtype == expected.dtype == dtype
    # Under autocast only the input is rounded; the layer must equal itself on the rounded input.
    assert torch.equal(output, layer(x.to(dtype)))


def test_autocast_leaves_float64_alone():
    layer, x = quantized_linear().double(), torch.randn(3, 16, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.float64


def test_the_same_bits_at_every_call():
    layer, x = quantized_linear(255, 129), torch.randn(33, 255)
    assert torch.equal(layer(x), layer(x))


def test_eight_threads_on_one_layer_get_the_bits_of_one():
    layer = quantized_linear(255, 129)
    inputs = [torch.randn(17, 255) for _ in range(64)]
    alone = [layer(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(layer, inputs))
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_training_flag_makes_no_difference():
    layer, x = quantized_linear(), torch.randn(3, 16)
    assert torch.equal(layer.train()(x), layer.eval()(x))


def test_codes_in_float64_equal_the_twin_to_float64_precision():
    layer = quantized_linear(dtype=torch.float64)
    assert_equals_twin(layer, make_twin(layer), torch.randn(5, 16, dtype=torch.float64), tolerance=1e-14)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_torch_jit_trace():
    layer, x = W8A16LinearLayer(16, 32).quantize(torch.randn(32, 16)), torch.randn(3, 16)
    traced = torch.jit.trace(layer, torch.randn(2, 16))
    assert torch.equal(traced(x), layer(x))
