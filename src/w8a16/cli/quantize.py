"""`w8a16 quantize SRC DST`: float checkpoints become int8 ones, from files to files."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from w8a16.checkpoint import shown
from w8a16.checkpoint.output.stage import check_output, staged
from w8a16.checkpoint.streaming import CheckpointWork, Options, Outcome, plan_checkpoint
from w8a16.cli.progress import byte_progress, status
from w8a16.cli.quantize_report import PartReport, Report, announce_leftover, print_report, report_json
from w8a16.cli.show import console, print_json
from w8a16.cli.side_files import SideFiles, copy_side_files
from w8a16.convert import Recipe, recipe_of
from w8a16.errors import CheckpointError, UsageError
from w8a16.integrations.foreign_int8 import has_int8
from w8a16.integrations.hub import fetch, looks_like_hub_id
from w8a16.integrations.int8_note import add_note
from w8a16.integrations.parts import Part, find_parts, skeleton_of

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


@dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    src: str
    dst: Path
    options: Options
    by_name: bool
    weights: str | None
    memory: int
    dry_run: bool
    clean: bool
    as_json: bool


@dataclass(frozen=True)
class _Planned:
    part: Part
    work: CheckpointWork
    why_names: str | None


def run(request: Request) -> None:
    """Check the output, plan from headers, write to a stage beside DST, and rename it at the end."""
    started = time.perf_counter()
    check_output(None if looks_like_hub_id(request.src) else Path(request.src), request.dst)
    source = _locate(request)
    planned = _plan(request, source)
    if request.dry_run:
        _report(request, planned, None, SideFiles(), time.perf_counter() - started)
        return
    _refuse_nothing(source, planned)
    need = sum(each.work.output_bytes for each in planned)
    with staged(request.dst, need_bytes=need, clean=request.clean, report=announce_leftover) as stage:
        outcomes = _write(request, planned, stage.path)
        with status("copying the other files", enabled=not request.as_json):
            files = _copy_others(source, planned, stage.path)
    _report(request, planned, outcomes, files, time.perf_counter() - started)


def read_recipe(
    path: Path | None, include: list[str] | None, exclude: list[str] | None, kinds: list[str] | None
) -> Recipe:
    """The recipe of the options, or that of the file, which takes their place."""
    stored = None if path is None else Recipe.load(path)
    return recipe_of(include or None, exclude or None, kinds or None, stored)


def parse_size(text: str) -> int:
    """`"512MiB"`, `"2 GB"` or a number of bytes."""
    match = re.fullmatch(r"\s*(\d{1,15})\s*([a-zA-Z]*)\s*", text, flags=re.ASCII)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"--memory: expected a size such as 512MiB or 2GB, got {text!r}")
    return int(match[1]) * unit


def _locate(request: Request) -> Path:
    """The source on this machine; a hub id is downloaded."""
    if not looks_like_hub_id(request.src):
        return Path(request.src)
    announce = None if request.as_json else lambda download: console.print(Text(download.sentence()))
    return fetch(request.src, bars=not request.as_json, announce=announce)


def _plan(request: Request, source: Path) -> list[_Planned]:
    planned = []
    name = request.src if looks_like_hub_id(request.src) else source.resolve().name
    for part in _parts(source, request.weights):
        with status(f"planning {shown(part.shards.path)}", enabled=not request.as_json):
            try:
                skeleton, why_names = skeleton_of(part, by_name=request.by_name)
                work = plan_checkpoint(part.shards, skeleton, request.options, source_name=name)
            except CheckpointError as error:
                if request.by_name or part.library is None:
                    raise
                hint = "--by-name goes by the names and shapes of the tensors instead of the class"
                raise error.followed_by(hint) from error
        planned.append(_Planned(part, work, why_names))
    return planned


def _parts(source: Path, weights: str | None) -> list[Part]:
    """The models of the source; int8 ones of another library have a command of their own."""
    try:
        return find_parts(source, weights=weights)
    except CheckpointError as error:
        if has_int8(source):
            raise error.followed_by("w8a16 import takes over its int8 codes as they are") from error
        raise


def _refuse_nothing(source: Path, planned: list[_Planned]) -> None:
    rows = [row for each in planned for row in each.work.plan.rows]
    if not any(row.verdict == "int8" for row in rows):
        reasons = "; ".join(sorted({row.sentence for row in rows})) or "it has no weight with two dimensions"
        raise CheckpointError(
            f"{shown(source)}: nothing would become int8 ({shown(reasons)}); --dry-run shows every weight"
        )


def _write(request: Request, planned: list[_Planned], folder: Path) -> list[Outcome]:
    total = sum(each.work.source_bytes for each in planned)
    outcomes, before = [], 0
    with byte_progress("quantizing", total, request.as_json) as progress:
        for each in planned:
            target = folder / each.part.place
            target.mkdir(exist_ok=True)
            size, start = each.work.source_bytes, before
            outcomes.append(
                each.work.run(
                    target,
                    memory=request.memory,
                    progress=lambda done, of, start=start, size=size: progress(  # type: ignore[misc]
                        start + size * done // max(of, 1)
                    ),
                )
            )
            before += size
    return outcomes


def _copy_others(source: Path, planned: list[_Planned], folder: Path) -> SideFiles:
    if not source.is_dir():
        return SideFiles()
    read = {header.path for each in planned for header in each.work.shards.headers}
    read |= {each.work.shards.index for each in planned if each.work.shards.index is not None}
    files = copy_side_files(source, folder, read)
    for each in planned:
        if each.part.library == "transformers":
            add_note(folder / each.part.place)
    return files


def _report(
    request: Request,
    planned: list[_Planned],
    outcomes: list[Outcome] | None,
    files: SideFiles,
    seconds: float,
) -> None:
    parts = [
        PartReport(each.part.place, each.work, each.why_names, outcomes[i] if outcomes else None)
        for i, each in enumerate(planned)
    ]
    report = Report(request.src, None if outcomes is None else request.dst, parts, files, seconds)
    if request.as_json:
        print_json(report_json(report))
    else:
        print_report(report)
