"""The worked example of the specification: one 4 x 8 bfloat16 matrix, its codes, scales and error."""

import torch

from w8a16.core import dequantize_weight, quantize_weight

WEIGHTS = [
    [0.3008, 0.3457, -1.6016, 1.3828, 1.6797, 0.1885, 1.8516, -0.1162],
    [-0.5430, -0.8594, 1.0156, -0.6484, 0.2070, -0.8242, -0.2949, 1.6562],
    [-0.1035, -0.6562, -0.9570, -0.5391, -0.9688, -0.0762, 1.2578, 0.0239],
    [-1.8438, -0.9805, -1.1094, 0.9336, 0.1387, -0.8672, 0.0933, 1.0000],
]
CODES = [
    [21, 24, -110, 95, 115, 13, 127, -8],
    [-42, -66, 78, -50, 16, -63, -23, 127],
    [-10, -66, -97, -54, -98, -8, 127, 2],
    [-127, -68, -76, 64, 10, -60, 6, 69],
]


def test_codes_scales_and_error():
    weights = torch.tensor(WEIGHTS, dtype=torch.bfloat16)
    codes, scales, underflow_rows = quantize_weight(weights)
    assert codes.tolist() == CODES
    assert codes.dtype == torch.int8
    assert scales.dtype == torch.float32
    assert [f"{s:.4f}" for s in scales.bfloat16().tolist()] == ["0.0146", "0.0131", "0.0099", "0.0145"]
    assert underflow_rows == 0
    error = (weights.float() - dequantize_weight(codes, scales)).abs().mean().item()
    assert 0 < error <= 0.0035


def test_scales_are_not_rounded_to_the_weights_dtype():
    weights = torch.tensor(WEIGHTS, dtype=torch.bfloat16)
    scales = quantize_weight(weights).scales
    assert torch.equal(scales, weights.float().abs().amax(1) / 127)
    assert not torch.equal(scales, scales.bfloat16().float())
