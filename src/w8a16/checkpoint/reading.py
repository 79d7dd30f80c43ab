"""Read whole tensors from their files into fresh, aligned memory, by several threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from w8a16.checkpoint.container import disk
from w8a16.checkpoint.container.header import Header, TensorInfo, open_again
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.tensors import bytes_of
from w8a16.errors import CheckpointError, ResourceError

_AT_ONCE = 256 << 20  # bytes that may wait in main memory on their way to another device
_PART = 8 << 20  # bytes of one read, so that all threads work on a large tensor
_MOST_THREADS = 8  # more do not read faster


def read_tensors(shards: Shards, take: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Read every tensor once, in the order of the files, and return what `take` makes of each.

    `take` gets the name and the tensor on the CPU, in the calling thread; it may check it, or move it
    to its device.

    Raises:
        ResourceError: a file cannot be read, or ends before a tensor does.
    """
    if sys.byteorder == "big":
        raise CheckpointError("big-endian machines are not supported: safetensors files are little-endian")
    state: dict[str, Tensor] = {}
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for header in shards.headers:
            fd = open_again(header)
            try:
                for batch in _batches(header):
                    for name, tensor in _read(pool, fd, header, batch).items():
                        state[name] = take(name, tensor)
            finally:
                disk.discard(fd)
    return state


def _batches(header: Header) -> Iterator[dict[str, TensorInfo]]:
    """Neighbouring tensors of some 256 MB together."""
    batch: dict[str, TensorInfo] = {}
    size = 0
    for name, info in header.tensors.items():
        if batch and size + info.size > _AT_ONCE:
            yield batch
            batch, size = {}, 0
        batch[name] = info
        size += info.size
    yield batch


def _read(
    pool: ThreadPoolExecutor, fd: int, header: Header, batch: dict[str, TensorInfo]
) -> dict[str, Tensor]:
    tensors = {
        # On the CPU whatever the default device is.
        name: torch.empty(info.shape, dtype=info.dtype, device="cpu")
        for name, info in batch.items()
    }
    reads = []
    for name, info in batch.items():
        view = bytes_of(tensors[name])
        reads += [(name, view[at : at + _PART], info.start + at) for at in range(0, info.size, _PART)]

    def read(job: tuple[str, memoryview, int]) -> None:
        name, view, offset = job
        try:
            disk.read_at(fd, view, offset, header.path)
        except ResourceError as error:
            raise ResourceError(f"{error} (while reading {shown(name)})") from error

    for _ in pool.map(read, reads):
        pass
    return tensors
