"""CRC-32 by the fastest code there is: the same numbers as `zlib.crc32`."""

from __future__ import annotations

import zlib

from w8a16.kernels import cpu
from w8a16.kernels.registry import select

_WORTH_A_CALL = 1 << 12  # bytes; below, zlib is done before ctypes has begun


def crc32(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The CRC-32 of `data` after something with the CRC-32 `before`.

    Args:
        data: contiguous bytes; the native kernel, which releases the GIL, takes what is writable.

    Example:
        >>> f"{crc32(b'123456789'):08x}"
        'cbf43926'
    """
    view = memoryview(data)
    if view.nbytes < _WORTH_A_CALL or view.readonly or select("cpu").name != "cpu-native":
        return zlib.crc32(data, before)
    return cpu.crc32(view, before)
