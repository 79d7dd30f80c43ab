"""The end-to-end difference on the way: drift of every output, and the metrics of a task."""

from __future__ import annotations

import copy
from typing import Any

from w8a16.errors import ComparisonError
from w8a16.study.compare.nesting import signature
from w8a16.study.compare.result import TensorDrift
from w8a16.study.compare.tasks import AnyTask, Task
from w8a16.study.metrics import Metric

NOISE_UNIT = "noise power over signal power"


class Measure:
    """Sums over batches of what both models give out."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._every = task if isinstance(task, AnyTask) else AnyTask()

    def another(self) -> Measure:
        """A fresh one for the same task; to be taken before the first batch."""
        return Measure(copy.deepcopy(self.task))

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add one batch.

        Raises:
            ComparisonError: the outputs have other places or shapes, or the task finds nothing in them.
        """
        self._every.update(batch, reference, quantized)
        if self.task is self._every and not self._every.sums:
            raise ComparisonError(
                f"the outputs hold no float tensor to compare: {signature(reference)}; pass a task that "
                "takes such outputs (seq2seq takes token ids), or a module that returns what they come from"
            )
        if self.task is not self._every:
            self.task.update(batch, reference, quantized)

    def outputs(self) -> tuple[tuple[str, TensorDrift], ...]:
        """Every output with its drift."""
        return tuple((path, drift.result()) for path, drift in self._every.sums.items())

    def metrics(self) -> dict[str, Metric]:
        """The figures of the task."""
        return self.task.result()

    @property
    def drift(self) -> float:
        """One number, 0 for equal outputs: the task's own if it has one, else the mean relative noise."""
        own = getattr(self.task, "drift", None)
        if own is not None:
            return float(own())
        noises = [each.relative_noise for each in self._every.sums.values()]
        return sum(noises) / len(noises) if noises else 0.0

    @property
    def drift_unit(self) -> str:
        """What `drift` is measured in."""
        return str(getattr(self.task, "drift_unit", NOISE_UNIT))
