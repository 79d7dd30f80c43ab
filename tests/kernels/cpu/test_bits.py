"""The native kernels give the same bits for any number of threads, any slice and any batch size they can."""

import pytest
import torch

from support.numerics import name_of, random_problem
from w8a16.kernels import cpu, linear, linear_input_grad

pytestmark = pytest.mark.every_variant
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
THREADS = (1, 2, 3, 5, 8)


@pytest.fixture
def each_thread_count():
    before = torch.get_num_threads()

    def run(function):
        results = []
        for threads in THREADS:
            torch.set_num_threads(threads)
            results.append(function())
        return results

    yield run
    torch.set_num_threads(before)


def assert_all_equal(results):
    first, *others = results
    assert first.norm() > 0
    assert len(others) == len(THREADS) - 1
    for other in others:
        assert torch.equal(first, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    "m, k, n", [(1, 4096, 333), (5, 1300, 127), (32, 515, 257), (40, 700, 1030), (257, 300, 65)]
)
def test_threads(m, k, n, dtype, each_thread_count):
    problem = random_problem(m, k, n, dtype)
    assert_all_equal(each_thread_count(lambda: linear(*problem)))
    grad = random_problem(m, n, 1, dtype).input
    assert_all_equal(each_thread_count(lambda: linear_input_grad(grad, problem.int8_weights, problem.scales)))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("k", [7, 96, 1024, 1281, 4097])
def test_few_rows_are_each_row_alone(k, dtype):
    # Both regimes are summed in one order each: every batch below the switch, and every one above it.
    x, q, scales, bias = random_problem(48, k, 131, dtype)
    switch = cpu.wide_from()
    alone = torch.cat([linear(row, q, scales, bias) for row in x.split(1)])
    assert alone.norm() > 0
    assert switch > 1
    for m in {m for m in (1, 2, 3, 4, 5, 6, 7, 8, 13, switch - 1) if m < switch}:
        assert torch.equal(linear(x[:m], q, scales, bias), alone[:m]), m


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_many_rows_do_not_depend_on_how_many(dtype):
    x, q, scales, bias = random_problem(520, 700, 231, dtype)
    whole = linear(x, q, scales, bias)
    assert whole.norm() > 0
    for m in (cpu.wide_from(), 64, 191, 192, 193, 257):
        assert torch.equal(linear(x[:m], q, scales, bias), whole[:m]), m


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_many_rows_of_few_outputs_are_each_row_alone(dtype):
    x, q, scales, bias = random_problem(257, 300, 7, dtype)
    alone = torch.cat([linear(row, q, scales, bias) for row in x.split(1)])
    assert alone.norm() > 0
    assert torch.equal(linear(x, q, scales, bias), alone)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_channels_do_not_depend_on_their_neighbours(dtype):
    few, many = [(0, 1), (3, 20), (95, 97), (100, 460), (459, 460)], [(0, 192), (3, 320), (260, 460)]
    # With many rows, a layer of few outputs takes the algorithm for few rows.
    for m in (1, 6, 40):
        parts = few if m < cpu.wide_from() else many
        x, q, scales, bias = random_problem(m, 300, 460, dtype)
        whole = linear(x, q, scales, bias)
        for start, stop in parts:
            part = slice(start, stop)
            assert torch.equal(linear(x, q[part], scales[part], bias[part]), whole[:, part])
