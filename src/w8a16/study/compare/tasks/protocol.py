"""What a task is: the end-to-end figures that matter for one use of a model."""

from __future__ import annotations

from typing import Any, Protocol

from w8a16.study.metrics import Metric


class Task(Protocol):
    """Metrics of int8 outputs against float outputs, summed up batch by batch.

    A task may also have `drift() -> float`, one number that is 0 for equal outputs and grows with the
    square of the noise, and `drift_unit: str`: what modules are blamed for. Without, that is the noise
    power of the outputs.
    """

    name: str

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add one batch: its inputs, and the outputs of both models in any nesting."""

    def result(self) -> dict[str, Metric]:
        """The figures over all batches so far."""
