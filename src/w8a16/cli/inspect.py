"""`w8a16 inspect PATH`: what a checkpoint holds. Reads headers only, no tensor."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from rich.text import Text

from w8a16.checkpoint import (
    METADATA_KEY,
    Header,
    Manifest,
    open_shards,
    read_manifest,
    shown,
)
from w8a16.cli.show import VERDICT_STYLE, console, print_json, table
from w8a16.convert import REASONS, size
from w8a16.layers import int8_names


def run(path: Path, every: bool, as_json: bool) -> None:
    """Print the modules and tensors of one file."""
    header = open_shards(path).headers[0]
    manifest = read_manifest(header) if METADATA_KEY in header.metadata else None
    rows = _rows(header, manifest)
    if as_json:
        print_json(_summary(header, manifest) | {"weights": rows})
    else:
        _print(header, manifest, rows, every)


def _rows(header: Header, manifest: Manifest | None) -> list[dict[str, Any]]:
    """One row for each weight, by name: int8 modules from the manifest, all other tensors as stored."""
    rows, used = [], set()
    for path, record in manifest.modules.items() if manifest else []:
        for weight, (layout, codes_shape) in record.codes.items():
            keys = [f"{path}.{name}" if path else name for name in sorted(int8_names([weight]))]
            used.update(keys)
            stored = [header.tensors[key].size for key in keys if key in header.tensors]
            name = path if weight == "weight" else f"{path}.{weight}" if path else weight
            rows.append(
                {
                    "name": name,
                    "verdict": "int8",
                    "shape": list(layout.float_shape(codes_shape)),
                    "dtype": str(record.weight_dtype).removeprefix("torch."),
                    "float_bytes": math.prod(codes_shape) * record.weight_dtype.itemsize,
                    "bytes": sum(stored),
                    "note": "" if stored else "shares the tensors of another module",
                }
            )
    for name, info in header.tensors.items():
        if name not in used:
            reason = manifest.kept_float.get(name, "") if manifest else ""
            rows.append(
                {
                    "name": name,
                    "verdict": "float" if info.dtype.is_floating_point else "other",
                    "shape": list(info.shape),
                    "dtype": str(info.dtype).removeprefix("torch."),
                    "float_bytes": info.size,
                    "bytes": info.size,
                    "note": REASONS.get(reason, shown(reason)),
                }
            )
    return sorted(rows, key=lambda row: (row["verdict"] != "int8", -row["bytes"], row["name"]))


def _summary(header: Header, manifest: Manifest | None) -> dict[str, Any]:
    return {
        "file": str(header.path),
        "file_bytes": header.path.stat().st_size,
        "quantized": manifest is not None,
        "source": manifest.source.name if manifest and manifest.source else None,
        "tensors": len(header.tensors),
        "int8_modules": len(manifest.modules) if manifest else 0,
        "ties": manifest.ties if manifest else {},
    }


def _print(header: Header, manifest: Manifest | None, rows: list[dict[str, Any]], every: bool) -> None:
    what = "quantized by w8a16" if manifest else "no w8a16 manifest: a float or foreign checkpoint"
    title = f"{shown(header.path)}: {size(header.path.stat().st_size)}, {len(header.tensors)} tensors, {what}"
    console.print(Text(title, style="bold"), soft_wrap=True)
    groups = [[row] for row in rows] if every else _alike(rows)
    result = table("", "n", "shape", "float", "stored", "name", right=("n", "float", "stored"))
    for group in groups:
        row = group[0]
        result.add_row(
            Text(row["verdict"], style=VERDICT_STYLE.get(row["verdict"], "dim")),
            str(len(group)),
            _shape(row) if _is_weight(row) or every else "",
            size(sum(r["float_bytes"] for r in group)),
            size(sum(r["bytes"] for r in group)),
            _name(group, every),
        )
    result.add_section()
    before, after = sum(r["float_bytes"] for r in rows), sum(r["bytes"] for r in rows)
    share = f"{after / before:.0%} of the float bytes" if before else ""
    result.add_row("", str(len(rows)), "", size(before), size(after), f"total: {share}")
    console.print(result)
    if len(groups) < len(rows):
        console.print(
            Text("* stands for the numbers of a stack of layers; --all lists every tensor", style="dim")
        )


def _is_weight(row: dict[str, Any]) -> bool:
    return row["verdict"] == "int8" or (row["verdict"] == "float" and len(row["shape"]) >= 2)


def _shape(row: dict[str, Any]) -> str:
    return f"{'x'.join(map(str, row['shape'])) or 'scalar'} {row['dtype']}"


def _name(group: list[dict[str, Any]], every: bool) -> Text:
    row = group[0]
    if not _is_weight(row) and not every:
        return Text("vectors and buffers", style="dim")
    name = row["name"] if len(group) == 1 else _without_numbers(row["name"])
    return Text.assemble(shown(name) or "(the root)", (f"  {row['note']}" if row["note"] else "", "dim"))


def _alike(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group weights that differ in the numbers of their names only, and all that is no weight."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        own = (_without_numbers(row["name"]), row["verdict"], tuple(row["shape"]), row["dtype"], row["note"])
        groups.setdefault(own if _is_weight(row) else (), []).append(row)
    order = {"int8": 0, "float": 1}

    def rank(group: list[dict[str, Any]]) -> tuple[bool, int, int]:
        first = group[0]
        return (not _is_weight(first), order.get(first["verdict"], 2), -sum(r["bytes"] for r in group))

    return sorted(groups.values(), key=rank)


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "*", name)
