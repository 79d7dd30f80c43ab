"""The floor under the time of a linear layer on this machine.

A layer with int8 weights reads every code once and does two operations for each code and activation
row, so no kernel with float32 sums beats `max(bytes / bandwidth, operations / rate)`. Both limits are
measured, not looked up, and often during a run: whatever disturbs the layers disturbs them as well,
and only the best sample is close to what the machine can do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from w8a16.kernels import cpu
from w8a16.study.timing import last_level_cache, time_in_turn


@dataclass(frozen=True)
class Limits:
    """The best that was measured so far; None for what could not be measured."""

    bandwidth: float | None = None
    """Bytes a second read from memory by all threads."""
    rate: float | None = None
    """Float32 operations a second of all threads; a multiply-add is two. Takes the native kernels."""

    def better_of(self, other: Limits) -> Limits:
        """The higher of each limit."""
        return Limits(_higher(self.bandwidth, other.bandwidth), _higher(self.rate, other.rate))

    def floor(self, weight_bytes: float, operations: float) -> float | None:
        """The least seconds for so much work.

        Example:
            >>> Limits(bandwidth=10e9, rate=100e9).floor(20e6, 50e6)
            0.002
        """
        times = self._times(weight_bytes, operations)
        return max(times) if times else None

    def binding(self, weight_bytes: float, operations: float) -> str | None:
        """Which limit makes the floor: "memory" or "compute"."""
        times = self._times(weight_bytes, operations)
        return None if not times else "memory" if times[0] >= times[1] else "compute"

    def _times(self, weight_bytes: float, operations: float) -> tuple[float, float] | None:
        if not self.bandwidth or not self.rate:
            return None
        return weight_bytes / self.bandwidth, operations / self.rate


def sample_limits() -> Limits:
    """Measure both limits once, on torch's current threads; about a quarter of a second."""
    megabytes = max(256, 4 * last_level_cache() >> 20)
    summed = Limits(bandwidth=_summing_bandwidth(megabytes))
    if cpu.problem() is not None:
        return summed
    return summed.better_of(Limits(cpu.read_bandwidth(megabytes, rounds=3), cpu.multiply_add_rate(rounds=10)))


def _summing_bandwidth(megabytes: int) -> float:
    """Bytes a second that torch reads to add numbers up: a second opinion, no way to read is always best."""
    buffer = torch.ones(megabytes << 18, dtype=torch.float32, device="cpu")
    timing = time_in_turn({"sum": lambda call: buffer.sum()}, seconds=0)["sum"]
    return 4 * buffer.numel() / timing.best


def _higher(a: float | None, b: float | None) -> float | None:
    return max((value for value in (a, b) if value is not None), default=None)
