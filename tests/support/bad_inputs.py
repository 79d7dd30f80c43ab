"""Broken and hostile checkpoints, each with the error that opening it must give.

Every builder gets a folder and puts weights into it; the folder is what is opened.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.files import write_raw
from w8a16.errors import CheckpointError, ResourceError, W8A16Error

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class BadInput:
    """One broken checkpoint."""

    name: str
    build: Callable[[Path], object]
    parts: tuple[str, ...]
    """What the message must contain, besides the path of the folder."""
    error: type[W8A16Error] = CheckpointError


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    """A header's entry; by default four bytes that begin the data."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _bytes(name: str, content: bytes, *parts: str) -> BadInput:
    return BadInput(name, lambda folder: (folder / FILE).write_bytes(content), (FILE, *parts))


def _header(name: str, header: object, size: int, *parts: str) -> BadInput:
    return BadInput(name, lambda folder: write_raw(folder / FILE, header, bytes(size)), (FILE, *parts))


def _index(name: str, index: object, *parts: str) -> BadInput:
    """An index beside two shards: a.safetensors with the tensors a and b, c.safetensors with c."""

    def build(folder: Path) -> None:
        write_raw(folder / "a.safetensors", {"a": entry(), "b": entry(offsets=(4, 8))}, bytes(8))
        write_raw(folder / "c.safetensors", {"c": entry()}, bytes(4))
        (folder / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))

    return BadInput(name, build, (INDEX, *parts))


def _shard(name: str, *parts: str) -> BadInput:
    return _index(f"shard name {name!r}", {"weight_map": {"a": "a.safetensors", "z": name}}, *parts)


def _weight_map(name: str, change: dict[str, str | None], *parts: str) -> BadInput:
    right = {"a": "a.safetensors", "b": "a.safetensors", "c": "c.safetensors"}
    changed = {key: file for key, file in (right | change).items() if file is not None}
    return _index(name, {"weight_map": changed}, "does not match its shards", *parts)


def _sparse(folder: Path, size: int, start: bytes) -> None:
    with (folder / FILE).open("wb") as file:
        file.write(start)
        file.truncate(size)


def _twice(folder: Path) -> None:
    write_raw(folder / "a.safetensors", {"a": entry()}, bytes(4))
    write_raw(folder / "b.safetensors", {"a": entry()}, bytes(4))
    (folder / INDEX).write_text('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}')


def _both(folder: Path) -> None:
    write_raw(folder / FILE, {"a": entry()}, bytes(4))
    (folder / INDEX).write_text("{}")


_ONE = json.dumps(entry())
_DEEP = 200_000
_LONG = "9" * 5000

TRUNCATED = [
    _bytes("0 bytes", b"", "no header length in a file of 0 bytes"),
    _bytes("4 bytes", b"1234", "no header length in a file of 4 bytes"),
    _bytes("header past the end", struct.pack("<Q", 3) + b"{}", "a header of 3 bytes in a file of 10 bytes"),
    _bytes(
        "header of 2**64-1",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        f"a header of {2**64 - 1} bytes",
        "10 bytes",
    ),
    BadInput(
        "a header that is too long",
        lambda folder: _sparse(folder, 10**8 + 9, struct.pack("<Q", 10**8 + 1) + b"{"),
        (FILE, f"a header of {10**8 + 1} bytes", "100000000 at most"),
    ),
    BadInput(
        "100 MB of zeros as header",
        lambda folder: _sparse(folder, 10**8 + 8, struct.pack("<Q", 10**8)),
        (FILE, "the header is not a JSON object"),
    ),
    _header(
        "8 bytes cut off", {"a": entry(shape=(32,), offsets=(0, 128))}, 120, "expected ", "found ", "download"
    ),
    _header("trailing bytes", {"a": entry()}, 7, "expected ", "found ", "after a"),
]
NO_HEADER = [
    _header("a list", "[]", 0, "the header is not a JSON object"),
    _header("null", "null", 0, "the header is not a JSON object"),
    _header("no JSON", "{'a'}", 0, "the header is not a JSON object", "character 1"),
    _header("invalid UTF-8", b'{"\xff": 1}', 0, "the header is not valid UTF-8"),
    _header("a byte order mark", b"\xef\xbb\xbf{}", 0, "the header is not a JSON object"),
    _header("deep lists", '{"a": ' + "[" * _DEEP, 0, "a: expected dtype, shape and data_offsets"),
    _header("deep maps", '{"a":' * _DEEP + "1" + "}" * _DEEP, 0, "a: expected dtype, shape and data_offsets"),
    _header("a key twice", f'{{"a": {_ONE}, "a": {_ONE}}}', 4, "duplicate key in the header: a"),
    _header(
        "a field twice", f'{{"a": {_ONE[:-1]}, "shape": [1]}}}}', 4, "duplicate key in the header: shape"
    ),
    _header("metadata that is no map", {"__metadata__": [1]}, 0, "__metadata__: expected a map of strings"),
]
_LISTS = "[" + "[]," * 1_000_000 + "[]]"
FAT = [
    _header("lists for a tensor", f'{{"a": {_LISTS}}}', 0, "a: expected dtype, shape and data_offsets"),
    _header("lists in a tensor", f'{{"a": {{"shape": {_LISTS}}}}}', 0, "a: expected dtype, shape"),
    _header("lists as metadata", f'{{"__metadata__": {{"a": {_LISTS}}}}}', 0, "__metadata__: expected a map"),
    _index("lists in the map of an index", f'{{"weight_map": {{"a": {_LISTS}}}}}', "a: expected a file name"),
    _index("lists in an index", f'{{"metadata": {_LISTS}}}', "the index is not a JSON object"),
]
"""A few MB that would be a hundred as objects."""
WRONG_TENSORS = [
    _header("overlap", {"a": entry(), "b": entry(offsets=(2, 6))}, 6, "b overlaps a"),
    _header("hole", {"a": entry(), "b": entry(offsets=(8, 12))}, 12, "b leaves a hole after a"),
    *(
        _header(
            f"dimension {size}", f'{{"a": {_ONE.replace("[1]", f"[{size}]")}}}', 4, "a: shape [", "8 sizes"
        )
        for size in ("-1", "1.0", str(2**63), _LONG, "-0", "null")
    ),
    _header(
        "overflow", {"a": entry(shape=(2**62, 2**62), offsets=(0, 0))}, 0, f"a: shape [{2**62}, {2**62}]"
    ),
    _header("no bytes of 2**40", {"a": entry(shape=(2**40, 0), offsets=(0, 0))}, 0, f"a: shape [{2**40}, 0]"),
    _header(
        "rank 9", {"a": entry(shape=[1] * 9)}, 4, "a: shape [1, 1, 1, 1, 1, 1, 1, 1, 1]", "up to 8 sizes"
    ),
    _header("other bytes", {"a": entry("F16")}, 4, "a: F16 [1] needs 2 bytes, has 4"),
    _header("other shape", {"a": entry(shape=(2,))}, 4, "a: F32 [2] needs 8 bytes, has 4"),
    *(
        _header(
            f"dtype {dtype}", {"a": entry(dtype)}, 4, f"a: dtype {dtype!r}", "supported: F64, F32, F16, BF16"
        )
        for dtype in ("F31", "F4", "F6_E2M3", "F6_E3M2", "I4")
    ),
    _header("empty name", {"": entry()}, 4, "empty name"),
    *(
        _header(f"name {name!r}", {name: entry("F31")}, 4, shown)
        for name, shown in {
            "a\nb": "a\\nb: dtype",
            "\0": "\\x00: dtype",
            "\x1b[31m": "\\x1b[31m: dtype",
            "\u202eb": "\\u202eb: dtype",
            "<script>": "<script>: dtype",
        }.items()
    ),
]
NO_FILES = [
    BadInput("a FIFO", lambda folder: os.mkfifo(folder / FILE), (FILE, "not a regular file"), ResourceError),
    BadInput("a folder", lambda folder: (folder / FILE).mkdir(), (FILE, "not a regular file"), ResourceError),
    BadInput(
        "a device",
        lambda folder: (folder / FILE).symlink_to("/dev/zero"),
        (FILE, "not a regular"),
        ResourceError,
    ),
    BadInput(
        "a dangling link",
        lambda folder: (folder / FILE).symlink_to("x"),
        (FILE, "no such file"),
        ResourceError,
    ),
    BadInput(
        "an index that is a FIFO",
        lambda folder: os.mkfifo(folder / INDEX),
        (INDEX, "not a reg"),
        ResourceError,
    ),
    BadInput("nothing", lambda folder: None, (f"no {FILE} and no {INDEX}",)),
    BadInput(
        "only a pickle", lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80"), ("pickle is never read",)
    ),
    BadInput("a file and an index", _both, (FILE, INDEX, "weights=NAME (--weights NAME)")),
]
WRONG_INDEX = [
    *(
        _shard(name, "unsafe shard name", repr(name))
        for name in ("../x.safetensors", "/x.safetensors", "C:x.safetensors", "\\\\srv\\s.safetensors")
    ),
    _shard("a\\..\\b.safetensors", "unsafe shard name"),
    _shard("folder/x.safetensors", "unsafe shard name"),
    _shard("a\0.safetensors", "unsafe shard name"),
    _shard("\x1b[31m.safetensors", "unsafe shard name", "\\x1b[31m"),
    _shard("\ud800.safetensors", "half of a surrogate pair", "\\ud800"),
    _shard("x.bin", "must end with .safetensors", "x.bin"),
    _index(
        "missing shards",
        {"weight_map": {"a": "a.safetensors", "y": "y.safetensors", "z": "z.safetensors"}},
        "2 of 3 shards are missing: y.safetensors, z.safetensors",
    ),
    _weight_map(
        "a key that no shard has", {"z": "a.safetensors"}, "z: the index says a.safetensors, but no shard"
    ),
    _weight_map("a key that the index lacks", {"b": None}, "b: in a.safetensors, but not in the index"),
    _weight_map(
        "a key in another shard", {"b": "c.safetensors"}, "b: the index says c.safetensors, but it is in a.s"
    ),
    BadInput("a key in two shards", _twice, (INDEX, "a: in several shards: a.safetensors, b.safetensors")),
    _index("a list", "[]", "the index is not a JSON object"),
    _index("no JSON", "{", "the index is not a JSON object"),
    _index("no weight_map", "{}", "expected a weight_map of tensor names to file names"),
    _index(
        "a weight_map that is a list",
        {"weight_map": ["a"]},
        "weight_map: expected a map of tensor names to file names",
    ),
    _index("null values", {"weight_map": {"a": None}}, "weight_map: a: expected a file name"),
    _index("keys twice", '{"weight_map": {"a": "a", "a": "a"}}', "duplicate key in the index: a"),
    _index("NaN", '{"metadata": {"total_size": NaN}, "weight_map": {}}', "NaN is no JSON value"),
    _index("deep", '{"a":' * _DEEP, "the index is nested too deep"),
]
BAD_INPUTS = [*TRUNCATED, *NO_HEADER, *FAT, *WRONG_TENSORS, *NO_FILES, *WRONG_INDEX]
"""All of them."""
