"""One figure with what is needed to read it: interval, unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A measured figure.

    Example:
        >>> print(Metric(0.0123, 0.0101, 0.0145, "nats/token", "lower"))
        0.0123 nats/token (0.0101 to 0.0145)
    """

    value: float
    low: float | None = None
    """Lower end of the 95 % interval; None where there is none."""
    high: float | None = None
    """Upper end of the 95 % interval."""
    unit: str = ""
    better: str = "lower"
    """"lower", "higher" or "neither"."""

    def __str__(self) -> str:
        shown = f"{self.value:.4g} {self.unit}".rstrip()
        return shown if self.low is None else f"{shown} ({self.low:.4g} to {self.high:.4g})"
