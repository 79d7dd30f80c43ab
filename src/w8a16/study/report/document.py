"""The report as data: one versioned JSON document, from which the pages can be made again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w8a16.errors import CheckpointError
from w8a16.study.compare import Comparison
from w8a16.study.report.histogram import WorstLayer
from w8a16.study.speed import Measurement

FORMAT = "w8a16-report"
VERSION = 1


@dataclass(frozen=True)
class SpeedRow:
    """The time of one linear layer shape at one batch size: medians, seconds a call."""

    shape: str
    """As in "1536x384": outputs x inputs."""
    layers: int
    """How many layers of the model have it."""
    batch: int
    dtype: str
    float_seconds: float
    int8_seconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than float int8 is."""
        return self.float_seconds / self.int8_seconds

    @classmethod
    def of(cls, measurement: Measurement) -> SpeedRow:
        """The figures of a measurement that a report shows."""
        return cls(
            shape=str(measurement.shape),
            layers=measurement.shape.count,
            batch=measurement.batch,
            dtype=str(measurement.dtype).removeprefix("torch."),
            float_seconds=measurement.float_time.median,
            int8_seconds=measurement.int8_time.median,
        )


@dataclass(frozen=True)
class Report:
    """Everything that the pages show."""

    comparison: Comparison
    worst: WorstLayer | None = None
    speed: tuple[SpeedRow, ...] = ()
    notes: tuple[str, ...] = ()
    """What to know before believing the figures, in whole sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the name and the version of the format."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "notes": list(self.notes),
            "comparison": self.comparison.to_dict(),
            "worst_layer": self.worst.to_dict() if self.worst else None,
            "speed": [asdict(row) for row in self.speed],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """The inverse of `to_dict`.

        Raises:
            CheckpointError: not a report, one of another version, or one with something missing.
        """
        if data.get("format") != FORMAT:
            raise CheckpointError(f'expected a report ("format": "{FORMAT}")')
        if data.get("version") != VERSION:
            raise CheckpointError(f"expected a report of version {VERSION}, got {data.get('version')!r}")
        try:
            worst = data["worst_layer"]
            return cls(
                comparison=Comparison.from_dict(data["comparison"]),
                worst=WorstLayer.from_dict(worst) if worst else None,
                speed=tuple(SpeedRow(**row) for row in data["speed"]),
                notes=tuple(data.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"a report with something missing or out of place: {error!r}") from error


def report_json(report: Report) -> str:
    """The document as text: strict JSON, the same bytes for the same report."""
    return json.dumps(report.to_dict(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def read_report(path: str | Path) -> Report:
    """Read a JSON report.

    Raises:
        CheckpointError: the file is not such a report.
        OSError: it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: expected a JSON report: {error}") from error
    try:
        return Report.from_dict(data if isinstance(data, dict) else {})
    except CheckpointError as error:
        raise error.at(str(path)) from error.__cause__
