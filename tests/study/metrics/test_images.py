"""PSNR and SSIM against the definitions, written out place by place."""

import math

import numpy as np
import pytest
import torch

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics import psnr, ssim

GENERATOR = torch.Generator().manual_seed(0)
A = torch.rand(2, 3, 14, 17, generator=GENERATOR)
B = (A + 0.1 * torch.randn(2, 3, 14, 17, generator=GENERATOR)).clamp(0, 1)


def by_definition(a, b, data_range, side=11):
    """One channel: a two-dimensional window, moved over the picture by hand."""
    offsets = np.arange(side) - side // 2
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for i in range(a.shape[0] - side + 1):
        for j in range(a.shape[1] - side + 1):
            x, y = (z[i : i + side, j : j + side].astype(np.float64) for z in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            vxy = (window * (x - mx) * (y - my)).sum()
            found.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(found)


@pytest.mark.parametrize("data_range, side", [(1.0, 11), (255.0, 7)])
def test_ssim(data_range, side):
    a, b = A * data_range, B * data_range
    expected = [
        np.mean([by_definition(x.numpy(), y.numpy(), data_range, side) for x, y in zip(p, q, strict=True)])
        for p, q in zip(a, b, strict=True)
    ]
    result = ssim(a, b, data_range, side)
    assert result.tolist() == pytest.approx(expected, rel=1e-6)
    assert all(0.3 < value < 0.99 for value in expected)


def test_psnr():
    expected = [
        10 * math.log10(1 / np.mean((p - q).double().numpy() ** 2)) for p, q in zip(A, B, strict=True)
    ]
    assert psnr(A, B, 1.0).tolist() == pytest.approx(expected)
    assert psnr(A * 255, B * 255, 255).tolist() == pytest.approx(expected, rel=1e-5)
    assert psnr(A, B, torch.tensor([1.0, 10.0])).tolist() == pytest.approx([expected[0], expected[1] + 20])


def test_equal_pictures():
    assert psnr(A, A, 1.0).tolist() == [math.inf] * 2
    assert ssim(A, A, 1.0).tolist() == pytest.approx([1.0] * 2)
    flat = torch.full((1, 1, 11, 11), 0.5)
    assert ssim(flat, flat, 1.0).item() == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_wrong_arguments_are_named(measure):
    with pytest.raises(ShapeError, match=r"expected \[B, C, H, W\] with no zero, got \[3, 14, 17\]"):
        measure(A[0], B[0], 1.0)
    with pytest.raises(ShapeError, match="expected equal shapes"):
        measure(A, B[:1], 1.0)
    with pytest.raises(UsageError, match="data_range: expected positive numbers"):
        measure(A, B, 0.0)
    with pytest.raises(UsageError, match="reference: 126 of 1428 values are NaN"):
        measure(torch.where(A.quantile(126 / 1428) > A, torch.nan, A), B, 1.0)


def test_windows_must_fit():
    with pytest.raises(
        ShapeError, match="pictures of at least 11 x 11, got 8 x 8; pass a smaller odd window"
    ):
        ssim(A[..., :8, :8], B[..., :8, :8], 1.0)
    with pytest.raises(UsageError, match="window: expected an odd number, got 4"):
        ssim(A, B, 1.0, window=4)
