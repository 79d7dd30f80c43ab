"""Small integers and powers of two: every backend must give the int64 result, bit for bit."""

import pytest
import torch

from support.numerics import DTYPES, N_VALUES, covering_shapes, integer_problem, name_of
from w8a16.kernels import linear, linear_input_grad, reference

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_dense_sums_of_every_shape(dtype):
    rounded = cases = 0
    for m, k, n in covering_shapes():
        problem, expected = integer_problem(m, k, n, dtype)
        assert torch.isfinite(expected).all()
        actual = linear(*problem)
        assert actual.dtype == dtype
        assert torch.equal(actual, expected), (m, k, n)
        if min(m, k, n) > 1 and expected.numel() > 10:
            assert (expected == 0).double().mean() < 0.3
            cases += 1
            rounded += not torch.equal(expected.double(), linear(problem.input.double(), *problem[1:]))
    assert cases > 30
    # 16-bit results need the one rounding at the end, so a second one would show; float32 needs none.
    assert (rounded > 20) == (dtype in (torch.float16, torch.bfloat16))


@pytest.mark.parametrize("dtype, terms", [(torch.float16, 16), (torch.bfloat16, 2)], ids=str)
def test_sums_that_fit_a_half_precision_significand(dtype, terms):
    # |acc| <= 127 * terms: at most 2048 in float16 and 256 in bfloat16, so nothing is rounded at all.
    for m, k, n in covering_shapes():
        problem, expected = integer_problem(m, k, n, dtype, terms=terms)
        steps = problem.input.long() @ problem.int8_weights.long().T
        assert torch.equal(expected.double(), steps.double() * problem.scales.double())
        assert torch.equal(linear(*problem), expected), (m, k, n)


@pytest.mark.slow
@pytest.mark.parametrize("n", N_VALUES)
def test_dense_sums_of_all_sizes(n):
    for m, k, _ in covering_shapes(limit=20_000_000):
        for dtype in DTYPES:
            problem, expected = integer_problem(m, k, n, dtype)
            assert torch.equal(linear(*problem), expected), (m, k, n, dtype)


@pytest.mark.parametrize("k", [1, 2, 5, 16, 63, 64, 65])
def test_sizes_around_the_block_edge(k, monkeypatch):
    monkeypatch.setattr(reference, "_BLOCK_ELEMENTS", 64)
    edge = max(1, 64 // k)
    for n in {edge - 1, edge, edge + 1, 2 * edge - 1, 2 * edge, 5 * edge + 1}:
        problem, expected = integer_problem(7, k, n, torch.float32, seed=n)
        assert torch.equal(linear(*problem), expected)
        grad, q = expected.long().float(), problem.int8_weights
        adjoint = grad.long() @ q.long()
        assert torch.equal(linear_input_grad(grad, q, torch.ones(n)), adjoint.float())


@pytest.mark.parametrize("m, k, n", [(3, 4096, 1000), (2, 11008, 129), (1, 1 << 20, 3)])
def test_weights_larger_than_the_default_block(m, k, n):
    assert k * n > reference._BLOCK_ELEMENTS
    # Sparse for the longest sum: a dense one would pass 2**24.
    problem, expected = integer_problem(m, k, n, torch.float32, terms=1000 if k > 11008 else None)
    assert torch.equal(linear(*problem), expected)
    assert expected.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_code_minus_128_of_a_loaded_file(dtype):
    q = torch.full((3, 5), -128, dtype=torch.int8)
    y = linear(torch.ones(2, 5, dtype=dtype), q, torch.full((3,), 0.5), None)
    assert y.tolist() == [[-320.0] * 3] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_input_gradient(dtype):
    for m, n, k in [(1, 1, 1), (3, 65, 33), (17, 129, 63), (2, 1000, 7)]:
        # The adjoint sums over N: transposed codes of an [K, N] problem, with all scales 1.
        problem, _ = integer_problem(m, n, k, torch.float64)
        grad, q = problem.input, problem.int8_weights.T
        expected = (grad.long() @ q.long()).to(dtype)
        assert torch.equal(linear_input_grad(grad.to(dtype), q, torch.ones(n)), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_input_gradient_scales_each_channel(dtype):
    q = torch.tensor([[1, 2], [3, -4], [5, 6]], dtype=torch.int8)
    grad = torch.tensor([[1.0, 2.0, -1.0]], dtype=dtype)
    scales = torch.tensor([0.5, 2.0, 4.0])
    assert linear_input_grad(grad, q, scales).tolist() == [[0.5 + 12 - 20, 1 - 16 - 24]]
