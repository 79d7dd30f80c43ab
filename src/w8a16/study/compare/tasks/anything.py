"""The task of a model whose use is not known: how large the differences of its outputs are."""

from __future__ import annotations

from typing import Any

from w8a16.study.compare.drift import DriftSum
from w8a16.study.compare.nesting import paired_floats, positions_in_use
from w8a16.study.metrics import Metric


class AnyTask:
    """SQNR, cosine and largest difference of every float output."""

    name = "any"

    def __init__(self) -> None:
        self.sums: dict[str, DriftSum] = {}

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the outputs of one batch."""
        for path, ours, theirs in paired_floats(reference, quantized, in_use=positions_in_use(batch)):
            self.sums.setdefault(path, DriftSum()).add(ours, theirs)

    def result(self) -> dict[str, Metric]:
        """Three figures for each output; the place of the output comes first in their names."""
        found = {}
        for path, total in self.sums.items():
            drift, prefix = total.result(), f"{path} " if path else ""
            found[f"{prefix}sqnr"] = Metric(drift.sqnr_db, unit="dB", better="higher")
            found[f"{prefix}cosine"] = Metric(drift.cosine, better="higher")
            found[f"{prefix}largest_difference"] = Metric(drift.largest_difference, better="lower")
        return found
