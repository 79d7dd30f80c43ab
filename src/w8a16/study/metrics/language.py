"""How far apart two language models are: distributions over the next token, and perplexity.

T tokens (any leading dimensions), V entries of the vocabulary. Everything is in float64, a block of rows
at a time, so a vocabulary of a quarter million costs megabytes and not gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from w8a16.errors import ShapeError
from w8a16.study.metrics.checks import check_finite, check_pair

_BLOCK_ELEMENTS = 1 << 21


def kl_divergence(reference: Tensor, other: Tensor) -> Tensor:
    """`sum_v p log(p / q)` with `p = softmax(reference)`, `q = softmax(other)`: nats, float64 `[...]`.

    Logits of minus infinity are allowed: tokens of probability zero; infinite where only q has them.

    Args:
        reference: logits `[..., V]`.
        other: logits `[..., V]`.

    Raises:
        ShapeError: the shapes differ.
        UsageError: NaN or plus infinity among the logits.

    Example:
        >>> kl_divergence(torch.tensor([0.0, 0.0]), torch.tensor([0.0, -100.0])).item()
        49.30685281944005
    """
    _check_logits(reference, other)
    return _by_rows(_kl_of_rows, reference, other)


def top_k_agreement(reference: Tensor, other: Tensor, k: int = 1) -> Tensor:
    """Share of the k largest logits of `reference` that are among the k largest of `other`: `[...]`.

    Raises:
        ShapeError: the shapes differ, or fewer than k logits.

    Example:
        >>> top_k_agreement(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 2.0]), k=2).item()
        0.5
    """
    _check_logits(reference, other)
    if not 1 <= k <= reference.shape[-1]:
        raise ShapeError(f"k: expected 1 to {reference.shape[-1]} for {reference.shape[-1]} logits, got {k}")

    def overlap(ours: Tensor, theirs: Tensor) -> Tensor:
        a, b = ours.topk(k).indices, theirs.topk(k).indices
        return (a.unsqueeze(-1) == b.unsqueeze(-2)).any(-1).double().mean(-1)

    return _by_rows(overlap, reference, other)


def negative_log_likelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """`-log softmax(logits)[target]` of each token: nats, float64 `[...]`.

    Its mean is the cross-entropy; `exp` of the mean is the perplexity.

    Args:
        logits: `[..., V]`.
        targets: integers `[...]` within 0..V-1.

    Raises:
        ShapeError: one target is needed for each row of logits.

    Example:
        >>> negative_log_likelihood(torch.zeros(1, 4), torch.tensor([2])).exp().tolist()
        [4.0]
    """
    if logits.shape[:-1] != targets.shape:
        raise ShapeError(
            f"targets: expected {list(logits.shape[:-1])} for logits {list(logits.shape)}, got "
            f"{list(targets.shape)}"
        )
    _check_logits(logits, logits)
    chosen = targets.to(logits.device).unsqueeze(-1).long()

    def surprise(rows: Tensor, picked: Tensor) -> Tensor:
        wide = rows.double()
        return wide.logsumexp(-1) - wide.gather(-1, picked).squeeze(-1)

    return _by_rows(surprise, logits, chosen)


def _kl_of_rows(reference: Tensor, other: Tensor) -> Tensor:
    log_p, log_q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    terms = torch.where(log_p == -torch.inf, 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp_min(0.0)  # rounding may leave -1e-17


def _by_rows(function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    flat_a, flat_b = a.detach().reshape(-1, a.shape[-1]), b.detach().to(a.device).reshape(-1, b.shape[-1])
    rows = max(1, _BLOCK_ELEMENTS // max(1, a.shape[-1]))
    parts = [function(x, y) for x, y in zip(flat_a.split(rows), flat_b.split(rows), strict=True)]
    return torch.cat(parts).reshape(a.shape[:-1])


def _check_logits(reference: Tensor, other: Tensor) -> None:
    check_pair(reference, other, ("reference logits", "other logits"), finite=False)
    if reference.dim() == 0 or reference.shape[-1] == 0:
        raise ShapeError(f"logits: expected [..., V] with V at least 1, got {list(reference.shape)}")
    for name, logits in (("reference logits", reference), ("other logits", other)):
        check_finite(name, torch.where(logits == -torch.inf, 0.0, logits))
