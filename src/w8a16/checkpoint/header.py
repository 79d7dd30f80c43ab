"""The safetensors container: 8 bytes of header length, a JSON header, then the tensors' bytes.

Reading is strict and bounded: a header is checked completely before any tensor is read, and tensors
are read with explicit offsets (no memory mapping: a file that is cut while mapped kills the process).
Writing is deterministic: same tensors and metadata, same bytes.

Source: the safetensors format, https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from w8a16.checkpoint.disk import discard, open_source
from w8a16.checkpoint.printable import as_resource_error as as_resource_error
from w8a16.checkpoint.printable import shown as shown
from w8a16.checkpoint.regular import open_regular
from w8a16.checkpoint.strict_json import Fields, JsonCursor
from w8a16.errors import CheckpointError, ResourceError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""The dtypes that are read and written, by their safetensors names: all of whole bytes."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_MAX_HEADER = 100_000_000  # the limit of the safetensors library
_ALIGNMENT = 64
_MAX_ELEMENTS = 2**40
_MAX_RANK = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies in a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Offset of the first byte from the beginning of the file."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Header:
    """The checked header of one file."""

    path: Path
    tensors: dict[str, TensorInfo]
    """In the order of their bytes."""
    metadata: dict[str, str]
    identity: tuple[int, ...]
    """Device, inode, size and time of change of the file: whether it is still the same later."""


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointError: the file is not a complete and consistent safetensors file; the message names
            the file, the tensor, and what was expected and found.
        ResourceError: the file cannot be read.
    """
    with open_regular(path) as file:
        state = os.fstat(file.fileno())
        raw = _read_text(path, file, state.st_size)
    try:
        tensors, metadata = _parse(raw, 8 + len(raw))
        ordered = _in_order(tensors, 8 + len(raw), state.st_size)
    except CheckpointError as error:
        raise error.at(shown(path)) from error
    return Header(path, ordered, metadata, _identity(state))


def open_again(header: Header) -> int:
    """Open the file of a header for its tensors, and return the descriptor.

    Raises:
        ResourceError: it cannot be opened, or is not the file any more that the header was read from.
    """
    fd = open_source(header.path)
    try:
        if _identity(os.fstat(fd)) == header.identity:
            return fd
    except OSError as error:
        discard(fd)
        raise as_resource_error(header.path, error) from error
    discard(fd)
    raise ResourceError(f"{shown(header.path)}: was changed or exchanged after its header was read")


def build_header(
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: Mapping[str, str],
    length: int | None = None,
) -> bytes:
    """Return the bytes before the data, for tensors written in the given order.

    Padded with spaces so that the data begin at a multiple of 64 bytes, or at `length` where it is given.

    Raises:
        CheckpointError: the header needs more than `length` bytes.
    """
    fields: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = _size(dtype, shape)
        fields[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    if length is not None and length < len(text) + 8:
        raise CheckpointError(f"the header needs {len(text) + 8} bytes, {length} are reserved for it")
    text += b" " * (-(len(text) + 8) % _ALIGNMENT if length is None else length - 8 - len(text))
    return struct.pack("<Q", len(text)) + text


def _read_text(path: Path, file: BufferedReader, total: int) -> bytes:
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
    if length is None or length > min(total - 8, _MAX_HEADER):
        declared = "no header length" if length is None else f"a header of {length} bytes"
        limit = f" ({_MAX_HEADER} at most)" if length is not None and length <= total - 8 else ""
        raise CheckpointError(
            f"{shown(path)}: {declared} in a file of {total} bytes{limit}; download it again?"
        )
    # The format demands it, and most files of another kind are refused without reading on.
    if length == 0 or file.peek(1)[:1] != b"{":
        raise CheckpointError(f"{shown(path)}: the header is not a JSON object: it does not begin with {{")
    raw = file.read(length)
    if len(raw) < length:
        raise ResourceError(
            f"{shown(path)}: expected {length} bytes of header, read {len(raw)}; "
            "was the file changed meanwhile?"
        )
    return raw


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


def _parse(raw: bytes, data_start: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    cursor = JsonCursor(raw, "the header")
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for name in cursor.members():
        if name == "__metadata__":
            metadata = _read_metadata(cursor)
        elif not name:
            raise CheckpointError("a tensor with an empty name")
        else:
            fields = cursor.flat_object()
            try:
                tensors[name] = _tensor_info(fields, data_start)
            except CheckpointError as error:
                raise error.at(shown(name)) from error
    cursor.end()
    return tensors, metadata


def _read_metadata(cursor: JsonCursor) -> dict[str, str]:
    metadata = {}
    wrong = CheckpointError("__metadata__: expected a map of strings")
    if cursor.next() != "{":
        raise wrong
    for name in cursor.members():
        if cursor.next() != '"':
            raise wrong
        metadata[name] = cursor.string()
    return metadata


def _tensor_info(value: Fields | None, data_start: int) -> TensorInfo:
    if value is None or value.keys() != _FIELDS:
        raise CheckpointError("expected dtype, shape and data_offsets")
    shape, offsets = value["shape"], value["data_offsets"]
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(f"dtype {value['dtype']!r:.80}; supported: {', '.join(DTYPES)}")
    if not (isinstance(shape, list) and len(shape) <= _MAX_RANK and all(map(_is_size, shape))):
        raise CheckpointError(f"shape {shape!s:.80}: expected up to {_MAX_RANK} sizes")
    if math.prod(dimension or 1 for dimension in shape) >= _MAX_ELEMENTS:
        raise CheckpointError(f"shape {shape}: more than {_MAX_ELEMENTS} elements")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets))):
        raise CheckpointError(f"data_offsets {offsets!s:.80}: expected [begin, end]")
    size = _size(dtype, shape)
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(f"{value['dtype']} {shape} needs {size} bytes, has {offsets[1] - offsets[0]}")
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], size)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _size(dtype: torch.dtype, shape: Sequence[int]) -> int:
    return math.prod(shape) * dtype.itemsize


def _in_order(tensors: dict[str, TensorInfo], data_start: int, total: int) -> dict[str, TensorInfo]:
    """The tensors by offset; they must fill the file without overlap or hole."""
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)))
    end, before = data_start, "the header"
    for name, info in ordered.items():
        if info.start != end:
            what = "overlaps" if info.start < end else "leaves a hole after"
            raise CheckpointError(f"{shown(name)} {what} {shown(before)}")
        end, before = end + info.size, name
    if end != total:
        hint = "; the file is cut short: download it again" if total < end else f" after {shown(before)}"
        raise CheckpointError(f"expected {end} bytes, found {total}{hint}")
    return ordered
