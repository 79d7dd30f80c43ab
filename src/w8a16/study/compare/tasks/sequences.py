"""Recognisers and translators: how much of the float model's transcript changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ComparisonError
from w8a16.study.compare.nesting import signature, tensors_in
from w8a16.study.compare.tasks.outputs import input_named, kept_positions, main_output
from w8a16.study.metrics import Metric, ctc_collapse, edit_distance, kl_divergence, split_words
from w8a16.study.metrics.interval import percentiles, resampled_sums


class _Transcripts:
    """Edits between the transcripts of both models, and the divergence of their logits."""

    def __init__(self, decode: Callable[[list[int]], str] | None, separator: int | None) -> None:
        self._decode, self._separator = decode, separator
        self._rows: list[list[float]] = []
        """Of each sequence: tokens of the float model, edits, words of the float model, word edits."""
        self._divergence = self._steps = 0.0

    def add(self, ours: list[list[int]], theirs: list[list[int]]) -> None:
        """Add the transcripts of one batch."""
        for a, b in zip(ours, theirs, strict=True):
            words_a, words_b = self._words(a), self._words(b)
            edits = edit_distance(a, b), edit_distance(words_a, words_b)
            self._rows.append([len(a), edits[0], len(words_a), edits[1]])

    def add_logits(self, ours: Tensor, theirs: Tensor, kept: Tensor) -> None:
        """Add logits `[B, T, V]` at the positions that count."""
        self._divergence += float(kl_divergence(ours, theirs)[kept].sum())
        self._steps += int(kept.sum())

    def _words(self, tokens: list[int]) -> list[Any]:
        if self._decode is not None:
            return self._decode(tokens).split()
        return [] if self._separator is None else list(split_words(tokens, self._separator))

    @property
    def kl(self) -> float:
        return self._divergence / self._steps if self._steps else 0.0

    def result(self) -> dict[str, Metric]:
        rows = torch.tensor(self._rows, dtype=torch.float64)
        found = {"token_error_rate": _rate(rows[:, :2])}
        if self._decode is not None or self._separator is not None:
            found["word_error_rate"] = _rate(rows[:, 2:])
        same = (rows[:, 1] == 0).double().mean()
        found["sequences_unchanged"] = Metric(float(same), better="higher")
        if self._steps:
            found["kl"] = Metric(self.kl, unit="nats/step")
        return found


class CtcTask:
    """Greedy CTC transcripts: frames `[B, T, V]` to the likeliest labels, repeats and blanks dropped.

    Args:
        blank: the label that stands for nothing.
        separator: the label between words, to have a word error rate.
        decode: tokens to text, for the same.
    """

    name = "ctc"
    drift_unit = "nats/step of KL divergence"

    def __init__(
        self, blank: int = 0, separator: int | None = None, decode: Callable[[list[int]], str] | None = None
    ) -> None:
        self._blank, self._transcripts = blank, _Transcripts(decode, separator)

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the logits of one batch."""
        ours, theirs = (main_output(each, ("logits",), self.name, (3,)) for each in (reference, quantized))
        self._transcripts.add(self._collapsed(ours), self._collapsed(theirs))
        every = torch.ones(ours.shape[:2], dtype=torch.bool, device=ours.device)
        self._transcripts.add_logits(ours, theirs, every)

    def _collapsed(self, logits: Tensor) -> list[list[int]]:
        return [ctc_collapse(frames, self._blank) for frames in logits.argmax(-1).tolist()]

    def drift(self) -> float:
        """The KL divergence of a frame."""
        return self._transcripts.kl

    def result(self) -> dict[str, Metric]:
        """Token and word error rates against the float model, and the divergence."""
        return self._transcripts.result()


class Seq2SeqTask:
    """Transcripts of a decoder: generated token ids `[B, T]`, or the likeliest tokens of `[B, T, V]`.

    Args:
        end: the token after which nothing counts.
        separator: the token between words, to have a word error rate.
        decode: tokens to text, for the same.
    """

    name = "seq2seq"

    def __init__(
        self,
        end: int | None = None,
        separator: int | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        self._end, self._transcripts = end, _Transcripts(decode, separator)

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the tokens or logits of one batch."""
        generated = [_generated(each) for each in (reference, quantized)]
        if generated[0] is not None and generated[1] is not None:
            self._transcripts.add(*(self._cut(ids.tolist()) for ids in generated if ids is not None))
            return
        ours, theirs = (main_output(each, ("logits",), self.name, (3,)) for each in (reference, quantized))
        labels = input_named(batch, "labels")
        mask = input_named(batch, "decoder_attention_mask") if labels is None else (labels != -100)
        kept = kept_positions(mask, ours.shape[:2], ours.device)
        tokens = [
            [row[keep].tolist() for row, keep in zip(logits.argmax(-1), kept, strict=True)]
            for logits in (ours, theirs)
        ]
        self._transcripts.add(*(self._cut(each) for each in tokens))
        self._transcripts.add_logits(ours, theirs, kept)

    def _cut(self, sequences: list[list[int]]) -> list[list[int]]:
        """Up to the end token."""
        return [s[: s.index(self._end)] if self._end in s else s for s in sequences]

    def result(self) -> dict[str, Metric]:
        """Token and word error rates against the float model, and the divergence where there are logits."""
        return self._transcripts.result()


def _generated(outputs: Any) -> Tensor | None:
    """Token ids `[B, T]`, where the output is or holds such a tensor."""
    found = [tensor for path, tensor in tensors_in(outputs) if path in ("", "sequences", "[0]")]
    ids = [tensor for tensor in found if tensor.dtype in (torch.int64, torch.int32)]
    if ids and ids[0].dim() != 2:
        raise ComparisonError(f"task seq2seq: expected token ids [B, T], got {signature(outputs)}")
    return ids[0] if ids else None


def _rate(rows: Tensor) -> Metric:
    """Edits over tokens, with an interval over sequences."""
    tokens, edits = rows.sum(0).tolist()
    value = edits / tokens if tokens else (0.0 if edits == 0 else float("inf"))
    if len(rows) < 2 or not tokens:
        return Metric(value, better="lower")
    drawn = resampled_sums(rows)
    drawn = drawn[drawn[:, 0] > 0]
    return Metric(value, *percentiles(drawn[:, 1] / drawn[:, 0]), better="lower")
