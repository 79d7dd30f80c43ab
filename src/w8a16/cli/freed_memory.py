"""Freed tensors go back to the system at once, where the peak of memory is a promise.

The C library of Linux keeps freed blocks for later, up to 32 MB each once it has seen some: a process that
reads one layer's weights after the other would hold several of them at its peak.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 1 << 17  # bytes


def return_freed_memory() -> bool:
    """Set it for the whole process; returns whether the C library can do it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return False
    done = [mallopt(parameter, _KEPT) == 1 for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)]
    return all(done)
