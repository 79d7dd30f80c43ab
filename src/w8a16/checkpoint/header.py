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
from pathlib import Path
from typing import Any

import torch

from w8a16.checkpoint.printable import as_resource_error as as_resource_error
from w8a16.checkpoint.printable import shown as shown
from w8a16.checkpoint.regular import open_regular
from w8a16.checkpoint.strict_json import parse_object
from w8a16.errors import CheckpointError, ResourceError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
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
"""The dtypes that are read and written, by their safetensors names."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_MAX_HEADER = 100_000_000  # the limit of the safetensors library
_ALIGNMENT = 64
_MAX_ELEMENTS = 2**40


@dataclass(frozen=True)
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


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        CheckpointError: the file is not a complete and consistent safetensors file; the message names
            the file, the tensor, and what was expected and found.
        ResourceError: the file cannot be read.
    """
    with open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else None
        if length is None or length > min(total - 8, _MAX_HEADER):
            declared = "no header length" if length is None else f"a header of {length} bytes"
            raise CheckpointError(f"{shown(path)}: {declared} in a file of {total} bytes; download it again?")
        raw = file.read(length)
        if len(raw) < length:
            raise ResourceError(
                f"{shown(path)}: expected {length} bytes of header, read {len(raw)}; "
                "was the file changed meanwhile?"
            )
    try:
        fields = parse_object(raw, "the header")
    except CheckpointError as error:
        raise error.at(shown(path)) from error
    metadata = fields.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise CheckpointError(f"{shown(path)}: __metadata__: expected a map of strings")
    data_start = 8 + length
    tensors = {name: _tensor_info(path, name, value, data_start) for name, value in fields.items()}
    return Header(path, _in_order(path, tensors, data_start, total), metadata)


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


def _tensor_info(path: Path, name: str, value: Any, data_start: int) -> TensorInfo:
    where = f"{shown(path)}: {shown(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets")
    if not name:
        raise CheckpointError(f"{shown(path)}: a tensor with an empty name")
    shape, offsets = value["shape"], value["data_offsets"]
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(f"{where}: dtype {value['dtype']!r:.80}; supported: {', '.join(DTYPES)}")
    if not (isinstance(shape, list) and len(shape) <= 8 and all(_is_size(dimension) for dimension in shape)):
        raise CheckpointError(f"{where}: shape {str(shape)[:80]}: expected up to 8 sizes")
    if math.prod(max(dimension, 1) for dimension in shape) >= _MAX_ELEMENTS:
        raise CheckpointError(f"{where}: shape {shape}: more than {_MAX_ELEMENTS} elements")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(_is_size(offset) for offset in offsets)):
        raise CheckpointError(f"{where}: data_offsets {str(offsets)[:80]}: expected [begin, end]")
    size = _size(dtype, tuple(shape))
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(
            f"{where}: {value['dtype']} {shape} needs {size} bytes, has {offsets[1] - offsets[0]}"
        )
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], size)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _size(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _in_order(
    path: Path, tensors: dict[str, TensorInfo], data_start: int, total: int
) -> dict[str, TensorInfo]:
    """The tensors by offset; they must fill the file without overlap or hole."""
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)))
    end = data_start
    for name, info in ordered.items():
        if info.start != end:
            what = "overlaps the tensor before it" if info.start < end else "leaves a hole before it"
            raise CheckpointError(f"{shown(path)}: {shown(name)} {what}")
        end += info.size
    if end != total:
        hint = "; the file is cut short: download it again" if total < end else ""
        raise CheckpointError(f"{shown(path)}: expected {end} bytes, found {total}{hint}")
    return ordered
