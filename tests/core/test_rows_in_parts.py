"""A row too long to be held at once: its scale from its largest value, its codes part by part."""

import pytest
import torch

from support.numerics import DTYPES, name_of, random_weights
from w8a16.core import SMALLEST_SCALE, codes_of_row, quantize_weight, scale_of_row


def in_parts(row, length):
    wide = row.double() if row.dtype == torch.float64 else row.float()
    scale = scale_of_row(wide.abs().amax())
    parts = [codes_of_row(part, scale) for part in row.split(length)]
    return torch.cat(parts), torch.ones(()) if scale is None else scale


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("length", [1, 7, 64, 1000])
def test_the_codes_and_scale_of_the_whole_row(dtype, length):
    weights = random_weights(40, 129, dtype)
    whole = quantize_weight(weights)
    for row, codes, scale in zip(weights, whole.int8_weights, whole.scales, strict=True):
        found, found_scale = in_parts(row, length)
        assert found.dtype == torch.int8
        assert torch.equal(found, codes)
        assert (found_scale.dtype, found_scale.item()) == (torch.float32, scale.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
def test_rows_of_zeros_and_rows_too_small(dtype):
    smallest = torch.tensor(SMALLEST_SCALE * 127, dtype=dtype)
    for largest, small in [(0.0, True), (1e-40, True), (float(smallest) / 2, True), (float(smallest), False)]:
        row = torch.tensor([largest, -largest / 2, 0], dtype=dtype)
        scale = scale_of_row(row.abs().amax())
        assert (scale is None) == small
        codes = codes_of_row(row, scale)
        assert codes.tolist() == ([0, 0, 0] if small else [127, -64, 0])
        assert torch.equal(codes, quantize_weight(row[None]).int8_weights[0])


def test_float64_is_divided_in_float64():
    """In float32 the quotients of these would round to the next code."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(100_000, dtype=torch.float64, generator=generator)
    scale = scale_of_row(row.abs().amax())
    halves = (torch.arange(-126, 127) + 0.5).double() * scale.double()
    row[: len(halves)] = halves * (1 - 1e-12)
    codes = codes_of_row(row, scale)
    assert torch.equal(codes, quantize_weight(row[None]).int8_weights[0])
    rounded = (row.float() / scale).round().to(torch.int8)
    assert not torch.equal(codes, rounded)
