"""What this machine could do at best, on torch's current number of threads.

A linear layer reads its codes once and does two operations for each code and row, so no kernel that
keeps float32 sums can be faster than `max(bytes / read_bandwidth, operations / multiply_add_rate)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from w8a16.kernels.cpu.library import native


def read_bandwidth(megabytes: int = 256, rounds: int = 5) -> float:
    """Bytes a second that all threads together read from memory: the best of some rounds.

    Args:
        megabytes: size of the buffer; must be well beyond the last-level cache.
        rounds: how often it is read.
    """
    buffer = torch.ones(megabytes << 20, dtype=torch.int8, device="cpu")  # written, so that its pages exist
    return buffer.numel() / _best(lambda: native().w8a16_read(buffer.data_ptr(), buffer.numel()), rounds)


def multiply_add_rate(rounds: int = 5) -> float:
    """Float32 operations a second (a multiply-add is two) of all threads together, from registers."""
    library, turns = native(), 300_000
    operations: int = library.w8a16_multiply_add(turns)
    return operations / _best(lambda: library.w8a16_multiply_add(turns), rounds)


def _best(function: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
