"""The sums stay in float32 whatever precision torch is told to use for float32 matmuls.

`torch.set_float32_matmul_precision("medium")` and its newer per-backend forms let processors and GPUs
round the factors of a float32 matmul to 8 or 11 significant bits. That is the user's wish for float
layers; the contract of an int8 layer is a float32 sum.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.numerics import (
    DTYPES,
    LAYOUTS,
    assert_within_tolerance,
    int64_output,
    integer_problem,
    name_of,
    random_problem,
)
from w8a16.kernels import linear, linear_input_grad


@contextlib.contextmanager
def matmul_precision(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (3, 65, 33), (64, 1000, 1000)])
def test_outputs_are_within_tolerance(m, k, n, dtype, precision):
    problem = random_problem(m, k, n, dtype)
    with matmul_precision(precision):
        actual = linear(*problem)
    assert_within_tolerance(actual, problem)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_input_gradients_are_as_exact_as_ever(precision):
    x, q, scales, _ = random_problem(64, 1000, 1000, torch.float32)
    exact = (x.double() * scales.double()) @ q.double()
    with matmul_precision(precision):
        actual = linear_input_grad(x, q, scales)
    size = (x.double().abs() * scales.double()) @ q.double().abs()
    # 2**-17 of the size would be a bfloat16 factor's doing; float32 sums of this length stay far below.
    assert ((actual.double() - exact).abs() <= 2**-20 * size).all()
    assert exact.norm() > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("offset")])
def test_any_layout_at_the_lowest_precision(layout, dtype):
    problem, _ = integer_problem(17, 65, 33, dtype)
    # Integers above 256 need more than the 8 bits of one bfloat16 factor.
    laid_out = LAYOUTS[layout]((problem.input.double() * 125).to(dtype))
    problem = problem._replace(input=laid_out, bias=None)
    with matmul_precision("medium"):
        actual = linear(*problem)
    assert torch.equal(actual, int64_output(problem))


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_come_through(value, precision):
    x = torch.ones(2, 3)
    x[0, 1] = value
    with matmul_precision(precision):
        y = linear(x, torch.ones(4, 3, dtype=torch.int8), torch.ones(4), None)
    torch.testing.assert_close(y[0], torch.full((4,), value), equal_nan=True)
    assert y[1].tolist() == [3.0] * 4


def test_a_nan_with_a_small_payload_stays_nan():
    x = torch.tensor([[0x7F800001, 0x3F800000]], dtype=torch.int32).view(torch.float32)
    assert torch.isnan(x[0, 0])
    with matmul_precision("medium"):
        assert torch.isnan(linear(x, torch.ones(2, 2, dtype=torch.int8), torch.ones(2), None)).all()


# In a process of its own: mixed with the old setting, the new ones cannot be taken back.
PROBE = """
import sys
import torch
from support.numerics import assert_within_tolerance, random_problem
from w8a16.kernels import linear

place = torch.backends
for name in sys.argv[1].split(".")[1:]:
    place = getattr(place, name)
place.fp32_precision = sys.argv[2]
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
    problem = random_problem(64, 1000, 1000, dtype)
    assert_within_tolerance(linear(*problem), problem)
assert place.fp32_precision == sys.argv[2]
"""


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has only the old setting")
@pytest.mark.parametrize(
    "place, precision",
    [("backends.cuda.matmul", "tf32"), ("backends.mkldnn.matmul", "bf16"), ("backends", "tf32")],
)
def test_the_newer_settings(place, precision):
    paths = [str(Path(__file__).parents[1]), *sys.path]
    result = subprocess.run(
        [sys.executable, "-c", PROBE, place, precision],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert result.returncode == 0, result.stderr


def test_the_settings_are_left_as_they_were():
    problem = random_problem(3, 65, 33, torch.float32)
    with matmul_precision("medium"):
        linear(*problem)
        assert torch.get_float32_matmul_precision() == "medium"
