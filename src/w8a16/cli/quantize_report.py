"""What `w8a16 quantize` did, or would do, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from w8a16.checkpoint import shown
from w8a16.checkpoint.output.leftovers import Leftover
from w8a16.checkpoint.streaming import CheckpointWork, Outcome
from w8a16.cli.show import console, plan_table
from w8a16.cli.side_files import SideFiles
from w8a16.convert import size


@dataclass(frozen=True)
class PartReport:
    """One model of the source."""

    place: Path
    work: CheckpointWork
    why_names: str | None
    """Why names and shapes had to tell what its tensors are."""
    outcome: Outcome | None
    """None where nothing was written."""


@dataclass(frozen=True)
class Report:
    """The whole run."""

    source: str
    output: Path | None
    parts: list[PartReport]
    files: SideFiles
    seconds: float

    @property
    def bytes_read(self) -> int:
        """Bytes of the source's weight files."""
        return sum(part.work.source_bytes for part in self.parts)

    @property
    def bytes_written(self) -> int:
        """Bytes of the weight files and indexes that were written."""
        return sum(part.outcome.bytes_written for part in self.parts if part.outcome)


def report_json(report: Report) -> dict[str, Any]:
    """The document of `--json`."""
    return {
        "source": report.source,
        "output": None if report.output is None else str(report.output),
        "bytes_read": report.bytes_read,
        "bytes_written": report.bytes_written,
        "seconds": round(report.seconds, 3),
        "copied": report.files.copied,
        "left_out": report.files.left_out,
        "parts": [_part_json(part) for part in report.parts],
    }


def print_report(report: Report) -> None:
    """A table for each part, then what was written."""
    for part in report.parts:
        _print_part(part, report.output is None)
    if report.output is None:
        console.print("dry run: nothing was written")
        return
    rate = report.bytes_read / max(report.seconds, 1e-9)
    console.print(
        Text(
            f"wrote {shown(report.output)}: {size(report.bytes_read)} became {size(report.bytes_written)} "
            f"in {report.seconds:.1f} s ({size(int(rate))}/s)"
        )
    )
    copied = f"copied {len(report.files.copied)} files: {shown(', '.join(report.files.copied))}"
    console.print(Text(copied, style="dim"))
    if report.files.left_out:
        console.print(Text(f"left out: {shown(', '.join(report.files.left_out))}", style="yellow"))
    console.print(Text(f"see it: w8a16 inspect {shown(report.output)}", style="dim"))


def announce_leftover(leftover: Leftover) -> None:
    """Say on standard error what another run left beside the output."""
    what = f"{shown(leftover.path)} ({size(leftover.size)}, {_age(leftover.seconds)} old)"
    if leftover.removed:
        text = f"removed what an interrupted run left: {what}"
    elif leftover.abandoned:
        text = f"an interrupted run left {what}; --clean removes it"
    else:
        text = f"another run may be writing {what}"
    Console(stderr=True).print(Text(text, style="yellow"), soft_wrap=True)


def _print_part(part: PartReport, dry_run: bool) -> None:
    what = "plan" if dry_run else "quantized"
    place = "" if part.place == Path() else f"{shown(part.place)}: "
    console.print(plan_table(part.work.plan, f"{place}{part.work.model_name}, {what}"))
    if part.why_names is not None:
        note = f"what each tensor is was told from its name and shape: {part.why_names}"
        console.print(Text(note, style="yellow"))
    for names, note in (
        (list(part.work.ignored), "left out, the model has no place for them"),
        ([f"{a} = {b}" for a, b in part.work.duplicates.items()], "tied weights, stored once now"),
    ):
        if names:
            console.print(Text(f"{note}: {shown(', '.join(names))}", style="yellow"))
    if part.outcome and part.outcome.zero_rows + part.outcome.underflow_rows:
        rows = f"{part.outcome.zero_rows} rows are zeros, {part.outcome.underflow_rows} too small for a scale"
        console.print(Text(f"{rows} (stored as zeros)", style="dim"))


def _part_json(part: PartReport) -> dict[str, Any]:
    outcome = part.outcome
    return {
        "place": part.place.as_posix(),
        "model": part.work.model_name,
        "origin": part.work.origin,
        "why_names": part.why_names,
        "ignored": list(part.work.ignored),
        "duplicates": part.work.duplicates,
        "files": list(outcome.files) if outcome else [],
        "zero_rows": outcome.zero_rows if outcome else None,
        "underflow_rows": outcome.underflow_rows if outcome else None,
        "plan": part.work.plan.to_dict(),
    }


def _age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
