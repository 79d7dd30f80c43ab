"""What the blocks of a checkpoint found out, and what follows for a whole tensor or file.

Blocks end in any order; everything here is put together in the order of the bytes, so that the outcome
does not depend on the threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from w8a16.checkpoint.container.crc import combine


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a source file, or of an output tensor, with their checksum."""

    start: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class RowErrors:
    """What rounding did to some rows of a weight."""

    first: int
    """The first of the rows."""
    underflow_rows: int
    """Rows too small for a scale, stored as zeros."""
    zero_rows: int
    """Rows without any value but zero."""
    signal: float
    """Sum of `w ** 2`."""
    noise: float
    """Sum of `(w - q s) ** 2`."""
    largest: float
    """Largest `|w - q s|` in half-steps."""


@dataclass(frozen=True, slots=True)
class NonFinite:
    """Values without a code in some part of a stored tensor."""

    tensor: str
    count: int
    first: int
    """Flat index of the first of them in the stored tensor."""
    value: float


@dataclass(slots=True)
class Result:
    """What one block gives back."""

    read: Range | None = None
    """The range of the source file that was read and checked; None where that is done elsewhere."""
    written: tuple[tuple[str, Range], ...] = ()
    """For each output tensor the range of its bytes that was written."""
    errors: tuple[str, RowErrors] | None = None
    """The weight (by the key of its codes), and what was lost."""
    nonfinite: NonFinite | None = None


def whole_crc(ranges: Iterable[Range], size: int) -> int:
    """The checksum of all bytes, from those of ranges that together are everything."""
    crc, end = 0, 0
    for part in sorted(ranges, key=lambda part: (part.start, part.size)):
        if part.start != end:
            raise AssertionError(f"bytes {end} to {part.start} are missing")
        crc, end = combine(crc, part.crc, part.size), end + part.size
    if end != size:
        raise AssertionError(f"{end} of {size} bytes")
    return crc


def weight_figures(parts: Iterable[RowErrors]) -> tuple[float, float]:
    """SQNR in decibels (infinite where nothing was lost) and the largest error in half-steps of a weight."""
    signal = noise = largest = 0.0
    for part in sorted(parts, key=lambda part: part.first):
        signal, noise, largest = signal + part.signal, noise + part.noise, max(largest, part.largest)
    return (10 * math.log10(signal / noise) if noise > 0 else math.inf), largest
