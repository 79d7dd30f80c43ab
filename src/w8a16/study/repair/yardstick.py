"""Measures how far a model is from the float model on the inputs, by the budget's measure.

    kl       mean over positions of KL(float || int8) = sum p ln(p / q), softmax over the last dimension, nats
    cosine   mean over positions of the cosine between the two output vectors
    sqnr_db  10 log10(sum r^2 / sum (r - q)^2) over all elements, decibels
    top1     share of positions where the largest element is at the same index

They look at one output tensor of the model: "logits" where there is one, else the first float tensor that
is not a scalar. A task looks at whatever it is for. The outputs of the float model are computed once and
kept: for these four measures that tensor, for a task all of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.errors import ComparisonError, UsageError
from w8a16.study.compare.drift import DriftSum
from w8a16.study.compare.nesting import float_tensors_in
from w8a16.study.compare.running import evaluating, nonfinite_error, nonfinite_in, run
from w8a16.study.compare.tasks import Task
from w8a16.study.metrics import cosine
from w8a16.study.repair.budget import MEASURES, Budget, met

_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Reading:
    """One measurement of one model."""

    value: float
    """By the budget's measure."""
    drift: float
    """A quantity that adds up over independent small errors: the KL, 1 - cosine, or noise over signal."""
    met: bool


class Yardstick:
    """The float model's outputs, and what measures against them."""

    def __init__(self, model: nn.Module, batches: Sequence[Any], budget: Budget, task: Task | None) -> None:
        self._batches, self._budget, self._task = batches, budget, task
        self._keep_all = task is not None and not callable(budget.metric) and budget.metric not in MEASURES
        self._reference = [self._reference_of(model, number) for number in range(len(batches))]
        self.better = "lower"
        if isinstance(budget.metric, str):
            self.better = MEASURES.get(budget.metric) or self._task_direction(model)

    def read(self, model: nn.Module) -> Reading:
        """Measure a model that takes the same inputs."""
        task = copy.deepcopy(self._task) if self._keep_all else None
        noise, rows, count = DriftSum(), 0.0, 0
        measure = _PER_ROW.get(self._budget.metric) if isinstance(self._budget.metric, str) else None
        with evaluating(model):
            for number, batch in enumerate(self._batches):
                outputs = run(model, batch, "int8", number)
                reference, other = self._main(self._reference[number]), main_output(outputs)
                _check_same_shape(reference, other)
                if nonfinite_in(outputs):
                    return Reading(math.nan, math.inf, False)
                noise.add(reference, other)
                if task is not None:
                    task.update(batch, self._reference[number], outputs)
                if measure is not None:
                    for ours, theirs in _row_blocks(reference, other):
                        rows += float(measure(ours, theirs).sum())
                        count += len(ours)
            value = self._value(model, noise, rows / count if count else 0.0, task)
        drift = self._drift(value, noise, task)
        return Reading(value, drift, met(value, self._budget.limit, self.better))

    def _drift(self, value: float, noise: DriftSum, task: Task | None) -> float:
        if self._budget.metric == "kl":
            return value
        if self._budget.metric == "cosine":
            return 1 - value
        own = getattr(task, "drift", None)
        return noise.relative_noise if own is None else float(own())

    def _value(self, model: nn.Module, noise: DriftSum, mean: float, task: Task | None) -> float:
        metric = self._budget.metric
        if not isinstance(metric, str):
            return float(metric(model))
        if task is not None:
            return task.result()[metric].value
        return noise.result().sqnr_db if metric == "sqnr_db" else mean

    def _main(self, reference: Any) -> Tensor:
        return main_output(reference) if self._keep_all else reference

    def _reference_of(self, model: nn.Module, number: int) -> Any:
        with evaluating(model):
            outputs = run(model, self._batches[number], "float", number)
            if problem := nonfinite_in(outputs):
                raise nonfinite_error("float", problem, model, self._batches[number], number)
        return outputs if self._keep_all else main_output(outputs).clone()

    def _task_direction(self, model: nn.Module) -> str:
        """Which way is better for a figure of the task: it is asked for the float model against itself."""
        known = dict(MEASURES)
        if self._task is not None:
            task = copy.deepcopy(self._task)
            for batch, reference in zip(self._batches, self._reference, strict=True):
                task.update(batch, reference, reference)
            known |= {name: metric.better for name, metric in task.result().items()}
        better = known.get(self._budget.name)
        if better not in ("lower", "higher"):
            named = ", ".join(name for name, way in known.items() if way in ("lower", "higher"))
            hint = "" if self._task else "; pass a task for the figures of one"
            raise UsageError(f"budget: expected one of {named}; got {self._budget.name!r}{hint}")
        return better


def main_output(outputs: Any) -> Tensor:
    """The tensor that the measures look at.

    Raises:
        ComparisonError: there is no float tensor with a dimension.
    """
    found = {path: tensor for path, tensor in float_tensors_in(outputs).items() if tensor.dim()}
    if not found:
        raise ComparisonError(
            "expected a float tensor among the model's outputs to measure drift by, got none; "
            "pass a function as the budget's metric"
        )
    return found["logits"] if "logits" in found else next(iter(found.values()))


def _check_same_shape(reference: Tensor, other: Tensor) -> None:
    if reference.shape != other.shape:
        raise ComparisonError(
            f"expected the int8 model's output to have the shape {list(reference.shape)}, got "
            f"{list(other.shape)}"
        )


def _row_blocks(reference: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both as float64 `[positions, channels]`, in blocks."""
    columns = max(1, reference.shape[-1])
    pair = reference.reshape(-1, columns), other.reshape(-1, columns)
    rows = max(1, _BLOCK_ELEMENTS // columns)
    for ours, theirs in zip(*(tensor.split(rows) for tensor in pair), strict=True):
        yield ours.double(), theirs.double()


def _kl(reference: Tensor, other: Tensor) -> Tensor:
    p, q = reference.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _cosine(reference: Tensor, other: Tensor) -> Tensor:
    same = (reference == other).all(-1)  # two rows of zeros are alike, though they have no direction
    return torch.where(same, 1.0, cosine(reference, other))


def _top1(reference: Tensor, other: Tensor) -> Tensor:
    return (reference.argmax(-1) == other.argmax(-1)).double()


_PER_ROW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": _kl, "cosine": _cosine, "top1": _top1}
