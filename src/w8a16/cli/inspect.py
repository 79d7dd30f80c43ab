"""`w8a16 inspect PATH`: what checkpoints hold. Reads headers only, no tensor."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from w8a16.checkpoint import METADATA_KEY, Checkpoint, Shards, Source, shown, understand
from w8a16.checkpoint.tree import find_checkpoints
from w8a16.cli.inspect_rows import Row, rows_of
from w8a16.cli.show import VERDICT_STYLE, console, print_json, table
from w8a16.convert import size


def run(path: Path, every: bool, weights: str | None, as_json: bool) -> None:
    """Print the modules and tensors of each checkpoint of a path."""
    parts = []
    for place, shards in find_checkpoints(path, weights=weights):
        quantized = any(METADATA_KEY in header.metadata for header in shards.headers)
        checkpoint = understand(shards) if quantized else None
        rows = rows_of(shards, checkpoint.manifest if checkpoint else None)
        if as_json:
            parts.append(_document(place, shards, checkpoint, rows))
        else:
            _print(shards, checkpoint, rows, every)
    if as_json:
        print_json({"path": str(path), "parts": parts})


def _document(place: Path, shards: Shards, checkpoint: Checkpoint | None, rows: list[Row]) -> dict[str, Any]:
    manifest = checkpoint.manifest if checkpoint else None
    sources = [part.source for part in checkpoint.parts] if checkpoint else []
    return {
        "place": place.as_posix(),
        "files": [header.path.name for header in shards.headers],
        "file_bytes": _file_bytes(shards),
        "quantized": manifest is not None,
        "format_version": manifest.version if manifest else None,
        "origin": manifest.origin if manifest else None,
        "sources": [None if source is None else _source(source) for source in sources],
        "tensors": len(shards.tensors),
        "int8_modules": len(manifest.modules) if manifest else 0,
        "ties": manifest.ties if manifest else {},
        "weights": [asdict(row) for row in rows],
    }


def _source(source: Source) -> dict[str, Any]:
    return {**asdict(source), "crc32": None if source.crc32 is None else f"{source.crc32:08x}"}


def _file_bytes(shards: Shards) -> int:
    return sum(header.path.stat().st_size for header in shards.headers)


def _print(shards: Shards, checkpoint: Checkpoint | None, rows: list[Row], every: bool) -> None:
    where = shards.path if len(shards.headers) > 1 else shards.headers[0].path
    count = f"{len(shards.headers)} files, " if len(shards.headers) > 1 else ""
    what = "quantized by w8a16" if checkpoint else "no w8a16 manifest: a float or foreign checkpoint"
    if checkpoint and checkpoint.manifest.origin == "names":
        what += " from tensor names"
    title = f"{shown(where)}: {size(_file_bytes(shards))}, {count}{len(shards.tensors)} tensors, {what}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    groups = [[row] for row in rows] if every else _alike(rows)
    console.print(_table(groups, rows, every))
    if len(groups) < len(rows):
        console.print(
            Text("* stands for the numbers of a stack of layers; --all lists every tensor", style="dim")
        )


def _table(groups: list[list[Row]], rows: list[Row], every: bool) -> Table:
    """One line for each group; where errors are known they take the place of the float bytes."""
    known = any(row.largest_error is not None or row.sqnr_db is not None for row in rows)
    figures = ("stored", "SQNR", "worst") if known else ("float", "stored")
    columns = ("", "n", "shape", *figures, "name")
    result = table(*columns, right=("n", "float", "stored", "SQNR", "worst"))
    for group in groups:
        row = group[0]
        result.add_row(
            Text(row.verdict, style=VERDICT_STYLE.get(row.verdict, "dim")),
            str(len(group)),
            _shape(row) if row.is_weight or every else "",
            *_figures(group, known),
            _name(group, every),
        )
    result.add_section()
    before, after = sum(row.float_bytes for row in rows), sum(row.bytes for row in rows)
    share = f"total: {after / before:.0%} of the float bytes" if before else "total: "
    result.add_row("", str(len(rows)), "", *_figures(rows, known), share)
    return result


def _figures(group: list[Row], known: bool) -> tuple[str, ...]:
    """Bytes; and where known the lowest SQNR in decibels, and the largest error in half-steps."""
    stored = size(sum(row.bytes for row in group))
    if not known:
        return size(sum(row.float_bytes for row in group)), stored
    sqnr = [row.sqnr_db for row in group if row.sqnr_db is not None]
    largest = [row.largest_error for row in group if row.largest_error is not None]
    return stored, f"{min(sqnr):.1f}" if sqnr else "", f"{max(largest):.4f}" if largest else ""


def _shape(row: Row) -> str:
    return f"{'x'.join(map(str, row.shape)) or 'scalar'} {row.dtype}"


def _name(group: list[Row], every: bool) -> Text:
    row = group[0]
    if not row.is_weight and not every:
        return Text("vectors and buffers", style="dim")
    name = row.name if len(group) == 1 else _without_numbers(row.name)
    return Text.assemble(shown(name) or "(the root)", (f"  {row.note}" if row.note else "", "dim"))


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Group weights that differ in the numbers of their names only, and all that is no weight."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        own = (_without_numbers(row.name), row.verdict, row.shape, row.dtype, row.note)
        groups.setdefault(own if row.is_weight else (), []).append(row)
    order = {"int8": 0, "float": 1}

    def rank(group: list[Row]) -> tuple[bool, int, int]:
        first = group[0]
        return (not first.is_weight, order.get(first.verdict, 2), -sum(row.bytes for row in group))

    return sorted(groups.values(), key=rank)


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)
