"""The same bits from many Python threads, and from any number of threads inside torch."""

import threading

import pytest
import torch

from support.numerics import DTYPES, integer_problem, name_of, random_problem
from w8a16.core import output_tolerance
from w8a16.kernels import linear, linear_input_grad

pytestmark = pytest.mark.every_backend

THREADS = 8


def run_at_once(function):
    """Results of `function` from eight threads that start together, three times each."""
    results, errors = [], []
    start = threading.Barrier(THREADS)

    def work():
        try:
            start.wait()
            results.extend(function() for _ in range(3))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(results) == 3 * THREADS
    return results


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("m, k, n", [(1, 4096, 257), (33, 2048, 127), (3, 65, 33)])
def test_eight_python_threads(m, k, n, dtype):
    problem = random_problem(m, k, n, dtype)
    expected = linear(*problem)
    assert expected.norm() > 0
    assert all(torch.equal(y, expected) for y in run_at_once(lambda: linear(*problem)))


def test_eight_python_threads_through_the_backward_pass():
    x, q, scales, bias = random_problem(17, 257, 129, torch.float32)

    def gradient():
        leaf = x.clone().requires_grad_()
        linear(leaf, q, scales, bias).backward(torch.ones(17, 129))
        return leaf.grad

    expected = linear_input_grad(torch.ones(17, 129), q, scales)
    assert all(torch.equal(g, expected) for g in run_at_once(gradient))


def test_python_threads_under_different_modes():
    # Autocast and grad mode belong to a thread: one thread's must not reach another's.
    problem = random_problem(3, 65, 33, torch.float32)
    plain = linear(*problem)
    with torch.autocast("cpu", torch.bfloat16):
        cast = linear(*problem)
        assert cast.dtype == torch.bfloat16
        assert all(torch.equal(y, plain) for y in run_at_once(lambda: linear(*problem)))


@pytest.fixture
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_exact_sums_with_any_number_of_torch_threads(dtype):
    for m, k, n in [(1, 4096, 257), (33, 4097, 63), (64, 257, 129)]:
        problem, expected = integer_problem(m, k, n, dtype)
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            assert torch.equal(linear(*problem), expected)


@pytest.mark.usefixtures("restore_threads")
def test_rounded_sums_stay_within_tolerance_with_any_number_of_torch_threads():
    """Not the same bits: the BLAS may split long sums by threads (docs/decisions/0003)."""
    problem = random_problem(33, 11008, 127, torch.float32)
    x, q, s, b = problem
    exact = (x.double() @ q.double().T) * s.double() + (0 if b is None else b.double())
    tolerance = output_tolerance(x, q, s, b)
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        assert bool(((linear(*problem).double() - exact).abs() <= tolerance).all()), threads
