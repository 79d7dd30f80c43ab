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
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from w8a16.checkpoint.container.disk import discard, open_source
from w8a16.checkpoint.container.entries import DTYPE_NAMES as DTYPE_NAMES
from w8a16.checkpoint.container.entries import DTYPES as DTYPES
from w8a16.checkpoint.container.entries import TensorInfo as TensorInfo
from w8a16.checkpoint.container.entries import read_entries
from w8a16.checkpoint.container.printable import as_resource_error as as_resource_error
from w8a16.checkpoint.container.printable import shown as shown
from w8a16.checkpoint.container.regular import open_regular
from w8a16.errors import CheckpointError, ResourceError

_MAX_HEADER = 100_000_000  # the limit of the safetensors library
_ALIGNMENT = 64


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
        tensors, metadata = read_entries(raw, 8 + len(raw), state.st_size)
    except CheckpointError as error:
        raise error.at(shown(path)) from error
    return Header(path, tensors, metadata, _identity(state))


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


def refuse_changed(fd: int, header: Header) -> None:
    """Check that an open file still is as it was when its header was read.

    Raises:
        ResourceError: it was written to meanwhile.
    """
    try:
        same = _identity(os.fstat(fd)) == header.identity
    except OSError as error:
        raise as_resource_error(header.path, error) from error
    if not same:
        raise ResourceError(f"{shown(header.path)}: was changed while it was read")


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
        size = math.prod(shape) * dtype.itemsize
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
