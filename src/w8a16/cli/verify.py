"""`w8a16 verify PATH [--source SRC]`: is a quantized checkpoint whole, and true to what it was made from?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from w8a16.checkpoint import Checkpoint, shown, understand
from w8a16.checkpoint.tree import find_checkpoints
from w8a16.checkpoint.verification import Original, Report, verify_checkpoint
from w8a16.cli.progress import byte_progress
from w8a16.cli.show import console, print_json, table
from w8a16.convert import size
from w8a16.errors import CheckpointError, UsageError
from w8a16.integrations.parts import Part, find_parts, skeleton_of

NOT_VERIFIED = 3
"""The exit code where something is wrong."""
_LISTED = 20


@dataclass(frozen=True)
class _Section:
    """One checkpoint of the path."""

    place: Path
    checkpoint: Checkpoint
    original: Original | None
    note: str | None
    """Why names were used to find the original of a weight."""


def run(path: Path, source: Path | None, weights: str | None, as_json: bool) -> int:
    """Verify every checkpoint of the path; returns the exit code."""
    opened = [(place, understand(shards)) for place, shards in find_checkpoints(path, weights=weights)]
    originals = {} if source is None else {part.place: part for part in find_parts(source)}
    sections = [_section(place, checkpoint, source, originals) for place, checkpoint in opened]
    reports = []
    total, before = sum(_bytes(section) for section in sections), 0
    with byte_progress("verifying", total, as_json) as progress:
        for section in sections:
            start, own = before, _bytes(section)
            reports.append(
                verify_checkpoint(
                    section.checkpoint,
                    section.original,
                    lambda done, of, start=start, own=own: progress(  # type: ignore[misc]
                        start + own * done // max(of, 1)
                    ),
                )
            )
            before += own
    failed = any(report.findings for report in reports)
    if as_json:
        print_json({"path": str(path), "ok": not failed, "parts": _documents(sections, reports)})
    else:
        for section, report in zip(sections, reports, strict=True):
            _print(path / section.place, section, report)
    return NOT_VERIFIED if failed else 0


def _section(
    place: Path, checkpoint: Checkpoint, source: Path | None, originals: dict[Path, Part]
) -> _Section:
    if source is None:
        return _Section(place, checkpoint, None, None)
    part = originals.get(place)
    if part is None:
        known = ", ".join(shown(each) for each in originals)
        raise UsageError(f"--source {shown(source)}: expected a model at {shown(place)}, found {known}")
    if checkpoint.manifest.origin == "names":
        return _Section(place, checkpoint, Original(part.shards, {}), None)
    try:
        skeleton, why_names = skeleton_of(part)
    except CheckpointError as error:
        return _Section(place, checkpoint, Original(part.shards, {}), str(error))
    return _Section(place, checkpoint, Original(part.shards, skeleton.sources), why_names)


def _bytes(section: _Section) -> int:
    files = [section.checkpoint.shards, *([section.original.shards] if section.original else [])]
    return sum(info.size for shards in files for info in shards.tensors.values())


def _documents(sections: list[_Section], reports: list[Report]) -> list[dict[str, Any]]:
    return [
        {
            "place": section.place.as_posix(),
            "ok": not report.findings,
            "format_version": section.checkpoint.manifest.version,
            "note": section.note,
            **asdict(report),
        }
        for section, report in zip(sections, reports, strict=True)
    ]


def _print(path: Path, section: _Section, report: Report) -> None:
    console.print(Text(f"{shown(path)}: {_summary(section, report)}", style="bold"), soft_wrap=True)
    if section.note:
        console.print(Text(f"originals were found by name: {shown(section.note)}", style="yellow"))
    if report.lowest_codes:
        console.print(Text(f"{report.lowest_codes} codes are -128, which w8a16 never writes", style="yellow"))
    names = list(report.not_compared)
    for name in names[:_LISTED]:
        text = f"not compared: {shown(name)}: {shown(report.not_compared[name])}"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    if len(names) > _LISTED:
        console.print(Text(f"... and {len(names) - _LISTED} more; --json lists all", style="yellow"))
    if not report.findings:
        console.print(Text("all is well", style="green"))
        return
    result = table("tensor", "count", "first", "what is wrong", right=("count",))
    for finding in report.findings:
        first = "" if finding.first is None else str(list(finding.first))
        count = "" if finding.count is None else str(finding.count)
        result.add_row(Text(shown(finding.tensor), style="red"), count, first, Text(shown(finding.problem)))
    console.print(result)


def _summary(section: _Section, report: Report) -> str:
    parts = [f"{report.tensors} tensors, {size(report.bytes)}"]
    version = section.checkpoint.manifest.version
    parts.append(f"{report.checksums} checksums" if version > 1 else "no checksums (format 1)")
    if section.original is not None:
        parts.append(f"{report.compared} compared with the original")
    return ", ".join(parts)
