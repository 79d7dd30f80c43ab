"""Give back the pages of a mapped file once the tensor in them has been quantized.

transformers maps safetensors files, so a float weight takes memory when it is read, and would keep it until
the files are closed. Dropping the pages of a private mapping that nobody wrote to loses nothing: they are
read from the file again if they are touched. Only the memory of the given tensor is looked at, and only if
it is such a mapping of one of the files that are being loaded; elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable

from torch import Tensor

_LEAST = 1 << 20  # bytes worth a call


class MappedFiles:
    """The files that a model is loaded from."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = {os.path.realpath(file) for file in files}
        self._mappings: list[tuple[int, int]] = []
        self._library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def release(self, tensor: Tensor) -> bool:
        """Drop the pages that hold nothing but this tensor; returns whether there were any."""
        size = tensor.numel() * tensor.element_size()
        if self._library is None or size < _LEAST or tensor.device.type != "cpu":
            return False
        if not tensor.is_contiguous() or tensor._version > 0:  # or somebody may have written to it
            return False
        page = mmap.PAGESIZE
        start = -(-tensor.data_ptr() // page) * page
        end = (tensor.data_ptr() + size) // page * page
        if end <= start or not self._is_mapped(start, end):
            return False
        madvise = self._library.madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return bool(madvise(start, end - start, mmap.MADV_DONTNEED) == 0)

    def _is_mapped(self, start: int, end: int) -> bool:
        if not any(first <= start and end <= last for first, last in self._mappings):
            self._mappings = _private_mappings(self._files)
        return any(first <= start and end <= last for first, last in self._mappings)


def _private_mappings(files: set[str]) -> list[tuple[int, int]]:
    """Where these files are mapped so that writing would not reach them."""
    found = []
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and fields[1].endswith("p") and fields[5].rstrip("\n") in files:
                    first, _, last = fields[0].partition("-")
                    found.append((int(first, 16), int(last, 16)))
    except OSError:
        return []
    return found
