"""Where int8 pays and where it does not: conclusions from measured times. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from w8a16.study.speed import LinearShape, Measurement

NOISE = 1.05
"""int8 counts as slower from this ratio on: medians of the same code differ by so much on a busy machine."""


@dataclass(frozen=True)
class Total:
    """One forward through all linear layers at one batch size, in seconds."""

    batch: int
    float_seconds: float
    int8_seconds: float

    @property
    def speedup(self) -> float:
        """How many times faster than float int8 is."""
        return self.float_seconds / self.int8_seconds


def totals(measurements: Iterable[Measurement]) -> list[Total]:
    """Add up the medians, each shape as often as the model has it; one total for each batch size."""
    sums: dict[int, tuple[float, float]] = {}
    for m in measurements:
        before, after = sums.get(m.batch, (0.0, 0.0))
        count = m.shape.count
        sums[m.batch] = (before + count * m.float_time.median, after + count * m.int8_time.median)
    return [Total(batch, *seconds) for batch, seconds in sorted(sums.items())]


def crossover(speedups: Iterable[tuple[int, float]]) -> int | None:
    """The batch size from which on int8 is slower, or None where it is not slower at the largest.

    Args:
        speedups: batch sizes with how many times faster than float int8 is.

    Example:
        >>> crossover([(1, 3.5), (8, 1.4), (64, 0.9), (128, 0.8)])
        64
    """
    found = None
    for batch, speedup in sorted(speedups, reverse=True):
        if not is_slower(speedup):
            break
        found = batch
    return found


def is_slower(speedup: float) -> bool:
    """Whether int8 is slower than float by more than noise."""
    return speedup * NOISE < 1


def advice(measurements: Sequence[Measurement], names: Iterable[str] = ()) -> list[str]:
    """Say in one or two sentences where int8 pays, and what to exclude where it does not.

    Args:
        measurements: shapes at batch sizes, all of one dtype.
        names: paths of all linear layers of the model, which exclude patterns must tell apart.
    """
    if not measurements:
        return []
    dtype = str(measurements[0].dtype).removeprefix("torch.")
    slow = [m for m in measurements if is_slower(m.speedup)]
    ratios = [m.speedup for m in measurements]
    spread = _between(min(ratios), max(ratios))
    if not slow:
        return [f"int8 pays for every layer at every batch size measured: {spread} as fast as {dtype}."]
    if len(slow) == len(measurements):
        return [
            f"int8 is slower than {dtype} for every layer at every batch size measured ({spread} as fast): "
            "here it saves memory, not time."
        ]
    shapes = list(dict.fromkeys(m.shape for m in measurements))
    sentences = [_overview(totals(measurements), dtype)]
    sentences.append(_exceptions(measurements, shapes, dtype, tuple(names)))
    return sentences


def _overview(sums: list[Total], dtype: str) -> str:
    """How the model as a whole fares, from the smallest to the largest batch size."""
    first, last = sums[0], sums[-1]
    text = f"All layers together, int8 is {_times(first.speedup)} as fast as {dtype} at batch {first.batch}"
    if len(sums) == 1:
        return f"{text}."
    text += f" and {_times(last.speedup)} at batch {last.batch}"
    slow = [total.batch for total in sums if is_slower(total.speedup)]
    start = crossover((total.batch, total.speedup) for total in sums)
    if not slow:
        return f"{text}: it pays at every batch size measured."
    if len(slow) == len(sums):
        return f"{text}: it saves memory, not time."
    return f"{text}: it is slower {_where(slow, start, len(sums))}."


def _exceptions(
    measurements: Sequence[Measurement], shapes: list[LinearShape], dtype: str, names: tuple[str, ...]
) -> str:
    """Which shapes are slower, at which batch sizes, and the `exclude=` that spares them."""
    groups: dict[str, list[LinearShape]] = {}
    for shape in shapes:
        own = sorted((m.batch, m.speedup) for m in measurements if m.shape == shape)
        slow = [batch for batch, speedup in own if is_slower(speedup)]
        if slow:
            groups.setdefault(_where(slow, crossover(own), len(own)), []).append(shape)
    clauses = [f"for {_listed(map(str, group))} {where}" for where, group in groups.items()]
    always = groups.get(_ALWAYS, [])
    spared = always or [shape for group in groups.values() for shape in group]
    patterns = exclude_patterns([name for shape in spared for name in shape.names], names)
    exclude = f"exclude={list(patterns)}" if patterns else "exclude= with the names of the layers"
    condition = "" if always else "for such batches "
    what = _listed(map(str, spared)) if len(groups) > 1 and always else "them" if len(spared) > 1 else "it"
    return f"int8 is slower than {dtype} {', '.join(clauses)}; {condition}{exclude} keeps {what} float."


_ALWAYS = "at every batch size"


def _where(slow: list[int], start: int | None, measured: int) -> str:
    if len(slow) == measured:
        return _ALWAYS
    if start is not None and slow[0] == start:
        return f"from batch {start} on"
    return f"at batch {_listed(map(str, slow))}"


def exclude_patterns(spared: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Short globs that match the layers to spare and none of the others.

    Numbers become `*` where that hits nothing else; other layers are named in full.

    Example:
        >>> exclude_patterns(["layer.0.up", "layer.1.up"], ["layer.0.up", "layer.0.down", "layer.1.up"])
        ('layer.*.up',)
    """
    wanted = set(spared)
    others = [name for name in names if name not in wanted]
    patterns: list[str] = []
    for name in spared:
        pattern = re.sub(r"\d+", "*", name)
        alone = not any(fnmatchcase(path, pattern) for other in others for path in _with_parents(other))
        patterns.append(pattern if alone else name)
    return tuple(dict.fromkeys(patterns))


def _with_parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _between(low: float, high: float) -> str:
    return _times(low) if _times(low) == _times(high) else f"{_times(low)} to {_times(high)}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 0.995 else f"{ratio:.1f}x"


def _listed(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last
