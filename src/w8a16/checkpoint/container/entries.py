"""The entries of a safetensors header: which tensors a file holds, and where; checked completely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.strict_json import Fields, JsonCursor
from w8a16.errors import CheckpointError

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


def read_entries(raw: bytes, data_start: int, total: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Parse and check the JSON of a header: the tensors in the order of their bytes, and the metadata.

    Args:
        raw: the JSON text.
        data_start: where the data begin in the file.
        total: bytes of the file; the tensors must fill it to its end.

    Raises:
        CheckpointError: names the tensor, what was expected and what was found.
    """
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
    return _in_order(tensors, data_start, total), metadata


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
    count = math.prod(shape)
    if (count or math.prod(size or 1 for size in shape)) >= _MAX_ELEMENTS:
        raise CheckpointError(f"shape {shape}: more than {_MAX_ELEMENTS} elements")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(map(_is_size, offsets))):
        raise CheckpointError(f"data_offsets {offsets!s:.80}: expected [begin, end]")
    size = count * dtype.itemsize
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(f"{value['dtype']} {shape} needs {size} bytes, has {offsets[1] - offsets[0]}")
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], size)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


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
