"""Any memory layout of any argument gives the int64 result, bit for bit."""

import pytest
import torch

from support.numerics import (
    DTYPES,
    LAYOUTS,
    at_odd_address,
    int64_output,
    integer_problem,
    name_of,
    offset_by,
    strided_rows,
)
from w8a16.kernels import linear, linear_input_grad

pytestmark = pytest.mark.every_backend


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input(layout, dtype):
    for m, k, n in [(1, 1, 1), (3, 9, 17), (17, 65, 33), (2, 129, 7)]:
        problem, _ = integer_problem(m, k, n, dtype)
        problem = problem._replace(input=LAYOUTS[layout](problem.input))
        assert torch.equal(linear(*problem), int64_output(problem))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_output_gradient(layout, dtype):
    problem, _ = integer_problem(5, 33, 17, dtype)
    grad = LAYOUTS[layout](problem.input)
    q = problem.int8_weights.T
    expected = (grad.long() @ q.long()).to(dtype)
    assert torch.equal(linear_input_grad(grad, q, torch.ones(33)), expected)


WEIGHT_LAYOUTS = {
    "strided columns": lambda q: torch.stack([q, -q], -1).flatten(-2)[:, ::2],
    "strided rows": lambda q: torch.cat([q, -q], 1).view(-1, q.shape[1])[::2],
    "transposed": LAYOUTS["transposed"],
    "expanded rows": LAYOUTS["expanded rows"],
    "expanded columns": LAYOUTS["expanded columns"],
    "part of a wider matrix": LAYOUTS["part of a wider matrix"],
    "odd address": at_odd_address,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", WEIGHT_LAYOUTS)
def test_the_codes(layout, dtype):
    for m, k, n in [(1, 1, 1), (3, 9, 17), (17, 65, 33), (2, 129, 7)]:
        problem, _ = integer_problem(m, k, n, dtype)
        problem = problem._replace(int8_weights=WEIGHT_LAYOUTS[layout](problem.int8_weights))
        assert torch.equal(linear(*problem), int64_output(problem))


VECTOR_LAYOUTS = {
    "strided": strided_rows,
    "expanded": lambda v: v[:1].expand(len(v)),
    "odd address": at_odd_address,
    **{f"offset {elements}": offset_by(elements) for elements in (1, 2, 3, 5, 7)},
}


@pytest.mark.parametrize("layout", VECTOR_LAYOUTS)
def test_the_scales_and_the_bias(layout):
    problem, _ = integer_problem(3, 65, 33, torch.float32)
    move = VECTOR_LAYOUTS[layout]
    problem = problem._replace(scales=move(problem.scales), bias=move(problem.bias))
    # A moved bias is still a multiple of each scale: both are powers of two apart.
    expected = (problem.input.double() @ problem.int8_weights.double().T) * problem.scales.double()
    assert torch.equal(linear(*problem), (expected + problem.bias.double()).float())


def test_everything_at_odd_addresses_at_once():
    for dtype in DTYPES:
        problem, expected = integer_problem(7, 65, 33, dtype)
        assert torch.equal(linear(*(at_odd_address(t) for t in problem)), expected)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_permuted_batch_dimensions(order):
    (x, q, scales, bias), expected = integer_problem(6, 33, 17, torch.float32)
    inverse = [order.index(d) for d in range(3)]
    permuted = x.view(2, 3, 33).permute(order).contiguous().permute(inverse)
    y = linear(permuted, q, scales, bias)
    assert torch.equal(y, expected.view(2, 3, 17))
