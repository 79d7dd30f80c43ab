"""float16 sums leave the range of float16 long before the result does."""

import pytest
import torch

from support.numerics import Problem, assert_within_tolerance, random_codes, seeded
from w8a16.kernels import linear, linear_input_grad

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("k", [1, 2, 64, 1000, 4096])
def test_inputs_of_1000_against_codes_of_127(k, sign):
    x = torch.full((3, k), 1000.0 * sign, dtype=torch.float16)
    q = torch.full((5, k), 127, dtype=torch.int8)
    # Results between 1,000 and 60,000, from sums up to 5.2e8.
    scales = torch.tensor([1e3, 6e4, 3e4, 12345.0, 2e4]) / (127_000 * k)
    problem = Problem(x, q, scales, None)
    y = linear(*problem)
    assert torch.isfinite(y).all()
    assert y.abs().min() > 900
    assert_within_tolerance(y, problem)


def test_partial_sums_may_leave_the_range_of_float16():
    x = torch.full((1, 4096), 1000.0, dtype=torch.float16)
    q = torch.full((1, 4096), 127, dtype=torch.int8)
    q[:, 2048:] = -127
    q[0, -1] = -126
    y = linear(x, q, torch.ones(1), None)
    assert y.tolist() == [[1000.0]]


def test_a_bias_may_bring_the_result_back_into_range():
    x = torch.full((1, 64), 1000.0, dtype=torch.float16)
    q = torch.full((1, 64), 127, dtype=torch.int8)
    y = linear(x, q, torch.tensor([0.125]), torch.tensor([-1_000_000.0]))
    assert y.tolist() == [[16_000.0]]


def test_a_result_beyond_float16_is_infinite_and_not_wrapped():
    x = torch.full((1, 8), 1000.0, dtype=torch.float16)
    q = torch.full((2, 8), 127, dtype=torch.int8)
    q[1] = -127
    assert linear(x, q, torch.ones(2), None).tolist() == [[float("inf"), float("-inf")]]


def test_tiny_scales_are_not_rounded_to_zero():
    # 1e-9 is below the smallest float16: a scale kept or applied in half precision would vanish.
    problem = Problem(
        torch.full((2, 256), 60_000.0, dtype=torch.float16),
        random_codes(7, 256, seeded(0)).abs(),
        torch.full((7,), 1e-9),
        None,
    )
    y = linear(*problem)
    assert y.abs().min() > 0.5
    assert_within_tolerance(y, problem)


def test_gradients_that_pass_through_large_sums():
    grad = torch.full((2, 4096), 1000.0, dtype=torch.float16)
    q = torch.full((4096, 3), 127, dtype=torch.int8)
    dx = linear_input_grad(grad, q, torch.full((4096,), 2.0**-14))
    assert dx.tolist() == [[31_744.0] * 3] * 2  # 31,750 to the nearest 16
