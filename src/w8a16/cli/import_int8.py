"""`w8a16 import SRC DST`: int8 weights of another library become those of this one, code for code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from w8a16.checkpoint import shown
from w8a16.checkpoint.output.stage import check_output, staged
from w8a16.cli.progress import byte_progress, status
from w8a16.cli.quantize_report import announce_leftover
from w8a16.cli.show import console, print_json
from w8a16.cli.side_files import SideFiles, copy_side_files
from w8a16.convert import size
from w8a16.integrations.foreign_int8 import ImportPlan, imported_bytes, plan_import, write_import
from w8a16.integrations.hub import fetch, looks_like_hub_id


@dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    src: str
    dst: Path
    clean: bool
    as_json: bool


def run(request: Request) -> None:
    """Check the output, plan from headers, write to a stage beside DST, and rename it at the end."""
    started = time.perf_counter()
    is_remote = looks_like_hub_id(request.src)
    check_output(None if is_remote else Path(request.src), request.dst)
    source = _fetched(request) if is_remote else Path(request.src)
    with status(f"planning {shown(source)}", enabled=not request.as_json):
        plan = plan_import(source)
    need = imported_bytes(plan)
    with staged(request.dst, need_bytes=need, clean=request.clean, report=announce_leftover) as stage:
        with byte_progress("importing", need, request.as_json) as progress:
            written = write_import(plan, stage.path, lambda done, total: progress(done))
        files = _copy_others(plan, source, stage.path)
    seconds = time.perf_counter() - started
    if request.as_json:
        report = _report(request, plan, written, files, need)
        print_json({**report, "seconds": round(seconds, 3)})
    else:
        _print(request, plan, files, need, seconds)


def _fetched(request: Request) -> Path:
    announce = None if request.as_json else lambda download: console.print(Text(download.sentence()))
    return fetch(request.src, bars=not request.as_json, announce=announce)


def _copy_others(plan: ImportPlan, source: Path, folder: Path) -> SideFiles:
    if not source.is_dir():
        return SideFiles()
    shards = plan.shards
    read = {header.path for header in shards.headers} | {source / "config.json"}
    return copy_side_files(source, folder, read | ({shards.index} if shards.index is not None else set()))


def _kept_float(plan: ImportPlan) -> list[str]:
    return sorted({name for manifest in plan.manifests for name in manifest.kept_float})


def _report(
    request: Request, plan: ImportPlan, written: list[str], files: SideFiles, need: int
) -> dict[str, Any]:
    return {
        "source": request.src,
        "output": str(request.dst),
        "method": plan.found.method,
        "model": plan.model_name,
        "why_names": plan.why_names,
        "imported": sorted(plan.found.weights),
        "kept_float": _kept_float(plan),
        "ignored": list(plan.ignored),
        "notes": list(plan.found.notes),
        "bytes_written": need,
        "files": written,
        "copied": files.copied,
        "left_out": files.left_out,
    }


def _print(request: Request, plan: ImportPlan, files: SideFiles, need: int, seconds: float) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    count, kept = len(plan.found.weights), _kept_float(plan)
    say(f"imported the codes of {count} int8 weights of {plan.found.method} to the bit ({plan.model_name})")
    if plan.why_names:
        say(f"names and shapes told what the tensors are: {shown(plan.why_names)}", "yellow")
    if kept:
        say(f"{len(kept)} weights are float in the source and stay float: {shown(', '.join(kept))}", "yellow")
    for note in plan.found.notes:
        say(note, "yellow")
    if plan.ignored:
        say(f"the model has no place for: {shown(', '.join(plan.ignored))}", "yellow")
    say(f"wrote {shown(request.dst)}: {size(need)} in {seconds:.1f} s")
    say(f"copied {len(files.copied)} files: {shown(', '.join(files.copied))}", "dim")
    if files.left_out:
        say(f"left out: {shown(', '.join(files.left_out))}", "yellow")
