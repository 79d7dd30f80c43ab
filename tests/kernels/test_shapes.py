"""Input shapes: any number of batch dimensions, and dimensions of size zero."""

import pytest
import torch

from support.numerics import DTYPES, integer_problem, name_of
from w8a16.kernels import linear, linear_input_grad, w8_a16_forward

pytestmark = pytest.mark.every_backend

K, N = 33, 17


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("batch", [(), (1,), (12,), (3, 4), (1, 12), (2, 3, 2), (1, 1, 12, 1)])
def test_batch_dimensions_are_rows(batch, dtype):
    rows = torch.Size(batch).numel()
    problem, expected = integer_problem(rows, K, N, dtype)
    x = problem.input.reshape(*batch, K)
    y = linear(x, *problem[1:])
    assert torch.equal(y, expected.reshape(*batch, N))
    assert y.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("batch", [(0,), (0, 3), (3, 0), (2, 0, 5)])
def test_empty_batches(batch, dtype):
    problem, _ = integer_problem(1, K, N, dtype)
    y = linear(problem.input.new_empty(*batch, K), *problem[1:])
    assert (y.shape, y.dtype) == ((*batch, N), dtype)
    grad = linear_input_grad(y, problem.int8_weights, problem.scales)
    assert (grad.shape, grad.dtype) == ((*batch, K), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_without_input_features_the_bias_remains(batch, dtype):
    bias = torch.tensor([1.0, -2.0, 0.5])
    q = torch.empty(3, 0, dtype=torch.int8)
    y = linear(torch.empty(*batch, 0, dtype=dtype), q, torch.ones(3), bias)
    assert torch.equal(y, bias.to(dtype).expand(*batch, 3))
    y = linear(torch.empty(*batch, 0, dtype=dtype), q, torch.ones(3), None)
    assert torch.equal(y, torch.zeros(*batch, 3, dtype=dtype))
    assert linear_input_grad(y, q, torch.ones(3)).shape == (*batch, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("bias", [None, torch.empty(0)], ids=["no bias", "bias"])
def test_without_output_channels(bias, dtype):
    q = torch.empty(0, 5, dtype=torch.int8)
    y = linear(torch.ones(2, 3, 5, dtype=dtype), q, torch.empty(0), bias)
    assert (y.shape, y.dtype) == ((2, 3, 0), dtype)
    grad = linear_input_grad(y, q, torch.empty(0))
    assert torch.equal(grad, torch.zeros(2, 3, 5, dtype=dtype))


def test_the_public_function_takes_the_weight_first():
    (x, q, scales, bias), expected = integer_problem(3, K, N, torch.float32)
    assert torch.equal(w8_a16_forward(q, x, scales, bias), expected)
    assert torch.equal(w8_a16_forward(q, x, scales), linear(x, q, scales, None))


def test_row_vectors_are_accepted_as_scales_and_bias():
    (x, q, scales, bias), expected = integer_problem(3, K, N, torch.float32)
    assert torch.equal(w8_a16_forward(q, x, scales[None], bias[None]), expected)
    assert torch.equal(w8_a16_forward(q, x, scales[None], bias), expected)
    assert torch.equal(w8_a16_forward(q, x, scales, bias[None]), expected)
    assert torch.equal(w8_a16_forward(q[:1], x, scales[None, :1], bias[None, :1]), expected[:, :1])


def test_the_arguments_are_left_as_they_were():
    problem, _ = integer_problem(3, K, N, torch.float32)
    before = [t.clone() for t in problem]
    linear(*problem)
    linear_input_grad(torch.ones(3, N), problem.int8_weights, problem.scales)
    assert all(torch.equal(a, b) for a, b in zip(problem, before, strict=True))
