"""Embeddings: the angle between float and int8 vectors, and whether they find the same neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.study.compare.nesting import float_tensors_in
from w8a16.study.compare.tasks.outputs import input_named, kept_positions, main_output
from w8a16.study.metrics import Metric, cosine, neighbour_overlap, paired_interval, recall_at_k

_NAMES = ("sentence_embedding", "embeddings", "last_hidden_state", "pooler_output")
_PAIR = ("text_embeds", "image_embeds")


class EmbeddingTask:
    """Cosine, overlap of the nearest neighbours, and recall for pairs of texts and images.

    A vector for each sample, `[B, D]`; of vectors for each token, `[B, T, D]`, the mean over the tokens
    that `attention_mask` keeps. Where the outputs have `text_embeds` and `image_embeds`, row i of one
    belongs to row i of the other, and the recall of the other among all samples is given too. The
    vectors of all batches are kept.
    """

    name = "embedding"
    drift_unit = "1 - cosine"

    def __init__(self, k: int = 10) -> None:
        self._k = k
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._second: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the vectors of one batch."""
        ours, theirs = float_tensors_in(reference), float_tensors_in(quantized)
        if all(name in ours for name in _PAIR):
            for name, kept in zip(_PAIR, (self._pairs, self._second), strict=True):
                kept.append((ours[name].cpu(), theirs[name].cpu()))
            return
        self._pairs.append((self._vectors(batch, reference), self._vectors(batch, quantized)))

    def _vectors(self, batch: Any, outputs: Any) -> Tensor:
        vectors = main_output(outputs, _NAMES, self.name, (2, 3))
        if vectors.dim() == 2:
            return vectors.cpu()
        mask = kept_positions(input_named(batch, "attention_mask"), vectors.shape[:2], vectors.device)
        weights = mask.unsqueeze(-1).to(vectors.dtype)
        return ((vectors * weights).sum(1) / weights.sum(1).clamp_min(1)).cpu()

    def drift(self) -> float:
        """One minus the mean cosine."""
        return 1 - float(self._cosines().mean())

    def _cosines(self) -> Tensor:
        return torch.cat([cosine(ours, theirs) for ours, theirs in (*self._pairs, *self._second)])

    def result(self) -> dict[str, Metric]:
        """Cosine (mean and least), and the overlap of neighbours where there are any."""
        cosines = self._cosines()
        mean, low, high = paired_interval(cosines)
        found = {
            "cosine": Metric(mean, low, high, better="higher"),
            "cosine_least": Metric(float(cosines.min()), better="higher"),
        }
        ours, theirs = (torch.cat(each) for each in zip(*self._pairs, strict=True))
        for k in sorted({min(size, len(ours) - 1) for size in (1, self._k)} - {0}):
            shares = neighbour_overlap(ours, theirs, k)
            found[f"neighbours_in_common_at_{k}"] = _with_interval(shares, "higher")
        if self._second:
            found |= self._recalls(ours, theirs)
        return found

    def _recalls(self, ours: Tensor, theirs: Tensor) -> dict[str, Metric]:
        others = [torch.cat(each) for each in zip(*self._second, strict=True)]
        found = {}
        for k in sorted({min(size, len(ours)) for size in (1, self._k)}):
            hits = [recall_at_k(q, t, k) for q, t in zip((ours, theirs), others, strict=True)]
            for label, values in zip(("float", "int8"), hits, strict=True):
                found[f"recall_at_{k}_{label}"] = Metric(float(values.mean()), better="higher")
            found[f"recall_at_{k}_difference"] = _with_interval(hits[1] - hits[0], "higher")
        return found


def _with_interval(values: Tensor, better: str) -> Metric:
    mean, low, high = paired_interval(values)
    return Metric(mean, low, high, better=better)
