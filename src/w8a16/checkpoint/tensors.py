"""Tensors of a model as bytes: which can be stored, in which order, and the file they make."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from w8a16.checkpoint.container import disk
from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.container.header import DTYPE_NAMES, DTYPES, build_header
from w8a16.checkpoint.container.printable import as_resource_error, shown
from w8a16.checkpoint.manifest import file_metadata
from w8a16.checkpoint.records import Manifest
from w8a16.errors import CheckpointError, ResourceError


def write_file(path: Path, tensors: Mapping[str, Tensor], manifest: Manifest) -> int:
    """Write a safetensors file with its manifest, checksums filled in, and return its size in bytes.

    The file appears under its name only when it is complete. Tensors are written one at a time, wide
    dtypes first (so that every one is aligned to its own size), then by name: same input, same bytes.

    The caller has checked them with `refuse_unstorable`.

    Raises:
        ResourceError: the disk is full or not writable.
    """
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
    described = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in ordered.items()}
    checksums = dict.fromkeys(ordered, 0)
    # Checksums have a fixed width, so the length of the header is known before they are.
    start = len(build_header(described, file_metadata(replace(manifest, checksums=checksums))))
    need = start + sum(tensor.numel() * tensor.element_size() for tensor in ordered.values())
    stage = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _check_space(path, need)
        with contextlib.suppress(FileNotFoundError):
            stage.unlink()  # of a process that was killed and had this number
        fd = disk.create(stage)
        try:
            offset = start
            for name, tensor in ordered.items():
                view = bytes_of(tensor.detach().resolve_conj().resolve_neg().cpu().contiguous())
                disk.write_at(fd, view, offset, path)
                checksums[name] = crc32(view)
                offset += len(view)
            head = build_header(described, file_metadata(replace(manifest, checksums=checksums)), start)
            disk.write_at(fd, memoryview(head), 0, path)
        except BaseException:
            disk.discard(fd)
            raise
        disk.finish(fd, path)
        stage.replace(path)
        disk.sync_folder(path.parent)
    except OSError as error:
        raise as_resource_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the error that matters is the one under way
            stage.unlink(missing_ok=True)
    return need


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


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, which lives as long as the view. (numpy is not required.)"""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return memoryview(bytearray())  # bytes would be read-only
    buffer = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    buffer.owner = tensor  # type: ignore[attr-defined]  # the address alone would not keep it alive
    return memoryview(buffer).cast("B")


def _check_space(path: Path, need: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < need:
        raise ResourceError(f"{shown(path)}: need {need} bytes, have {free}")
