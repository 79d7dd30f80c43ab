"""Time functions side by side: in turn, in one process, on weights that are not in the cache.

Two functions that are timed one after the other meet different noise: another program, a warmer
processor. Timed in turn, round by round, they meet the same. And a layer whose weight is still in the
cache from the last call is a layer that no model has: so each candidate has several copies of its
weight, more than the cache holds, and every call takes the next one.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_SHORTEST_SAMPLE = 100e-6  # the clock and the loop cost a tenth of a microsecond or two
_ASSUMED_CACHE = 32 << 20
_CACHES = 4  # the copies of a weight fill the last-level cache this often
_MOST_COPIES_BYTES = 2 << 30
_MOST_COPIES = 1000  # of tiny weights, the objects around them fill the cache


@dataclass(frozen=True)
class Timing:
    """The samples of one candidate, in seconds a call."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What a call usually takes."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """What a call takes when nothing disturbs it."""
        return min(self.seconds)


def time_in_turn(
    candidates: Mapping[str, Callable[[int], object]],
    seconds: float,
    *,
    least_rounds: int = 3,
    clock: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Time all candidates in turn, one sample each a round, until the time is over.

    Args:
        candidates: functions of the number of the call, by which they choose one of their copies.
        seconds: about how long to measure all of them together.
        least_rounds: how many rounds to make, however long they take.
        clock: what samples are taken with, in seconds; default `time.perf_counter`. `time.thread_time`
            leaves out what other programs took, of work that one thread does.

    Returns:
        A `Timing` for each name. Quick functions are called several times a sample.

    Example:
        >>> timings = time_in_turn({"sum": lambda call: sum(range(100))}, seconds=0.01)
        >>> timings["sum"].best <= timings["sum"].median
        True
    """
    stop = time.perf_counter() + seconds
    samplers = {name: _Sampler(function, clock or time.perf_counter) for name, function in candidates.items()}
    order = list(samplers.values())
    rounds = 0
    while rounds < least_rounds or time.perf_counter() < stop:
        for sampler in order:
            sampler.sample()
        order.reverse()  # no candidate always follows the same one
        rounds += 1
    return {name: Timing(tuple(sampler.samples)) for name, sampler in samplers.items()}


class _Sampler:
    def __init__(self, function: Callable[[int], object], clock: Callable[[], float]) -> None:
        self.samples: list[float] = []
        self._function = function
        self._clock = clock
        self._call = 0
        self._calls = 1
        # The first call makes buffers and threads; how long a quick function takes, the second tells.
        if self._take() < 100 * _SHORTEST_SAMPLE:
            self._calls = max(1, min(1000, round(_SHORTEST_SAMPLE / max(self._take(), 1e-9))))

    def sample(self) -> None:
        self.samples.append(self._take())

    def _take(self) -> float:
        first, last = self._call, self._call + self._calls
        self._call = last
        start = self._clock()
        for call in range(first, last):
            self._function(call)
        return (self._clock() - start) / self._calls


def copies_beyond_cache(weight_bytes: int) -> int:
    """How many copies of a weight it takes to outgrow the last-level cache; one to 1,000, within 2 GiB."""
    size = max(weight_bytes, 1)
    wanted = -(-_CACHES * last_level_cache() // size)
    return max(1, min(wanted, _MOST_COPIES_BYTES // size, _MOST_COPIES))


class OtherPrograms:
    """How much of the machine other programs use, from its making on; they spoil every figure.

    Two threads that wait for each other wait for a whole slice of the scheduler (milliseconds) when a
    third program wants a processor, and layers take microseconds.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def processors(self) -> float | None:
        """How many processors others have kept busy on average; None where the system does not say."""
        now = self._now()
        if self._start is None or now is None or now[0] <= self._start[0]:
            return None
        return max(0.0, (now[1] - self._start[1]) / (now[0] - self._start[0]))

    @staticmethod
    def _now() -> tuple[float, float] | None:
        """The time, and the processor seconds that others have used so far."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                fields = [int(field) for field in file.readline().split()[1:]]
            ticks = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError):
            return None
        user, nice, system, _idle, _wait, interrupt, soft, *stolen = fields
        busy = (user + nice + system + interrupt + soft + sum(stolen[:1])) / ticks
        own = os.times()
        return time.monotonic(), busy - own.user - own.system - own.children_user - own.children_system


def last_level_cache() -> int:
    """Bytes of the largest cache of the first processor; 32 MiB where the system does not say."""
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text(encoding="ascii").strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KM")) * unit)
    return max(sizes, default=_ASSUMED_CACHE)


def available_memory() -> int | None:
    """Bytes that can still be allocated without swapping, or None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
