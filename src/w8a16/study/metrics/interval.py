"""How sure a mean is: the bootstrap, paired where two models saw the same examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from w8a16.errors import UsageError
from w8a16.study.metrics.checks import vector_of

_BLOCK_ELEMENTS = 1 << 20


def paired_interval(
    differences: Sequence[float] | Tensor, seed: int = 0, samples: int = 2000
) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval by the percentile bootstrap.

    Each example gives one difference between two models, so what makes an example easy or hard for
    both cancels. Examples are drawn with replacement; the interval is from the 2.5th to the 97.5th
    percentile of the means. With one example it is that example alone.

    Args:
        differences: one number for each example.
        seed: of the draws: the same interval every time.
        samples: how many means are drawn.

    Raises:
        UsageError: no differences, or NaN or Inf among them.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Example:
        >>> paired_interval([1.0, 1.0, 1.0])
        (1.0, 1.0, 1.0)
    """
    values = vector_of("differences", differences)
    if values.numel() == 0:
        raise UsageError("differences: expected one for each example, got none")
    means = resampled_sums(values.unsqueeze(1), seed, samples)[:, 0] / values.numel()
    return float(values.mean()), *percentiles(means)


def resampled_sums(values: Tensor, seed: int = 0, samples: int = 2000) -> Tensor:
    """Sums over examples drawn with replacement: float64 `[n, columns]` to `[samples, columns]`.

    What is computed from sums (a mean, a ratio, a perplexity) gets its interval from these.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, _BLOCK_ELEMENTS // max(1, values.numel()))
    sums = []
    for start in range(0, samples, rows):
        shape = (min(rows, samples - start), len(values))
        sums.append(values[torch.randint(len(values), shape, generator=generator)].sum(1))
    return torch.cat(sums)


def percentiles(values: Tensor) -> tuple[float, float]:
    """The ends of the middle 95 %."""
    ends = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(ends[0]), float(ends[1])
