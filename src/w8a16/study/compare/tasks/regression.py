"""Regressors and forecasters: how much of the float model's predictions the int8 model reproduces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ShapeError
from w8a16.study.compare.tasks.outputs import input_named, main_output
from w8a16.study.metrics import Metric, paired_interval
from w8a16.study.metrics.regression import r2_of_column

_NAMES = ("prediction_outputs", "predictions", "logits")


class RegressionTask:
    """R2 of the int8 predictions against the float ones; against the labels for both where there are any.

    Predictions `[B]` or `[B, ...]`; each place behind the first dimension is a column, and R2 is the
    mean over columns. Sums are kept, not predictions, but for one squared error a sample.
    """

    name = "regression"
    drift_unit = "1 - R2 against the float model"

    def __init__(self) -> None:
        self._fidelity = _Explained()
        self._against_labels = (_Explained(), _Explained())
        self._errors: list[Tensor] = []

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the predictions of one batch."""
        ours, theirs = (
            main_output(each, _NAMES, self.name, (1, 2, 3, 4)).double().cpu()
            for each in (reference, quantized)
        )
        self._fidelity.add(ours, theirs)
        truth = input_named(batch, "labels", "future_values", "target")
        if truth is None:
            return
        if truth.numel() != ours.numel() or len(truth) != len(ours):
            raise ShapeError(f"labels: expected {list(ours.shape)}, got {list(truth.shape)}")
        truth = truth.double().cpu().reshape(ours.shape)
        for each, prediction in zip(self._against_labels, (ours, theirs), strict=True):
            each.add(truth, prediction)
        squares = [(truth - p).square().flatten(1 if p.dim() > 1 else 0) for p in (ours, theirs)]
        means = [s.mean(1) if s.dim() > 1 else s for s in squares]
        self._errors.append(means[1] - means[0])

    def drift(self) -> float:
        """What the int8 model does not explain of the float model's predictions."""
        return 1 - self._fidelity.r2()

    def result(self) -> dict[str, Metric]:
        """R2 against the float model; with labels R2 of both and the difference of the squared errors."""
        found = {"r2_against_float": Metric(self._fidelity.r2(), better="higher")}
        if self._errors:
            ours, theirs = (each.r2() for each in self._against_labels)
            mean, low, high = paired_interval(torch.cat(self._errors))
            found |= {
                "r2_float": Metric(ours, better="higher"),
                "r2_int8": Metric(theirs, better="higher"),
                "r2_difference": Metric(theirs - ours, better="higher"),
                "squared_error_difference": Metric(mean, low, high, better="lower"),
            }
        return found


class _Explained:
    """The sums behind R2, merged batch by batch.

    Source: T. Chan, G. Golub, R. LeVeque, The American Statistician 37 (1983), for the merging.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean: Tensor | float = 0.0
        self._variation: Tensor | float = 0.0
        self._residual: Tensor | float = 0.0

    def add(self, truth: Tensor, prediction: Tensor) -> None:
        """Add one batch, a row for each sample."""
        rows, guesses = (each.reshape(len(each), -1) for each in (truth, prediction))
        mean, count = rows.mean(0), len(rows)
        total = self._count + count
        step = mean - self._mean
        self._variation = (
            self._variation + (rows - mean).square().sum(0) + step.square() * self._count * count / total
        )
        self._mean = self._mean + step * count / total
        self._residual = self._residual + (rows - guesses).square().sum(0)
        self._count = total

    def r2(self) -> float:
        """The mean over columns."""
        residual, variation = torch.as_tensor(self._residual), torch.as_tensor(self._variation)
        pairs = zip(residual.tolist(), variation.tolist(), strict=True)
        columns = [r2_of_column(*pair) for pair in pairs]
        return sum(columns) / len(columns)
