"""Every element of a quantized weight lies within half a step; the textbook bfloat16 recipe does not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.numerics import DTYPES, K_VALUES, N_VALUES, name_of, random_weights
from w8a16.core import HALF_STEP_SLACK, error_in_half_steps, half_step_bound, quantize_weight

SHAPES = [(n, 65) for n in N_VALUES] + [(33, k) for k in K_VALUES]
SHAPES += [(n, K_VALUES[5 * i % len(K_VALUES)]) for i, n in enumerate(N_VALUES)]


def check(n: int, k: int, dtype: torch.dtype) -> None:
    weights = random_weights(n, k, dtype, seed=n * 31 + k)
    codes, scales, underflow_rows = quantize_weight(weights)
    assert codes.shape == (n, k)
    assert scales.shape == (n,)
    assert (codes.dtype, scales.dtype) == (torch.int8, torch.float32)
    assert underflow_rows == 0
    if n * k == 0:
        assert torch.equal(scales, torch.ones(n))
        return
    rows = weights.double().abs().amax(1) > 0  # float16 may round a whole tiny row to zero
    assert rows.double().mean() > 0.7
    error = error_in_half_steps(weights, codes, scales)[rows]
    assert error.max() <= 1 + HALF_STEP_SLACK
    # A bound that is never approached would not notice a wrong one.
    if n * k > 10_000 and dtype != torch.float16:
        assert error.max() > 0.99
    assert codes.abs().amax(1)[rows].eq(127).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_random_weights_of_every_shape(dtype):
    for n, k in SHAPES:
        check(n, k, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("k", K_VALUES)
def test_random_weights_of_all_pairs_of_sizes(k, dtype):
    for n in N_VALUES:
        check(n, k, dtype)


def test_textbook_bfloat16_recipe_flips_the_sign_of_the_largest_weight():
    torch.manual_seed(0)
    # Cast, not made in bfloat16: uniform_ in bfloat16 reaches only the negative end, and -128 does not wrap.
    weights = torch.nn.Linear(2048, 256).bfloat16().weight.detach()
    scales = weights.abs().amax(-1) / 127
    # int16 first: 128 then wraps to -128, as the direct cast does, by definition instead of by luck.
    codes = torch.round(weights / scales.unsqueeze(1)).to(torch.int16).to(torch.int8)
    flipped = ((weights * codes) < 0).any(1).double().mean()
    assert flipped > 0.9
    assert error_in_half_steps(weights, codes, scales).max() > 100

    ours = quantize_weight(weights)
    assert not ((weights.double() * ours.int8_weights.double()) < 0).any()
    assert error_in_half_steps(weights, ours.int8_weights, ours.scales).max() <= 1 + HALF_STEP_SLACK


def test_ties_round_to_the_even_code():
    weights = torch.tensor([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 125.5, 126.5]])
    codes, scales, _ = quantize_weight(weights)
    assert scales.tolist() == [1.0]
    assert codes.tolist() == [[127, 0, 2, 2, 0, -2, -2, 126, 126]]


def test_float64_codes_are_counted_in_steps_of_the_stored_scale():
    # amax / 127 = 1 + 2**-25 is stored as 1. Just above 100.5 stored steps is just below 100.5 exact ones.
    weights = torch.tensor([[127 * (1 + 2**-25), 100.5 * (1 + 2**-26)]], dtype=torch.float64)
    codes, scales, _ = quantize_weight(weights)
    assert scales.tolist() == [1.0]
    assert codes.tolist() == [[127, 101]]


finite_rows = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(finite_rows, st.sampled_from([torch.float32, torch.float64]))
def test_any_row_obeys_the_law(row, dtype):
    weights = torch.tensor([row], dtype=dtype)
    codes, scales, underflow_rows = quantize_weight(weights)
    assert torch.isfinite(scales).all()
    assert (scales > 0).all()
    if not codes.any():
        assert scales.item() == 1
        assert underflow_rows == int(weights.any())
        return
    assert underflow_rows == 0
    assert codes.abs().max() == 127
    error = (weights.double() - codes.double() * scales.double()).abs()
    assert (error <= half_step_bound(scales)).all()
    assert (weights.double().sign() * codes.sign() >= 0).all()


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(finite_rows)
def test_negating_a_row_negates_its_codes(row):
    plus, minus = quantize_weight(torch.tensor([row])), quantize_weight(-torch.tensor([row]))
    assert torch.equal(plus.int8_weights, -minus.int8_weights)
    assert torch.equal(plus.scales, minus.scales)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20), st.integers(-60, 60))
def test_a_power_of_two_moves_the_scale_and_not_the_codes(row, exponent):
    weights = torch.tensor([row], dtype=torch.float32)
    small, large = quantize_weight(weights), quantize_weight(weights * 2.0**exponent)
    assert torch.equal(small.int8_weights, large.int8_weights)
    if weights.any():
        assert torch.equal(small.scales * 2.0**exponent, large.scales)
