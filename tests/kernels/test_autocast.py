"""Autocast casts the input and nothing else: sums, scales and bias keep their precision."""

import pytest
import torch

from support.numerics import assert_within_tolerance, name_of, random_problem, seeded
from w8a16.kernels import linear, linear_input_grad

HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("half", HALVES, ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=name_of)
def test_the_output_has_the_autocast_dtype(dtype, half):
    problem = random_problem(17, 129, 33, dtype)
    with torch.autocast("cpu", half):
        y = linear(*problem)
    cast = problem._replace(input=problem.input.to(half))
    assert_within_tolerance(y, cast)
    assert torch.equal(y, linear(*cast))


@pytest.mark.parametrize("half", HALVES, ids=name_of)
def test_float64_is_left_alone(half):
    problem = random_problem(17, 129, 33, torch.float64)
    with torch.autocast("cpu", half):
        y = linear(*problem)
    assert_within_tolerance(y, problem)


def test_autocast_that_is_off_or_for_another_device_changes_nothing():
    problem = random_problem(3, 65, 33, torch.float32)
    expected = linear(*problem)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(linear(*problem), expected)
        assert linear(*problem).dtype == torch.bfloat16  # and the outer one is on again
    assert torch.equal(linear(*problem), expected)


@pytest.mark.parametrize("half", HALVES, ids=name_of)
def test_scales_stay_float32_in_effect(half):
    problem = random_problem(33, 129, 65, torch.float32)
    cast = problem._replace(input=problem.input.to(half))
    with torch.autocast("cpu", half):
        y = linear(*problem)
        rounded = linear(*problem._replace(scales=problem.scales.to(half)))
    assert_within_tolerance(y, cast)
    # The control: the comparison would notice scales rounded to the autocast dtype.
    with pytest.raises(AssertionError, match="times the tolerance"):
        assert_within_tolerance(rounded, cast)


@pytest.mark.parametrize("half", HALVES, ids=name_of)
@pytest.mark.parametrize("backward_inside", [True, False])
def test_the_gradient(half, backward_inside):
    x, q, scales, bias = random_problem(17, 129, 33, torch.float32)
    x.requires_grad_()
    grad = torch.randn(17, 33, generator=seeded(1)).to(half)
    with torch.autocast("cpu", half):
        y = linear(x, q, scales, bias)
        if backward_inside:
            y.backward(grad)
    if not backward_inside:
        y.backward(grad)
    assert x.grad.dtype == torch.float32
    # The cast of the input rounds its gradient to the autocast dtype, once, from a float32 sum.
    assert torch.equal(x.grad, linear_input_grad(grad, q, scales).float())
    exact = (grad.double() * scales.double()) @ q.double()
    torch.testing.assert_close(x.grad.double(), exact, rtol=torch.finfo(half).eps, atol=1e-5)
    assert exact.norm() > 0


def test_the_gradient_op_itself_is_not_cast():
    grad = torch.randn(3, 33)
    _, q, scales, _ = random_problem(3, 65, 33, torch.float32)
    expected = linear_input_grad(grad, q, scales)
    with torch.autocast("cpu", torch.bfloat16):
        actual = linear_input_grad(grad, q, scales)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("backward_inside", [True, False])
def test_the_gradient_of_the_scales(backward_inside):
    x, q, scales, bias = random_problem(17, 129, 33, torch.float32)
    scales.requires_grad_()
    grad = torch.randn(17, 33, generator=seeded(1)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, q, scales, bias)
        if backward_inside:
            y.backward(grad)
    if not backward_inside:
        y.backward(grad)
    exact = (grad.double() * (x.bfloat16().double() @ q.double().T)).sum(0)
    assert exact.norm() > 0
    assert (scales.grad.double() - exact).norm() < 2**-18 * exact.norm()


def test_the_gradient_of_the_gradient_op_is_not_rounded():
    _, q, scales, _ = random_problem(3, 65, 33, torch.float32)
    grad = torch.randn(3, 33, requires_grad=True)
    cotangent = torch.randn(3, 65)
    (expected,) = torch.autograd.grad(linear_input_grad(grad, q, scales), grad, cotangent)
    with torch.autocast("cpu", torch.bfloat16):
        (actual,) = torch.autograd.grad(linear_input_grad(grad, q, scales), grad, cotangent)
    assert torch.equal(actual, expected)


def test_the_matmul_inside_is_not_cast():
    # A bfloat16 matmul would round the sum of 8,128 + 1 before the scale brings it back in range.
    x = torch.ones(1, 65)
    q = torch.full((1, 65), 127, dtype=torch.int8)
    q[0, -1] = 1
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x, q, torch.ones(1), torch.tensor([-8128.0]))
    assert y.item() == 1
