"""The budget of a repair: how far the int8 model may be from the float model, and by which measure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from w8a16.errors import UsageError

Score = Callable[[nn.Module], float]

MEASURES = {
    "kl": "lower",
    "cosine": "higher",
    "sqnr_db": "higher",
    "top1": "higher",
}
"""The measures that need no task, and which way is better; `w8a16.study.repair.yardstick` defines them."""


@dataclass(frozen=True)
class Budget:
    """A limit for one measure of drift.

    Args:
        metric: "kl", "cosine", "sqnr_db" or "top1"; the name of a figure of the task; or a function that
            is given a model and returns its loss against the float model, lower being better.
        limit: the largest value that is allowed, or the smallest where higher is better.

    Raises:
        UsageError: the limit is not a finite number.
    """

    metric: str | Score
    limit: float

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, (int, float)):
            raise UsageError(f"budget: expected a number as the limit, got {self.limit!r}")
        if not math.isfinite(self.limit):
            raise UsageError(f"budget: expected a finite limit, got {self.limit}")
        if not (isinstance(self.metric, str) or callable(self.metric)):
            raise UsageError(f"budget: expected the name of a metric or a function, got {self.metric!r}")

    @property
    def name(self) -> str:
        """The measure, for tables."""
        return self.metric if isinstance(self.metric, str) else getattr(self.metric, "__name__", "score")

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget as the command line has it: `kl=0.001`, `cosine>=0.999`.

        The comparison may be written out; it must be the one that the measure has.

        Raises:
            UsageError: not a name and a number, or the comparison the wrong way round.

        Example:
            >>> Budget.parse("sqnr_db=30")
            Budget(metric='sqnr_db', limit=30.0)
        """
        found = re.fullmatch(r"\s*([A-Za-z][\w.]*)\s*(<=|>=|=)\s*(\S+)\s*", text)
        try:
            limit = float(found[3]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or math.isnan(limit):
            raise UsageError(f"budget: expected a metric and its limit, as in kl=0.001, got {text!r}")
        better = MEASURES.get(found[1])
        if better and found[2] == ("<=" if better == "higher" else ">="):
            way = "at least" if better == "higher" else "at most"
            raise UsageError(f"budget: {found[1]} is to be {way} its limit, got {text!r}")
        return cls(found[1], limit)


def met(value: float, limit: float, better: str) -> bool:
    """Whether a value keeps the limit; NaN never does."""
    return value <= limit if better == "lower" else value >= limit
