"""Classifiers: whether both models choose the same class, and the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ShapeError, UsageError
from w8a16.study.compare.tasks.outputs import input_named, main_output
from w8a16.study.metrics import Metric, kl_divergence, mcnemar, paired_interval

_IGNORED = -100


class ClassificationTask:
    """Agreement, KL divergence of the classes, and accuracy where labels are known.

    Logits `[B, C]`, `[B, T, C]` for tokens, or `[B, C, H, W]` for pixels. Labels are those of the
    batch (`labels`, `label`), or the ones given here, in the order of the samples. The difference of
    the accuracies has a paired interval, and the p-value of McNemar's test.
    """

    name = "classification"
    drift_unit = "nats of KL divergence"

    def __init__(self, labels: Sequence[int] | Tensor | None = None) -> None:
        self._labels = None if labels is None else torch.as_tensor(labels)
        self._taken = 0
        self._agrees: list[Tensor] = []
        self._divergences: list[Tensor] = []
        self._correct: list[tuple[Tensor, Tensor]] = []

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the logits of one batch."""
        ours, theirs = (self._logits(each) for each in (reference, quantized))
        labels = self._next_labels(batch, ours.shape[:-1])
        used = torch.ones(ours.shape[:-1], dtype=torch.bool) if labels is None else labels != _IGNORED
        choices = [logits.argmax(-1).cpu() for logits in (ours, theirs)]
        self._agrees.append((choices[0] == choices[1])[used].double())
        self._divergences.append(kl_divergence(ours, theirs).cpu()[used])
        if labels is not None:
            correct = [(choice == labels)[used].double() for choice in choices]
            self._correct.append((correct[0], correct[1]))

    def _logits(self, outputs: Any) -> Tensor:
        logits = main_output(outputs, ("logits",), self.name, (2, 3, 4))
        return logits.movedim(1, -1) if logits.dim() == 4 else logits

    def _next_labels(self, batch: Any, shape: torch.Size) -> Tensor | None:
        found = input_named(batch, "labels", "label")
        if self._labels is not None:
            found = self._labels[self._taken : self._taken + shape[0]]
            self._taken += shape[0]
            if len(found) < shape[0]:
                raise UsageError(f"labels: expected one for each sample, got {len(self._labels)}")
        if found is None:
            return None
        if found.shape != shape:
            raise ShapeError(f"labels: expected {list(shape)}, got {list(found.shape)}")
        return found.cpu().long()

    def drift(self) -> float:
        """The KL divergence of the classes."""
        return float(torch.cat(self._divergences).mean())

    def result(self) -> dict[str, Metric]:
        """Agreement and divergence; with labels both accuracies, their difference and its p-value."""
        found = {
            "agreement": _with_interval(self._agrees, "", "higher"),
            "kl": _with_interval(self._divergences, "nats", "lower"),
        }
        if self._correct:
            ours, theirs = (torch.cat(each) for each in zip(*self._correct, strict=True))
            only_float, only_int8, p = mcnemar(ours, theirs)
            found |= {
                "accuracy_float": Metric(float(ours.mean()), better="higher"),
                "accuracy_int8": Metric(float(theirs.mean()), better="higher"),
                "accuracy_difference": _with_interval([theirs - ours], "", "higher"),
                "only_float_right": Metric(only_float, better="lower"),
                "only_int8_right": Metric(only_int8, better="higher"),
                "mcnemar_p": Metric(p, better="neither"),
            }
        return found


def _with_interval(values: list[Tensor], unit: str, better: str) -> Metric:
    mean, low, high = paired_interval(torch.cat(values))
    return Metric(mean, low, high, unit, better)
