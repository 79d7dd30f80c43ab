"""`dequantize_weight`: one float32 product, rounded once."""

import pytest
import torch

from support.numerics import DTYPES, name_of, random_codes, random_weights, seeded
from w8a16.core import dequantize_weight, half_step_bound, quantize_weight
from w8a16.errors import DtypeError, ShapeError


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_product_is_rounded_once(dtype):
    codes = random_codes(33, 65, seeded(0))
    scales = torch.rand(33, generator=seeded(1)) + 0.1
    exact = codes.double() * scales.double().unsqueeze(1)
    expected = exact if dtype == torch.float64 else exact.float().to(dtype)
    assert torch.equal(dequantize_weight(codes, scales, dtype), expected)


def test_half_precision_scales_are_widened_first():
    codes = random_codes(8, 16, seeded(0))
    scales = (torch.rand(8, generator=seeded(1)) + 0.1).half()
    assert torch.equal(dequantize_weight(codes, scales), codes.float() * scales.float().unsqueeze(1))


def test_a_round_trip_stays_within_half_a_step():
    weights = random_weights(33, 257, torch.float32)
    codes, scales, _ = quantize_weight(weights)
    error = (weights.double() - dequantize_weight(codes, scales, torch.float64)).abs()
    assert (error <= half_step_bound(scales).unsqueeze(1)).all()


def test_quantizing_a_dequantized_weight_gives_its_codes_back():
    codes, scales, _ = quantize_weight(random_weights(33, 257, torch.float32))
    again = quantize_weight(dequantize_weight(codes, scales))
    assert torch.equal(again.int8_weights, codes)
    torch.testing.assert_close(again.scales, scales, rtol=2**-22, atol=0)


@pytest.mark.parametrize("shape", [(0, 0), (0, 8), (4, 0)])
def test_empty(shape):
    assert dequantize_weight(torch.zeros(shape, dtype=torch.int8), torch.ones(shape[0])).shape == shape


def test_errors_say_what_was_expected():
    with pytest.raises(DtypeError, match=r"^expected int8 codes, got torch\.float32$"):
        dequantize_weight(torch.zeros(4, 8), torch.ones(4))
    with pytest.raises(ShapeError, match=r"^expected scales \[4\], got \[3\]$"):
        dequantize_weight(torch.zeros(4, 8, dtype=torch.int8), torch.ones(3))
