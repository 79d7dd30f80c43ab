"""Checkpoints of several files, cut from a saved one: each with the manifest of its own tensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.files import read_raw

INDEX = "model.safetensors.index.json"


def shard_name(number: int, count: int) -> str:
    """The name that transformers gives the shard with this number, counted from 0."""
    return f"model-{number + 1:05}-of-{count:05}.safetensors"


def split_checkpoint(file: Path, folder: Path, shard_of: Callable[[str], int]) -> Path:
    """Write the tensors of `file` into several files below `folder`, each into the one that is asked for."""
    header, data = read_raw(file)
    metadata = header.pop("__metadata__")
    manifest = json.loads(metadata["w8a16"])
    places = {name: shard_of(name) for name in header}
    count = max(places.values()) + 1
    folder.mkdir()
    for number in range(count):
        names = [name for name in header if places[name] == number]
        part = manifest_part(manifest, set(names))
        write_shard(folder / shard_name(number, count), header, names, data, part)
    weight_map = {name: shard_name(number, count) for name, number in sorted(places.items())}
    index = {"metadata": {"total_size": len(data)}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2))
    return folder


def manifest_part(manifest: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """What a manifest says about these tensors."""
    ties = {alias: name for alias, name in manifest["ties"].items() if name in names}
    here = names | set(ties)
    modules = {}
    for path, record in manifest["modules"].items():
        weights = {name: w for name, w in record["weights"].items() if _codes_key(path, name) in here}
        if weights:
            modules[path] = {**record, "weights": weights}
    return {
        **manifest,
        "modules": modules,
        "ties": ties,
        "kept_float": {name: why for name, why in manifest["kept_float"].items() if name in here},
        "non_persistent_buffers": [name for name in manifest["non_persistent_buffers"] if name in here],
        "checksums": {name: crc for name, crc in manifest["checksums"].items() if name in names},
    }


def write_shard(
    path: Path, header: dict[str, Any], names: list[str], data: bytes, manifest: dict[str, Any]
) -> None:
    """One file with some of the tensors of another."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt", "w8a16": json.dumps(manifest)}}
    parts, offset = [], 0
    for name in names:
        begin, end = header[name]["data_offsets"]
        fields[name] = {**header[name], "data_offsets": [offset, offset + end - begin]}
        parts.append(data[begin:end])
        offset += end - begin
    text = json.dumps(fields).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def _codes_key(path: str, name: str) -> str:
    own = "int8_weights" if name == "weight" else f"{name}_int8_weights"
    return f"{path}.{own}" if path else own
