"""Whether the same examples are still right: paired, because both models saw the same ones."""

from __future__ import annotations

import math

from torch import Tensor

from w8a16.study.metrics.checks import check_pair


def mcnemar(reference_correct: Tensor, other_correct: Tensor) -> tuple[int, int, float]:
    """Examples that only the reference gets right, that only the other does, and the p-value.

    The exact two-sided test: if neither model were better, each of the examples on which they differ
    would be a fair coin. The many examples on which they agree say nothing about the difference.

    Args:
        reference_correct: whether each example is right, bool or 0 and 1, `[n]`.
        other_correct: the same for the other model.

    Source: Q. McNemar, Psychometrika 12 (1947), with the binomial distribution in place of chi-squared.

    Example:
        >>> import torch
        >>> mcnemar(torch.tensor([1, 1, 1, 0]), torch.tensor([0, 0, 1, 0]))
        (2, 0, 0.5)
    """
    check_pair(reference_correct, other_correct, ("reference_correct", "other_correct"))
    ours, theirs = reference_correct.bool(), other_correct.bool()
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return only_ours, only_theirs, _two_sided(only_ours, only_theirs)


def _two_sided(successes: int, failures: int) -> float:
    n, fewer = successes + failures, min(successes, failures)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(fewer + 1)
    ]
    return min(1.0, round(2 * math.fsum(map(math.exp, logs)), 12))
