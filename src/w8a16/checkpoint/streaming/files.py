"""The files that blocks read and write: opened when the first block needs them, closed after the last."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import torch

from w8a16.checkpoint.container.disk import create, discard, finish, start_writing, write_at
from w8a16.checkpoint.container.header import Header, build_header, open_again, refuse_changed

Shape = tuple[int, ...]
_WORTH_STARTING = 1 << 20  # bytes


class SourceFile:
    """A file of the checkpoint that is read."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.path = header.path
        self._lock = threading.Lock()
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor; opens the file."""
        with self._lock:
            if self._fd is None:
                self._fd = open_again(self.header)
            return self._fd

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.header.identity[2]

    @property
    def data_start(self) -> int:
        """Where the header ends."""
        return min((info.start for info in self.header.tensors.values()), default=self.size)

    def finish(self) -> None:
        """Give the descriptor back after the last block.

        Raises:
            ResourceError: the file was written to while it was read.
        """
        refuse_changed(self.fd, self.header)
        self.close()

    def close(self) -> None:
        """Give the descriptor back; the file can be opened again."""
        with self._lock:
            if self._fd is not None:
                discard(self._fd)
            self._fd = None


class OutputFile:
    """A safetensors file that is written in any order, and whose header is written last.

    The place of every tensor is known before the first byte is written: the header has a reserved length.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, tuple[torch.dtype, Shape]], header_bytes: int
    ) -> None:
        self.path = path
        # Wide dtypes first, so that every tensor is aligned to its own size.
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1][0].itemsize, item[0])))
        self.header_bytes = header_bytes
        self._starts: dict[str, int] = {}
        self.size = header_bytes
        """Bytes of the whole file."""
        for key, (dtype, shape) in self.tensors.items():
            self._starts[key] = self.size
            self.size += bytes_in(dtype, shape)
        self._lock = threading.Lock()
        self._fd: int | None = None

    def write(self, key: str, start: int, data: memoryview) -> None:
        """Write some bytes of a tensor, `start` bytes behind its beginning."""
        fd, offset = self._open(), self._starts[key] + start
        write_at(fd, data, offset, self.path)
        if len(data) >= _WORTH_STARTING:
            start_writing(fd, offset, len(data))

    def bytes_of(self, key: str) -> int:
        """The size of a tensor."""
        return bytes_in(*self.tensors[key])

    def complete(self, metadata: Mapping[str, str]) -> None:
        """Write the header, bring everything to the disk, and close the file."""
        head = build_header(self.tensors, metadata, self.header_bytes)
        fd = self._open()
        write_at(fd, memoryview(head), 0, self.path)
        self._fd = None
        finish(fd, self.path)

    def close(self) -> None:
        """Close a file that was not completed; it is removed with its folder."""
        with self._lock:
            if self._fd is not None:
                discard(self._fd)
            self._fd = None

    def _open(self) -> int:
        with self._lock:
            if self._fd is None:
                self._fd = create(self.path)
            return self._fd


def bytes_in(dtype: torch.dtype, shape: Shape) -> int:
    """The size of a tensor."""
    size = dtype.itemsize
    for dimension in shape:
        size *= dimension
    return size
