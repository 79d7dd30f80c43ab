"""Random problems of every shape stay within `output_tolerance` of the exact result."""

import pytest
import torch

from support.numerics import (
    DTYPES,
    K_VALUES,
    M_VALUES,
    N_VALUES,
    assert_meaningful,
    assert_within_tolerance,
    covering_shapes,
    exact_output,
    fraction_output,
    name_of,
    random_problem,
)
from w8a16.core import output_tolerance
from w8a16.kernels import linear

pytestmark = pytest.mark.every_backend


def test_the_shape_list_covers_every_size():
    shapes = covering_shapes()
    for place, values in enumerate((M_VALUES, K_VALUES, N_VALUES)):
        assert {shape[place] for shape in shapes} == set(values)
        alone = {shape[place] for shape in shapes if all(s > 0 for s in shape)}
        assert alone == set(values) - {0}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_size_of_each_dimension(dtype, bias):
    for seed, (m, k, n) in enumerate(covering_shapes(limit=50_000_000)):
        problem = random_problem(m, k, n, dtype, seed=seed, bias=bias)
        assert_within_tolerance(linear(*problem), problem)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("k", K_VALUES)
def test_all_combinations_of_sizes(k, dtype):
    for n in N_VALUES:
        # One exact result for the largest M: the smaller ones are its first rows.
        problem = random_problem(max(M_VALUES), k, n, dtype, seed=n, bias=n % 2 == 1)
        exact, tolerance = exact_output(problem), output_tolerance(*problem)
        if k * n > 0:
            assert_meaningful(exact, tolerance)
        for m in M_VALUES:
            y = linear(problem.input[:m], *problem[1:])
            assert (y.shape, y.dtype) == ((m, n), dtype)
            assert ((y.double() - exact[:m]).abs() <= tolerance[:m]).all(), (m, k, n)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_against_rational_arithmetic(dtype, bias):
    # Independent of the float64 matmul that the other references rest on.
    problem = random_problem(5, 129, 17, dtype, bias=bias)
    exact = fraction_output(problem)
    assert_meaningful(exact, output_tolerance(*problem))
    error = (linear(*problem).double() - exact).abs()
    # The tolerance is evaluated in float64 as well: 2**-40 covers that, and is nothing beside it.
    assert (error <= output_tolerance(*problem) * (1 + 2**-40)).all()


@pytest.mark.parametrize("scales", DTYPES, ids=lambda d: f"scales {name_of(d)}")
@pytest.mark.parametrize("bias", DTYPES, ids=lambda d: f"bias {name_of(d)}")
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_any_mix_of_dtypes(dtype, bias, scales):
    problem = random_problem(3, 65, 33, dtype)
    problem = problem._replace(scales=problem.scales.to(scales), bias=problem.bias.to(bias))
    assert_within_tolerance(linear(*problem), problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_cancelling_sums(dtype):
    # y is far smaller than its terms: here the float32 accumulator is all there is.
    problem = random_problem(8, 256, 16, dtype, bias=False)
    half = problem.input[:, :128]
    q = torch.cat([problem.int8_weights[:, :128], -problem.int8_weights[:, :128]], 1)
    q[:, -1] += 1  # leaves one step of the last input
    problem = problem._replace(input=torch.cat([half, half], 1), int8_weights=q)
    exact = (problem.input.double() @ q.double().T) * problem.scales.double()
    error = (linear(*problem).double() - exact).abs()
    assert (error <= output_tolerance(*problem)).all()
    assert_meaningful(exact)
    assert (exact.abs() < 0.05).all()


def test_a_bfloat16_scale_would_exceed_the_tolerance():
    # Shows that the tolerance is tight enough to see scales rounded to half precision.
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        problem = random_problem(33, 129, 65, dtype)
        wrong = problem._replace(scales=problem.scales.bfloat16())
        with pytest.raises(AssertionError, match="times the tolerance"):
            assert_within_tolerance(linear(*wrong), problem)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name_of)
def test_nan_and_inf_stay_in_their_row(dtype):
    problem = random_problem(5, 65, 17, dtype)
    clean = linear(*problem)
    x = problem.input.clone()
    x[1, 3], x[3, 64] = float("nan"), float("inf")
    y = linear(x, *problem[1:])
    assert torch.isnan(y[1]).all()
    assert torch.isinf(y[3]).all()
    assert torch.equal(y[[0, 2, 4]], clean[[0, 2, 4]])
    assert torch.equal(y[3].sign(), problem.int8_weights[:, 64].sign().to(dtype))
