"""How heavy the tails of a distribution are: what decides how well one scale serves a row."""

from __future__ import annotations

from torch import Tensor


def kurtosis(values: Tensor) -> Tensor:
    """`mean(x^4) / mean(x^2)^2` of each row, about zero, float64 `[...]`; NaN for a row of zeros.

    1 for values of one magnitude, 1.8 for uniform, 3 for Gaussian ones; no upper end. About zero and
    not about the mean, because the codes are symmetric about zero.

    Example:
        >>> kurtosis(torch.tensor([[1.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 2.0]])).tolist()
        [1.0, 4.0]
    """
    scaled = _to_unit_peak(values)
    squares = scaled.square()
    return squares.square().mean(-1) / squares.mean(-1).square()


def crest_factor(values: Tensor) -> Tensor:
    """`max|x| / rms(x)` of each row, float64 `[...]`; NaN for a row of zeros.

    1 for values of one magnitude, 1.73 for uniform ones, 3 to 4 for a thousand Gaussian ones. With one
    int8 scale a row the SQNR is close to `20 log10(127 sqrt(12) / crest_factor)` decibels.

    Example:
        >>> crest_factor(torch.tensor([3.0, -4.0, 0.0, 0.0])).item()
        1.6
    """
    return 1 / _to_unit_peak(values).square().mean(-1).sqrt()


def _to_unit_peak(values: Tensor) -> Tensor:
    """Divided by the largest magnitude of each row, so that fourth powers stay within range."""
    wide = values.double()
    return wide / wide.abs().amax(-1, keepdim=True)
