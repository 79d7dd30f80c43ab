"""The native quantizer gives the codes, scales and errors of `core.quantize_weight`, bit for bit."""

import subprocess
import sys

import pytest
import torch

from support.numerics import (
    K_VALUES,
    N_VALUES,
    at_odd_address,
    name_of,
    offset_by,
    positive_finite,
    random_weights,
    strided_rows,
)
from w8a16 import core
from w8a16.core import HALF_STEP_SLACK
from w8a16.errors import W8A16Error
from w8a16.kernels import quantization, quantize_and_measure, quantize_weight

pytestmark = pytest.mark.every_variant
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def assert_same_as_core(weights):
    assert quantization._is_native(weights)
    ours, law = quantize_weight(weights), core.quantize_weight(weights)
    assert torch.equal(ours.int8_weights, law.int8_weights)
    assert torch.equal(ours.scales, law.scales)
    assert ours.underflow_rows == law.underflow_rows
    return ours


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_size(dtype):
    for n, k in [(n, 65) for n in N_VALUES] + [(33, k) for k in K_VALUES]:
        assert_same_as_core(random_weights(n, k, dtype, seed=n + k))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_every_value_as_amax_and_as_weight(dtype):
    values = positive_finite(dtype)
    assert len(values) > 31_000
    assert_same_as_core(torch.stack([values, -values * 0.49, values * 0.3], 1))
    # Every value beside the largest of a row: all quotients that this dtype can make with that amax.
    rows = values.flip(0)[:: len(values) // 40]
    assert_same_as_core(torch.cat([rows[:, None], values.expand(len(rows), -1).minimum(rows[:, None])], 1))


def test_quotients_on_and_beside_every_half():
    # The quotient of w = scale * (code + 1/2) and its neighbours decides between two codes.
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(64, 1, generator=generator) * 2.0 ** torch.randint(
        -60, 60, (64, 1), generator=generator
    )
    halves = torch.arange(-126, 127) + 0.5
    exact = (scales * 127).expand(-1, 1)
    middle = scales * halves
    neighbours = [middle]
    for _ in range(3):
        neighbours.append(torch.nextafter(neighbours[-1], torch.tensor(torch.inf)))
    for _ in range(3):
        neighbours.append(torch.nextafter(neighbours[-1], torch.tensor(-torch.inf)))
    weights = torch.cat([exact, *neighbours], 1)
    codes = assert_same_as_core(weights).int8_weights
    assert len(codes.unique()) == 254 or len(codes.unique()) == 255


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    "layout",
    {
        "odd address": at_odd_address,
        "strided rows": strided_rows,
        "transposed": lambda w: w.T.contiguous().T,
        "expanded": lambda w: w[:1].expand(len(w), -1),
        "offset": offset_by(3),
        "negated": torch._neg_view,
        "parameter": torch.nn.Parameter,
    }.items(),
    ids=lambda item: item[0],
)
def test_layouts(layout, dtype):
    assert_same_as_core(layout[1](random_weights(17, 65, dtype)))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_threads_do_not_matter(dtype):
    weights = random_weights(515, 300, dtype)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(assert_same_as_core(weights))
    finally:
        torch.set_num_threads(before)
    assert len(results) == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 0), (3, 64), (16, 7)])
def test_a_value_without_a_code_is_refused_in_the_words_of_core(place, value, dtype):
    weights = random_weights(17, 65, dtype)
    weights[place] = value
    with pytest.raises(W8A16Error) as ours:
        quantize_weight(weights)
    with pytest.raises(W8A16Error) as law:
        core.quantize_weight(weights)
    assert str(ours.value) == str(law.value)
    assert str(list(place)) in str(ours.value)


def test_tiny_and_zero_rows():
    smallest = core.SMALLEST_SCALE * 127
    below = torch.nextafter(torch.tensor(smallest), torch.tensor(0.0)).item()
    weights = torch.tensor([[0.0, 0.0], [smallest, -1e-40], [below, 1e-38], [-0.0, 0.0], [1.0, 2.0]])
    assert assert_same_as_core(weights).underflow_rows == 1


FLUSHING = """
import sys, torch
from w8a16.kernels import cpu, quantize_weight
from w8a16.kernels.cpu.variants import use_variant
dtype = getattr(torch, sys.argv[2])
scales = [2.0**-126 * f for f in (0.01, 0.9, 1, 1.3, 1.99, 2, 2.01, 3, 4, 1000)]
elements = [2.0**-126 * f for f in (1 - 2**-7, 0.9, 0.51, 0.5, 0.1, 2**-7, 1.1, 1.5)]
rows = [[127 * s, -100 * s, *elements, *(-e for e in elements)] for s in scales]
weights = torch.tensor(rows, dtype=torch.float64).to(dtype)
torch.set_num_threads(1)  # the mode belongs to a thread
with use_variant(sys.argv[1]):
    normal = quantize_weight(weights)
    assert torch.set_flush_denormal(True)
    flushed = quantize_weight(weights)
torch.set_flush_denormal(False)
assert torch.equal(normal.int8_weights, flushed.int8_weights) and torch.equal(normal.scales, flushed.scales)
assert normal.underflow_rows == flushed.underflow_rows > 0
print("same")
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flush_to_zero_does_not_matter(dtype, request):
    variant = request.node.callspec.params["backend"]
    result = subprocess.run(
        [sys.executable, "-c", FLUSHING, variant, dtype], capture_output=True, text=True, timeout=120
    )
    assert result.stdout == "same\n", result.stderr


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("k", [1, 7, 65, 4097])
def test_the_errors_of_each_row(k, dtype):
    weights = random_weights(33, k, dtype)
    weights[5] = 0
    quantized, errors = quantize_and_measure(weights)
    assert torch.equal(quantized.int8_weights, core.quantize_weight(weights).int8_weights)
    exact = quantization._measure(weights, quantized)
    assert exact.noise.sum() > 0 or k == 1
    torch.testing.assert_close(errors.signal, exact.signal, rtol=1e-5, atol=0)
    # The error of one weight is good to a few units of 2^-24 of the weight itself.
    torch.testing.assert_close(errors.noise, exact.noise, rtol=1e-3, atol=1e-9 * k)
    torch.testing.assert_close(errors.largest, exact.largest, rtol=0, atol=2.0**-15)
    assert errors.largest.max() <= 1 + HALF_STEP_SLACK
    assert (errors.signal[5], errors.noise[5], errors.largest[5]) == (0, 0, 0)


def test_what_is_not_native_goes_to_core(monkeypatch):
    weights = torch.randn(4, 8)
    for other in (weights.double(), weights.to("meta"), weights.to_sparse(), weights[0], weights.long()):
        assert not quantization._is_native(other)
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    assert not quantization._is_native(weights)
    quantized, errors = quantize_and_measure(weights)
    assert errors.noise.shape == (4,)
    assert torch.equal(quantized.scales, core.quantize_weight(weights).scales)
