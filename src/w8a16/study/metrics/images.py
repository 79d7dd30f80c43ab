"""How alike two pictures are: PSNR and SSIM.

B pictures, C channels, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics.checks import check_pair

WINDOW, SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(reference: Tensor, other: Tensor, data_range: float | Tensor) -> Tensor:
    """`10 log10(L^2 / mean((r - o)^2))` of each picture in decibels, float64 `[B]`; infinite where equal.

    Args:
        reference: `[B, C, H, W]`.
        other: `[B, C, H, W]`.
        data_range: L, the largest value a picture can have minus the smallest: 1.0, 255, or one `[B]`.

    Example:
        >>> psnr(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.1), data_range=1.0).round().tolist()
        [20.0]
    """
    span = _check(reference, other, data_range)
    error = (reference.double() - other.double()).square().mean((1, 2, 3))
    return 10 * torch.log10(span.square() / error)


def ssim(reference: Tensor, other: Tensor, data_range: float | Tensor, window: int = WINDOW) -> Tensor:
    """Structural similarity of each picture: 1 where equal, float64 `[B]`.

    At each place a Gaussian window gives means, variances and covariance, and
    `(2 m1 m2 + c1)(2 v12 + c2) / ((m1^2 + m2^2 + c1)(v1 + v2 + c2))` with `c1 = (0.01 L)^2` and
    `c2 = (0.03 L)^2`; the mean over all places at which the window fits, and over channels.

    Args:
        reference: `[B, C, H, W]`.
        other: `[B, C, H, W]`.
        data_range: L, as in `psnr`.
        window: its side, odd; 11 in the definition, with a standard deviation of 1.5.

    Raises:
        ShapeError: pictures smaller than the window.

    Source: Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, IEEE Trans. Image Processing 13 (2004).

    Example:
        >>> picture = torch.rand(1, 3, 16, 16)
        >>> ssim(picture, picture, data_range=1.0).tolist()
        [1.0]
    """
    span = _check(reference, other, data_range)[:, None, None, None]
    height, width = reference.shape[2:]
    if window % 2 == 0 or window < 1:
        raise UsageError(f"window: expected an odd number, got {window}")
    if min(height, width) < window:
        raise ShapeError(
            f"SSIM with a window of {window}: expected pictures of at least {window} x {window}, got "
            f"{height} x {width}; pass a smaller odd window"
        )
    x, y = reference.double(), other.double()
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    variance_x = _blur(x * x, window) - mean_x.square()
    variance_y = _blur(y * y, window) - mean_y.square()
    covariance = _blur(x * y, window) - mean_x * mean_y
    c1, c2 = (_K1 * span).square(), (_K2 * span).square()
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    return (top / bottom).mean((1, 2, 3))


def _blur(pictures: Tensor, window: int) -> Tensor:
    """Weighted means in a Gaussian window, at the places where it fits."""
    offsets = torch.arange(window, dtype=torch.float64, device=pictures.device) - window // 2
    weights = (-offsets.square() / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    planes = pictures.reshape(-1, 1, *pictures.shape[2:])
    planes = functional.conv2d(planes, weights.view(1, 1, -1, 1))
    planes = functional.conv2d(planes, weights.view(1, 1, 1, -1))
    return planes.reshape(*pictures.shape[:2], *planes.shape[2:])


def _check(reference: Tensor, other: Tensor, data_range: float | Tensor) -> Tensor:
    if reference.dim() != 4 or 0 in reference.shape:
        raise ShapeError(f"pictures: expected [B, C, H, W] with no zero, got {list(reference.shape)}")
    check_pair(reference, other)
    span = torch.as_tensor(data_range, dtype=torch.float64, device=reference.device)
    if not bool((span > 0).all()):
        raise UsageError("data_range: expected positive numbers, such as 1.0 or 255")
    return span.expand(len(reference))
