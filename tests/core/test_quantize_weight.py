"""What `quantize_weight` accepts and returns: layouts, devices, modes, blocks."""

import pytest
import torch

from support.numerics import DTYPES, LAYOUTS, name_of, random_weights
from w8a16.core import quantize_weight, weights


def assert_same(actual, expected):
    assert torch.equal(actual.int8_weights, expected.int8_weights)
    assert torch.equal(actual.scales, expected.scales)
    assert actual.underflow_rows == expected.underflow_rows


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout, dtype):
    laid_out = LAYOUTS[layout](random_weights(17, 33, dtype))
    result = quantize_weight(laid_out)
    assert_same(result, quantize_weight(laid_out.clone(memory_format=torch.contiguous_format)))
    assert result.int8_weights.is_contiguous()
    assert result.int8_weights.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_weight_is_left_as_it_was(dtype):
    before = random_weights(9, 33, dtype)
    after = before.clone()
    quantize_weight(after)
    assert torch.equal(before, after)


@pytest.mark.parametrize("shape", [(0, 0), (0, 8), (4, 0)])
def test_empty_weights(shape):
    codes, scales, underflow_rows = quantize_weight(torch.zeros(shape))
    assert codes.shape == shape
    assert scales.tolist() == [1.0] * shape[0]
    assert underflow_rows == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_meta_weights_give_meta_results(dtype):
    codes, scales, underflow_rows = quantize_weight(torch.empty(300, 500, dtype=dtype, device="meta"))
    assert (codes.shape, codes.dtype, codes.device.type) == ((300, 500), torch.int8, "meta")
    assert (scales.shape, scales.dtype, scales.device.type) == ((300,), torch.float32, "meta")
    assert underflow_rows == 0


def test_results_made_in_inference_mode_can_be_trained_through():
    weight = random_weights(4, 8, torch.float32)
    with torch.inference_mode():
        inside = quantize_weight(weight)
        from_inference_weight = quantize_weight(weight.clone())
    for result in (inside, from_inference_weight):
        assert not result.int8_weights.is_inference()
        assert not result.scales.is_inference()
        assert_same(result, quantize_weight(weight))
    x = torch.randn(2, 8, requires_grad=True)
    torch.ops.w8a16.linear(x, inside.int8_weights, inside.scales, None).sum().backward()
    assert x.grad.abs().sum() > 0


def test_weights_that_require_grad():
    parameter = torch.nn.Parameter(random_weights(4, 8, torch.float32))
    result = quantize_weight(parameter)
    assert not result.scales.requires_grad
    assert result.scales.grad_fn is None
    assert_same(result, quantize_weight(parameter.detach()))
    assert quantize_weight(parameter * 2).scales.grad_fn is None


@pytest.mark.parametrize("elements", [1, 32, 33, 34, 65, 66, 67, 98, 99, 33 * 16, 33 * 17, 33 * 18])
def test_blocks_do_not_show_in_the_result(elements, monkeypatch):
    weight = random_weights(17, 33, torch.bfloat16)
    weight[3] = 0
    weight[[5, 16]] = 1e-39
    whole = quantize_weight(weight)
    assert whole.underflow_rows == 2
    monkeypatch.setattr(weights, "_BLOCK_ELEMENTS", elements)
    assert_same(quantize_weight(weight), whole)


def test_a_weight_of_more_than_one_default_block():
    weight = random_weights(5, weights._BLOCK_ELEMENTS // 2 + 1, torch.bfloat16)
    result = quantize_weight(weight)
    for row in range(5):
        assert_same(
            quantize_weight(weight[row : row + 1]),
            type(result)(result.int8_weights[row : row + 1], result.scales[row : row + 1], 0),
        )


def test_rows_do_not_influence_each_other():
    weight = random_weights(40, 65, torch.float32)
    order = torch.randperm(40)
    whole, shuffled = quantize_weight(weight), quantize_weight(weight[order])
    assert torch.equal(whole.int8_weights[order], shuffled.int8_weights)
    assert torch.equal(whole.scales[order], shuffled.scales)
