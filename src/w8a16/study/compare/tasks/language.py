"""Language models: distributions over tokens and perplexity, in nats."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from w8a16.study.compare.tasks.outputs import input_named, kept_positions, main_output
from w8a16.study.metrics import Metric, kl_divergence, negative_log_likelihood, top_k_agreement
from w8a16.study.metrics.interval import percentiles, resampled_sums

_IGNORED = -100
"""The label of positions that count for nothing, as in torch's cross-entropy."""


class LanguageTask:
    """KL divergence of the logits, agreement of the likeliest tokens, and perplexity where tokens are known.

    Logits `[B, T, V]` or `[B, V]`; positions that `attention_mask` leaves out do not count. The tokens
    are the `labels` of the batch, or the next of its `input_ids` (of its `decoder_input_ids`). Labels
    that repeat the input belong to the position before, others to their own. Intervals are over
    sequences.
    """

    name = "language"
    drift_unit = "nats/token of KL divergence"

    def __init__(self) -> None:
        self._agreements: list[Tensor] = []
        """A row for each sequence: tokens, and sums of KL, top-1 and top-5 agreement."""
        self._likelihoods: list[Tensor] = []
        """A row for each sequence: tokens with a target, and sums of both models' surprise."""

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the logits of one batch."""
        ours, theirs = (main_output(each, ("logits",), self.name, (2, 3)) for each in (reference, quantized))
        if ours.dim() == 2:
            ours, theirs = ours.unsqueeze(1), theirs.unsqueeze(1)
        mask = input_named(batch, "decoder_attention_mask", "attention_mask")
        kept = kept_positions(mask, ours.shape[:2], ours.device)
        figures = (
            torch.ones(ours.shape[:2], dtype=torch.float64, device=ours.device),
            kl_divergence(ours, theirs),
            top_k_agreement(ours, theirs, 1),
            top_k_agreement(ours, theirs, min(5, ours.shape[-1])),
        )
        self._agreements.append(_sums(figures, kept))
        targets = _targets(batch, ours.shape[:2], kept)
        if targets is not None:
            used = targets != _IGNORED
            safe = targets.masked_fill(~used, 0)
            surprises = [negative_log_likelihood(logits, safe) for logits in (ours, theirs)]
            self._likelihoods.append(_sums((figures[0], *surprises), used))

    def drift(self) -> float:
        """The KL divergence."""
        tokens, kl, *_ = torch.cat(self._agreements).sum(0).tolist()
        return kl / tokens if tokens else 0.0

    def result(self) -> dict[str, Metric]:
        """KL, agreement, and both perplexities with their difference."""
        agreements = torch.cat(self._agreements)
        found = {
            "kl": _ratio(agreements, 1, "nats/token", "lower"),
            "top1_agreement": _ratio(agreements, 2, "", "higher"),
            "top5_agreement": _ratio(agreements, 3, "", "higher"),
        }
        if self._likelihoods:
            found |= _perplexities(torch.cat(self._likelihoods))
        return found


def _sums(figures: tuple[Tensor, ...], kept: Tensor) -> Tensor:
    """The sum of each figure over the kept positions of each sequence: `[B, figures]`."""
    return torch.stack([torch.where(kept, figure, 0.0).sum(1) for figure in figures], dim=1).cpu()


def _ratio(rows: Tensor, column: int, unit: str, better: str) -> Metric:
    tokens, total = float(rows[:, 0].sum()), float(rows[:, column].sum())
    value = total / tokens if tokens else math.nan
    if len(rows) < 2:
        return Metric(value, unit=unit, better=better)
    drawn = resampled_sums(rows[rows[:, 0] > 0])
    return Metric(value, *percentiles(drawn[:, column] / drawn[:, 0]), unit=unit, better=better)


def _perplexities(rows: Tensor) -> dict[str, Metric]:
    rows = rows[rows[:, 0] > 0]
    if not len(rows):
        return {}

    def of(sums: Tensor) -> tuple[Tensor, Tensor]:
        return (sums[..., 1] / sums[..., 0]).exp(), (sums[..., 2] / sums[..., 0]).exp()

    (ours, theirs), drawn = of(rows.sum(0)), of(resampled_sums(rows))
    low, high = percentiles(drawn[1] - drawn[0]) if len(rows) > 1 else (None, None)
    return {
        "perplexity_float": Metric(float(ours), better="lower"),
        "perplexity_int8": Metric(float(theirs), better="lower"),
        "perplexity_difference": Metric(float(theirs - ours), low, high, better="lower"),
    }


def _targets(batch: Any, shape: torch.Size, kept: Tensor) -> Tensor | None:
    """The token that each position is about, -100 where there is none."""
    labels = input_named(batch, "labels")
    tokens = input_named(batch, "decoder_input_ids", "input_ids")
    if labels is not None and labels.shape == shape:
        labels = labels.to(kept.device).long()
        used = labels != _IGNORED
        repeats = tokens is not None and tokens.shape == shape
        if repeats and tokens is not None and bool((tokens.to(kept.device) == labels)[used].all()):
            return _next(labels)
        return labels
    if tokens is None or tokens.shape != shape or shape[1] < 2:
        return None
    return _next(tokens.to(kept.device).long().masked_fill(~kept, _IGNORED))


def _next(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], _IGNORED)], dim=1)
