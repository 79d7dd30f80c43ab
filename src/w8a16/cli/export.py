"""`w8a16 export SRC DST --to FORMAT`: an int8 folder in a format that others read without this library."""

from __future__ import annotations

import math
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
from w8a16.errors import UsageError
from w8a16.integrations.compressed_tensors import (
    ExportPlan,
    ScaleRounding,
    output_bytes,
    plan_export,
    scale_rounding,
    write_export,
)
from w8a16.integrations.folder_pair import open_pair

FORMATS = ("compressed-tensors",)
SCALES = ("float32", "model-dtype")


@dataclass(frozen=True)
class Request:
    """The arguments of the command."""

    src: Path
    dst: Path
    to: str
    scales: str
    float_source: Path | None
    pack_head: bool
    check: bool
    clean: bool
    as_json: bool


def run(request: Request) -> None:
    """Check the output, plan from headers, write to a stage beside DST, and rename it at the end."""
    started = time.perf_counter()
    if request.to not in FORMATS:
        raise UsageError(f"--to: expected one of {', '.join(FORMATS)}, got {request.to!r}")
    model_scales = _wants_model_scales(request)
    check_output(request.src, request.dst)
    with status(f"planning {shown(request.src)}", enabled=not request.as_json):
        plan = plan_export(
            request.src, pack_head=request.pack_head, model_scales=model_scales, check=request.check
        )
        if model_scales and not plan.has_rounded_scales:
            raise UsageError("--scales model-dtype: the model is float32, which holds its scales as they are")
        pair = open_pair(request.float_source, request.src) if request.float_source is not None else None
        rounding = scale_rounding(plan)
    need = output_bytes(plan)
    with staged(request.dst, need_bytes=need, clean=request.clean, report=announce_leftover) as stage:
        with byte_progress("exporting", need, request.as_json) as progress:
            written = write_export(
                plan, stage.path, lambda done, total: progress(done), pair.weights if pair else None
            )
        files = _copy_others(plan, request.src, stage.path)
    report = _report(request, plan, rounding, written, files, need)
    seconds = time.perf_counter() - started
    if request.as_json:
        print_json({**report, "seconds": round(seconds, 3)})
    else:
        _print(request, plan, rounding, files, need, seconds)


def _wants_model_scales(request: Request) -> bool:
    if request.scales not in SCALES:
        raise UsageError(f"--scales: expected one of {', '.join(SCALES)}, got {request.scales!r}")
    wanted = request.scales == "model-dtype"
    if wanted and request.float_source is None:
        raise UsageError("--scales model-dtype: codes are made anew, for which --float FOLDER is needed")
    if not wanted and request.float_source is not None:
        raise UsageError("--float: the float weights are needed for --scales model-dtype only")
    return wanted


def _copy_others(plan: ExportPlan, source: Path, folder: Path) -> SideFiles:
    shards = plan.checkpoint.shards
    read = {header.path for header in shards.headers} | {source / "config.json"}
    return copy_side_files(source, folder, read | ({shards.index} if shards.index is not None else set()))


def _report(
    request: Request,
    plan: ExportPlan,
    rounding: ScaleRounding | None,
    written: list[str],
    files: SideFiles,
    need: int,
) -> dict[str, Any]:
    return {
        "source": str(request.src),
        "output": str(request.dst),
        "format": request.to,
        "scales": request.scales,
        "packed": sorted(part.name for choice in plan.choices for part in choice.parts),
        "dequantized": {choice.key: choice.reason for choice in plan.dequantized},
        "checked": plan.checked,
        "scale_rounding": None if rounding is None else _rounding(rounding),
        "bytes_written": need,
        "files": written,
        "copied": files.copied,
        "left_out": files.left_out,
    }


def _rounding(rounding: ScaleRounding) -> dict[str, Any]:
    db = rounding.sqnr_db
    return {
        "dtype": str(rounding.dtype).removeprefix("torch."),
        "scales": rounding.scales,
        "largest": rounding.largest,
        "root_mean_square": rounding.root_mean_square,
        "sqnr_db": None if math.isinf(db) else round(db, 2),
    }


def _print(
    request: Request,
    plan: ExportPlan,
    rounding: ScaleRounding | None,
    files: SideFiles,
    need: int,
    seconds: float,
) -> None:
    packed = sum(len(choice.parts) for choice in plan.choices)
    whose = "the source" if request.float_source is None else f"{shown(request.float_source)}, made anew"
    console.print(Text(f"{packed} layers are int8, with the codes and scales of {whose}"), soft_wrap=True)
    for choice in plan.dequantized:
        console.print(
            Text(f"float again: {shown(choice.key)} ({choice.reason})", style="yellow"), soft_wrap=True
        )
    if not plan.checked:
        why = "compressed-tensors is not installed" if request.check else "--no-check"
        text = f"whether transformers can load it was not checked ({why})"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    if rounding is not None:
        dtype = str(rounding.dtype).removeprefix("torch.")
        text = (
            f"scales are float32 here; vLLM casts them to {dtype}, which changes weights by "
            f"{rounding.largest:.2%} at most, {rounding.root_mean_square:.2%} as a root mean square "
            f"({rounding.sqnr_db:.1f} dB)"
        )
        console.print(Text(text, style="yellow"), soft_wrap=True)
    console.print(Text(f"wrote {shown(request.dst)}: {size(need)} in {seconds:.1f} s"), soft_wrap=True)
    console.print(Text(f"copied {len(files.copied)} files: {shown(', '.join(files.copied))}", style="dim"))
    if files.left_out:
        console.print(Text(f"left out: {shown(', '.join(files.left_out))}", style="yellow"))
