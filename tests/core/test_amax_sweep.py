"""Every positive finite 16-bit value as a row's largest weight: its code is 127, with its sign."""

import pytest
import torch

from support.numerics import name_of, positive_finite
from w8a16.core import SMALLEST_SCALE, half_step_bound, quantize_weight

PLACE = 5
FRACTIONS = torch.tensor([1, -1, 0.5, -0.503937, 0.25, 0, -0.0039, 0.75, -0.996, 0.1, -0.33, 0.998])


def rows_with_amax(amax: torch.Tensor, sign: int) -> torch.Tensor:
    """One row for each value: the value at `PLACE`, fractions of it elsewhere."""
    rows = (amax.double().unsqueeze(1) * FRACTIONS.double()).to(amax.dtype)
    rows[:, PLACE] = sign * amax
    return rows


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "dtype, values, too_small",
    # 1,149 = 127 subnormals, 7 binades of 128, and the 126 values of the next one below 127 * 2**-125.
    [(torch.float16, 31_743, 0), (torch.bfloat16, 32_639, 127 + 7 * 128 + 126)],
    ids=name_of,
)
def test_largest_weight_becomes_127(dtype, values, too_small, sign):
    amax = positive_finite(dtype)
    assert len(amax) == values
    weights = rows_with_amax(amax, sign)
    codes, scales, underflow_rows = quantize_weight(weights)

    # amax / 127 in float64 decides, independently of the float32 quotient under test.
    stored = amax.double() / 127 >= SMALLEST_SCALE
    assert int((~stored).sum()) == underflow_rows == too_small
    assert (codes[stored, PLACE] == 127 * sign).all()
    assert (codes[~stored] == 0).all()
    assert (scales[~stored] == 1).all()

    kept, kept_codes = weights[stored].double(), codes[stored].double()
    assert (kept.sign() * kept_codes.sign() >= 0).all(), "a code has the opposite sign of its weight"
    error = (kept - kept_codes * scales[stored].double().unsqueeze(1)).abs()
    assert (error <= half_step_bound(scales[stored]).unsqueeze(1)).all()
    assert codes.min() >= -127


def test_the_same_values_give_the_same_codes_in_every_wider_dtype():
    weights = rows_with_amax(positive_finite(torch.bfloat16), 1)
    narrow, wide = quantize_weight(weights), quantize_weight(weights.float())
    assert torch.equal(narrow.int8_weights, wide.int8_weights)
    assert torch.equal(narrow.scales, wide.scales)
    double = quantize_weight(weights.double())
    # float64 rows divide a float64 quotient by the stored float32 scale: ties may fall either way.
    assert (double.int8_weights.int() - wide.int8_weights.int()).abs().max() <= 1
    assert (double.int8_weights[:, PLACE] == wide.int8_weights[:, PLACE]).all()
