"""The bounds themselves, against formulas written out by hand."""

import math

import pytest
import torch

from support.numerics import DTYPES, UNIT_ROUNDOFF, name_of, random_problem, random_weights, seeded
from w8a16.core import (
    HALF_STEP_SLACK,
    error_in_half_steps,
    half_step_bound,
    output_error_bound,
    output_tolerance,
    quantize_weight,
)
from w8a16.kernels import linear

SMALLEST = {torch.float16: 2**-24, torch.bfloat16: 2**-133, torch.float32: 2**-149, torch.float64: 5e-324}


def test_half_step_bound():
    assert HALF_STEP_SLACK == 2**-15
    bound = half_step_bound(torch.tensor([2.0, 0.5]))
    assert bound.dtype == torch.float64
    assert bound.tolist() == [1 + 2**-15, 0.25 + 2**-17]


def test_error_in_half_steps():
    weights = torch.tensor([[1.0, 2.25, -3.0]])
    codes = torch.tensor([[2, 4, -5]], dtype=torch.int8)
    error = error_in_half_steps(weights, codes, torch.tensor([0.5]))
    assert error.dtype == torch.float64
    assert error.tolist() == [[0.0, 1.0, 2.0]]


def test_output_error_bound():
    bound = output_error_bound(torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.tensor([2.0, 4.0, 8.0]))
    assert bound.dtype == torch.float64
    assert bound.tolist() == [[f * (1 + 2**-15) for f in row] for row in [[3, 6, 12], [4, 8, 16]]]


@pytest.mark.parametrize("weight_roundoff", [0.0, 2**-24])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_output_tolerance_is_the_formula(dtype, bias, weight_roundoff):
    problem = random_problem(2, 7, 3, dtype, bias=bias)
    x, q, s, b = (None if t is None else t.double().tolist() for t in problem)
    tolerance = output_tolerance(*problem, weight_roundoff=weight_roundoff)
    assert tolerance.shape == (2, 3)
    u32 = 2.0**-53 if dtype == torch.float64 else 2.0**-24
    g = 9 * u32 / (1 - 9 * u32) + weight_roundoff
    u = UNIT_ROUNDOFF[dtype]
    for m in range(2):
        for n in range(3):
            terms = [a * c * s[n] for a, c in zip(x[m], q[n], strict=True)] + ([b[n]] if bias else [])
            size, exact = sum(map(abs, terms)), math.fsum(terms)
            expected = g * size + u * (1 + g) * abs(exact) + u * g * size + SMALLEST[dtype] / 2
            assert tolerance[m, n].item() == pytest.approx(expected, rel=1e-12)


def test_the_tolerance_of_a_zero_output_is_half_the_smallest_subnormal():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        tolerance = output_tolerance(
            torch.zeros(1, 4, dtype=dtype), torch.ones(2, 4, dtype=torch.int8), torch.ones(2)
        )
        assert tolerance.tolist() == [[SMALLEST[dtype] / 2] * 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("k", [1024, 4096])
def test_outputs_against_the_float_weights(k, dtype):
    weights = torch.randn(200, k, generator=seeded(k)) * 0.02
    codes, scales, _ = quantize_weight(weights)
    x = torch.randn(64, k, generator=seeded(k + 1)).to(dtype)
    reference = x.double() @ weights.double().T
    assert reference.norm() > 0

    from_codes = (x.double() @ codes.double().T) * scales.double()
    bound = output_error_bound(x, scales)
    assert ((from_codes - reference).abs() <= bound).all()
    error = linear(x, codes, scales, None).double() - reference
    assert (error.abs() <= bound + output_tolerance(x, codes, scales)).all()

    sigma = scales.double() / math.sqrt(12) * x.double().norm(dim=1, keepdim=True)
    standardised = error / sigma
    assert standardised.numel() == 64 * 200
    assert 0.9 < standardised.std() < 1.1
    assert standardised.abs().max() < 7
    assert standardised.mean().abs() < 0.1  # a systematic rounding direction would show here


def test_the_hard_bound_is_reached_by_an_adversarial_input():
    weights = random_weights(8, 257, torch.float32)
    codes, scales, _ = quantize_weight(weights)
    difference = weights.double() - codes.double() * scales.double().unsqueeze(1)
    x = difference.sign()  # row n of x adds up all the errors of row n of the weight
    worst = (x * difference).sum(1) / output_error_bound(x, scales).diagonal()
    assert (worst <= 1).all()
    assert (worst > 0.4).all()  # half a step everywhere would be 1; uniform errors average to 1/2
