"""Rows without a usable scale are zero rows, are counted, and do not depend on flush-to-zero."""

import subprocess
import sys

import pytest
import torch

from w8a16.core import SMALLEST_SCALE, quantize_weight


def test_an_all_zero_row_has_scale_one_and_is_no_underflow():
    weights = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.0, -0.0]])
    codes, scales, underflow_rows = quantize_weight(weights)
    assert codes.tolist() == [[0, 0], [64, -127], [0, 0]]
    assert scales[[0, 2]].tolist() == [1.0, 1.0]
    assert underflow_rows == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_threshold_is_exact(dtype):
    assert SMALLEST_SCALE == 2.0**-125
    at = 127 * SMALLEST_SCALE
    below = torch.nextafter(torch.tensor(at, dtype=torch.float32), torch.tensor(0.0)).item()
    weights = torch.tensor([[at, 0.0], [below, 0.0], [-at, 0.0], [-below, 0.0]], dtype=dtype)
    codes, scales, underflow_rows = quantize_weight(weights)
    assert codes[:, 0].tolist() == [127, 0, -127, 0]
    assert scales.tolist() == [SMALLEST_SCALE, 1.0, SMALLEST_SCALE, 1.0]
    assert underflow_rows == 2


@pytest.mark.parametrize("tiny", [1e-40, 1e-60, 5e-324])
def test_float64_rows_below_float32_are_zero_rows(tiny):
    codes, scales, underflow_rows = quantize_weight(torch.tensor([[tiny, -tiny]], dtype=torch.float64))
    assert codes.tolist() == [[0, 0]]
    assert scales.tolist() == [1.0]
    assert underflow_rows == 1


# The bits are built before the mode is set: under flush-to-zero, even making the numbers would lose them.
PROBE = """
import struct, sys
import torch
import w8a16.core.weights as module

module.SMALLEST_SCALE = float.fromhex(sys.argv[1])
dtype = getattr(torch, sys.argv[2])
scales = [2.0**-126 * f for f in (0.01, 0.9, 1, 1.3, 1.99, 2, 2.01, 3, 4, 1000)]
elements = [2.0**-126 * f for f in (1 - 2**-7, 0.9, 0.51, 0.5, 0.1, 2**-7, 1.1, 1.5)]
rows = [[127 * s, -100 * s, *elements, *(-e for e in elements)] for s in scales]
rows.append([0.0] * len(rows[0]))
rows.append([2.0**-133] * len(rows[0]))
weights = torch.tensor(rows, dtype=torch.float64).to(dtype)

normal = module.quantize_weight(weights)
if not torch.set_flush_denormal(True):
    print("unsupported")
    sys.exit()
assert float(torch.tensor(2.0**-127) * 1.0) == 0.0, "the mode is not on"
flushed = module.quantize_weight(weights)
torch.set_flush_denormal(False)

print("codes", torch.equal(normal.int8_weights, flushed.int8_weights))
print("scales", torch.equal(normal.scales.view(torch.int32), flushed.scales.view(torch.int32)))
print("underflow_rows", normal.underflow_rows == flushed.underflow_rows)
print("rows kept", int((normal.int8_weights != 0).any(1).sum()))
"""


def flush_mode_probe(threshold: float, dtype: torch.dtype) -> dict[str, str]:
    """Quantize with and without flush-to-zero in a process of its own, so that the mode cannot leak."""
    arguments = [sys.executable, "-c", PROBE, threshold.hex(), str(dtype).removeprefix("torch.")]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    if "unsupported" in output:
        pytest.skip("this processor has no flush-to-zero mode")
    return dict(line.rsplit(" ", 1) for line in output.splitlines())


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def flush_report(request):
    return flush_mode_probe(SMALLEST_SCALE, request.param)


def test_codes_and_scales_are_the_same_under_flush_to_zero(flush_report):
    assert flush_report["codes"] == "True"
    assert flush_report["scales"] == "True"
    assert flush_report["rows kept"] == "5"


def test_the_underflow_count_is_the_same_under_flush_to_zero(flush_report):
    assert flush_report["underflow_rows"] == "True"


def test_the_smallest_normal_scale_would_depend_on_flush_to_zero():
    # The reason for the factor of two: a subnormal weight is worth a code in a row of scale 2**-126.
    report = flush_mode_probe(2.0**-126, torch.float32)
    assert report["codes"] == "False"
    assert report["scales"] == "True"
