"""`w8a16 dequantize SRC DST`: a quantized checkpoint becomes a float one, from files to files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from w8a16.checkpoint import Checkpoint, shown, understand
from w8a16.checkpoint.output.stage import check_output, staged
from w8a16.checkpoint.restoring import RestoredFile, plan_restoring, restore_checkpoint, restored_bytes
from w8a16.checkpoint.tree import find_checkpoints
from w8a16.cli.progress import byte_progress
from w8a16.cli.quantize_report import announce_leftover
from w8a16.cli.show import console, print_json
from w8a16.cli.side_files import SideFiles, copy_side_files
from w8a16.convert import size
from w8a16.integrations.int8_note import remove_note


@dataclass(frozen=True)
class _Section:
    """One checkpoint of the source."""

    place: Path
    checkpoint: Checkpoint
    planned: list[RestoredFile]


def run(src: Path, dst: Path, weights: str | None, clean: bool, as_json: bool) -> None:
    """Check the output, plan from headers, write to a stage beside DST, and rename it at the end."""
    started = time.perf_counter()
    check_output(src, dst)
    sections = []
    for place, shards in find_checkpoints(src, weights=weights):
        checkpoint = understand(shards)
        sections.append(_Section(place, checkpoint, plan_restoring(checkpoint)))
    need = sum(restored_bytes(section.planned) for section in sections)
    with staged(dst, need_bytes=need, clean=clean, report=announce_leftover) as stage:
        written = _write(sections, stage.path, need, as_json)
        files = _copy_others(src, sections, stage.path)
    seconds = time.perf_counter() - started
    if as_json:
        document = {"source": str(src), "output": str(dst), "bytes_written": need, "files": written}
        others = {"copied": files.copied, "left_out": files.left_out}
        print_json({**document, **others, "seconds": round(seconds, 3)})
        return
    console.print(Text(f"wrote {shown(dst)}: {size(need)} in {seconds:.1f} s"), soft_wrap=True)
    console.print(Text(f"copied {len(files.copied)} files: {shown(', '.join(files.copied))}", style="dim"))
    if files.left_out:
        console.print(Text(f"left out: {shown(', '.join(files.left_out))}", style="yellow"))


def _write(sections: list[_Section], folder: Path, total: int, as_json: bool) -> list[str]:
    written, before = [], 0
    with byte_progress("dequantizing", total, as_json) as progress:
        for section in sections:
            target = folder / section.place
            target.mkdir(exist_ok=True)
            names = restore_checkpoint(
                section.checkpoint,
                section.planned,
                target,
                lambda done, of, before=before: progress(before + done),  # type: ignore[misc]
            )
            written += [(section.place / name).as_posix() for name in names]
            before += restored_bytes(section.planned)
    return written


def _copy_others(src: Path, sections: list[_Section], folder: Path) -> SideFiles:
    if not src.is_dir():
        return SideFiles()
    shards = [section.checkpoint.shards for section in sections]
    read = {header.path for each in shards for header in each.headers}
    files = copy_side_files(src, folder, read | {each.index for each in shards if each.index is not None})
    for section in sections:
        remove_note(folder / section.place)
    return files
