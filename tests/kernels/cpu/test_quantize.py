"""The native quantizer gives the codes, scales and errors of `core.quantize_weight`, bit for bit."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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
from w8a16.kernels import (
    block_workspace,
    quantization,
    quantize_and_measure,
    quantize_block,
    quantize_weight,
)

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


def quantized_in_blocks(weights, rows):
    """By `quantize_block`, into memory that holds other values before."""
    n, k = weights.shape
    codes = torch.full((n, k), 99, dtype=torch.int8)
    scales, errors = torch.full((n,), torch.nan), torch.full((n, 3), torch.nan)
    without_scale = underflow = 0
    for start in range(0, n, rows):
        block = slice(start, start + rows)
        counts = quantize_block(weights[block], codes[block], scales[block], errors[block])
        without_scale, underflow = without_scale + counts[0], underflow + counts[1]
    return codes, scales, errors, without_scale, underflow


@pytest.mark.parametrize("native", [True, False], ids=["native", "reference"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=name_of)
@pytest.mark.parametrize("rows", [1, 4, 17, 100])
def test_blocks_give_what_the_whole_gives(rows, dtype, native, monkeypatch):
    if not native:
        monkeypatch.setenv("W8A16_BACKEND", "reference")
    weights = random_weights(33, 65, dtype)
    weights[[3, 20]] = 0
    weights[[4, 21]] = 1e-37 if dtype != torch.float16 else 0
    codes, scales, errors, without_scale, underflow = quantized_in_blocks(weights, rows)
    whole, whole_errors = quantize_and_measure(weights)
    assert torch.equal(codes, whole.int8_weights)
    assert torch.equal(scales, whole.scales)
    assert torch.equal(errors, torch.stack(list(whole_errors), 1))
    assert (without_scale, underflow) == (0, whole.underflow_rows)
    assert underflow == (0 if dtype == torch.float16 else 2)
    assert errors[[3, 4, 20, 21]].count_nonzero() == 0


@pytest.mark.parametrize("native", [True, False], ids=["native", "reference"])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=name_of)
def test_a_block_counts_rows_without_a_scale(dtype, native, monkeypatch):
    if not native:
        monkeypatch.setenv("W8A16_BACKEND", "reference")
    weights = random_weights(33, 65, dtype)
    weights[3, 0], weights[3, 5], weights[9, 64], weights[32, 7] = torch.nan, torch.inf, -torch.inf, torch.nan
    expected = 3
    if dtype == torch.float64:
        weights[12, 12], expected = 1e300, 4
    assert quantized_in_blocks(weights, 33)[3] == expected
    assert quantized_in_blocks(weights, 5)[3] == expected


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_blocks_without_values(shape):
    codes, scales, errors, without_scale, underflow = quantized_in_blocks(torch.empty(shape), 2)
    assert codes.shape == shape
    assert scales.tolist() == [1] * shape[0]
    assert errors.count_nonzero() == 0
    assert (without_scale, underflow) == (0, 0)


def test_a_block_stays_on_its_thread():
    """Callers have threads of their own: seven of them get what one gets."""
    weights = random_weights(700, 300, torch.bfloat16)
    expected = quantized_in_blocks(weights, 10)
    with ThreadPoolExecutor(7) as pool:
        for found in pool.map(lambda _: quantized_in_blocks(weights, 10), range(14)):
            assert all(torch.equal(a, b) for a, b in zip(found[:3], expected[:3], strict=True))


def test_the_workspace_of_a_block(monkeypatch):
    assert block_workspace(torch.bfloat16) == 0
    assert block_workspace(torch.float64) > 32
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    assert block_workspace(torch.bfloat16) > 32
