"""What the checks found out about one entry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

OK = "ok"
NOT_APPLICABLE = "n/a"

CHECKS = ("runs", "equals", "ties", "round_trip", "copies", "generate", "bfloat16", "gradients")
"""The fields of `Result` that hold a verdict, in the order of the report."""


@dataclass
class Result:
    """One line of the report. Each check is "ok", "n/a" (with a reason), or says what is wrong."""

    name: str
    family: str
    runs: str = NOT_APPLICABLE
    equals: str = NOT_APPLICABLE
    ties: str = NOT_APPLICABLE
    round_trip: str = NOT_APPLICABLE
    copies: str = NOT_APPLICABLE
    generate: str = NOT_APPLICABLE
    bfloat16: str = NOT_APPLICABLE
    gradients: str = NOT_APPLICABLE
    coverage: float | None = None
    """Share of the bytes of float parameters with two or more dimensions that became int8."""
    published_coverage: float | None = None
    """The same for the library's default size."""
    published_problem: str = ""
    error: float | None = None
    """Largest distance of an output from the twin's, relative to its norm."""
    drift: float | None = None
    """The same distance from the float model: what quantization itself changed."""
    bfloat16_error: float | None = None
    """Median distance of a row from the exact result, of the output that fares worst against the twin."""
    bfloat16_twin_error: float | None = None
    remaining: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    """Weights that stay float: name, shape, reason."""
    seconds: float = 0.0

    @property
    def problems(self) -> dict[str, str]:
        """The checks that failed, with what they said."""
        found = {check: getattr(self, check) for check in CHECKS}
        return {check: text for check, text in found.items() if not passed(text)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def passed(text: str) -> bool:
    """Whether a verdict is no complaint."""
    return text == OK or text.startswith(NOT_APPLICABLE)


assert set(CHECKS) <= {field.name for field in fields(Result)}
