"""Tensor bytes in and out of safetensors files: whole files written atomically, tensors read by offset."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from w8a16.checkpoint.header import DTYPE_NAMES, DTYPES, TensorInfo, as_resource_error, build_header, shown
from w8a16.errors import CheckpointError, ResourceError


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    """Write a safetensors file and return its size in bytes.

    The file appears under its name only when it is complete. Tensors are written one at a time, wide
    dtypes first (so that every one is aligned to its own size), then by name: same input, same bytes.

    The caller has checked them with `refuse_unstorable`.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    head = build_header({name: (t.dtype, tuple(t.shape)) for name, t in ordered.items()}, metadata)
    need = len(head) + sum(tensor.numel() * tensor.element_size() for tensor in ordered.values())
    stage = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        free = shutil.disk_usage(path.parent).free
        if free < need:
            raise ResourceError(f"{shown(path)}: need {need} bytes, have {free}")
        with stage.open("wb") as file:
            file.write(head)
            for tensor in ordered.values():
                file.write(_bytes_of(tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()))
        stage.replace(path)
    except OSError as error:
        raise as_resource_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the error that matters is the one under way
            stage.unlink(missing_ok=True)
    return need


def read_tensor(file: IO[bytes], name: str, info: TensorInfo) -> Tensor:
    """Read one tensor into fresh, aligned memory on the CPU.

    Raises:
        ResourceError: the file ends before the tensor does (it was changed while being read).
    """
    if sys.byteorder == "big":
        raise CheckpointError("big-endian machines are not supported: safetensors files are little-endian")
    tensor = torch.empty(info.shape, dtype=info.dtype, device="cpu")  # whatever the default device is
    view = _bytes_of(tensor)
    file.seek(info.start)
    if (got := file.readinto(view)) != info.size:  # type: ignore[attr-defined]
        raise ResourceError(
            f"{shown(file.name)}: {shown(name)}: expected {info.size} bytes, read {got}; "
            "was the file changed meanwhile?"
        )
    return tensor


def refuse_unstorable(tensors: Mapping[str, Tensor]) -> None:
    """Raise a `CheckpointError` that names every tensor which safetensors cannot hold."""
    problems = []
    for name, tensor in tensors.items():
        if tensor.is_meta:
            problems.append(f"{name}: on the meta device, it has no values")
        elif tensor.layout != torch.strided:
            problems.append(f"{name}: layout {tensor.layout}, expected a dense tensor")
        elif tensor.dtype not in DTYPE_NAMES:
            problems.append(f"{name}: dtype {tensor.dtype}; supported: {', '.join(DTYPES)}")
    if problems:
        raise CheckpointError("cannot be saved:\n" + "\n".join(f"  {problem}" for problem in problems))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, which lives as long as the view. (numpy is not required.)"""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())  # bytes would be read-only
    buffer = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    buffer.owner = tensor  # type: ignore[attr-defined]  # the address alone would not keep it alive
    return memoryview(buffer).cast("B")
