"""The native CRC-32 of bytes in memory."""

from __future__ import annotations

import ctypes

from w8a16.kernels.cpu.library import native


def crc32(data: memoryview, before: int) -> int:
    """Continue the CRC-32 `before` over `data`, which is writable and contiguous."""
    buffer = (ctypes.c_ubyte * data.nbytes).from_buffer(data)
    result: int = native().w8a16_crc32(before, ctypes.addressof(buffer), data.nbytes)
    return result
