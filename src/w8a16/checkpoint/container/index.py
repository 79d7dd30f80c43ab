"""The index of a sharded checkpoint: a JSON file that says which shard holds which tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from w8a16.checkpoint.container.disk import create, discard, finish, write_at
from w8a16.checkpoint.container.printable import shown, shown_list
from w8a16.checkpoint.container.regular import open_regular
from w8a16.checkpoint.container.strict_json import JsonCursor
from w8a16.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
_MAX_INDEX = 100_000_000  # bytes; an index of a million tensors has about as many
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Index:
    """A checked index; its shards are plain names of `.safetensors` files that exist beside it."""

    path: Path
    weight_map: dict[str, str]
    """For each tensor the name of the file that holds it."""

    @property
    def shards(self) -> list[Path]:
        """The files, ordered by name."""
        return [self.path.parent / name for name in sorted(set(self.weight_map.values()))]


def read_index(path: Path) -> Index:
    """Read an index and check that every shard it names is a plain name, and is there.

    Raises:
        CheckpointError: not an index, an unsafe or foreign file name, missing shards (all are listed).
        ResourceError: the file cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_INDEX:
            raise CheckpointError(f"{shown(path)}: an index of {size} bytes; expected {_MAX_INDEX} at most")
        raw = file.read(size)
    try:
        weight_map = _weight_map(JsonCursor(raw, "the index"))
        names = sorted(set(weight_map.values()))
        _refuse_names(names)
        missing = [name for name in names if not os.path.lexists(path.parent / name)]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of {len(names)} shards are missing: {shown_list(missing)}; "
                "download them again?"
            )
    except CheckpointError as error:
        raise error.at(shown(path)) from error
    return Index(path, weight_map)


def write_index(path: Path, weight_map: Mapping[str, str], total_size: int) -> None:
    """Write an index: which file holds each tensor, and the bytes of all tensors together.

    Raises:
        ResourceError: the file exists, or the disk is full or fails.
    """
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    fd = create(path)
    try:
        write_at(fd, memoryview((json.dumps(index, indent=2) + "\n").encode()), 0, path)
    except BaseException:
        discard(fd)
        raise
    finish(fd, path)


def is_safe_name(name: str) -> bool:
    """Whether a name means a file in its folder on every system: no separator, drive, stream or device."""
    plain = not any(c in name for c in '/\\:*?"<>|') and name.isprintable() and name not in ("", ".", "..")
    return plain and name.split(".")[0].strip().lower() not in _RESERVED


def _weight_map(cursor: JsonCursor) -> dict[str, str]:
    weight_map: dict[str, str] | None = None
    for key in cursor.members():
        if key != "weight_map":
            cursor.skip()  # the total size and the like: often wrong, never needed
            continue
        if cursor.next() != "{":
            raise CheckpointError("weight_map: expected a map of tensor names to file names")
        weight_map = {}
        for name in cursor.members():
            if cursor.next() != '"':
                raise CheckpointError(f"weight_map: {shown(name)}: expected a file name")
            weight_map[name] = cursor.string()
    cursor.end()
    if not weight_map:
        raise CheckpointError("expected a weight_map of tensor names to file names")
    return weight_map


def _refuse_names(names: list[str]) -> None:
    unsafe = [name for name in names if not is_safe_name(name)]
    if unsafe:
        raise CheckpointError(f"unsafe shard name: {shown_list(map(repr, unsafe))}")
    foreign = [name for name in names if not name.endswith(".safetensors")]
    if foreign:
        raise CheckpointError(f"shard names must end with .safetensors: {shown_list(foreign)}")
