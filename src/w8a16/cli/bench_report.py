"""What `w8a16 bench` found, as tables for people and as one document for machines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from w8a16.checkpoint import shown
from w8a16.cli.show import console, table
from w8a16.kernels import Decision
from w8a16.study import (
    Limits,
    LinearShape,
    Measurement,
    Timing,
    advice,
    crossover,
    totals,
)
from w8a16.study.advice import is_slower
from w8a16.study.timing import last_level_cache

_QUIET = 0.1
"""Processors that other programs may use before the figures are called into question."""


@dataclass(frozen=True)
class Findings:
    """Everything that one run found out."""

    source: str | None
    dtype: str
    threads: int
    backends: list[Decision]
    limits: Limits
    other_programs: float | None
    """How many processors they kept busy meanwhile."""
    shapes: tuple[LinearShape, ...]
    kept_float: tuple[str, ...]
    measurements: list[Measurement]

    @property
    def linear_names(self) -> list[str]:
        """Paths of all linear layers of the model."""
        return [*(name for shape in self.shapes for name in shape.names), *self.kept_float]

    @property
    def advice(self) -> list[str]:
        """One or two sentences."""
        return advice(self.measurements, self.linear_names)

    def of(self, shape: LinearShape) -> list[Measurement]:
        """The measurements of one shape, by batch size."""
        return [m for m in self.measurements if m.shape == shape]


def print_findings(findings: Findings) -> None:
    """Which backend ran, a table for each shape, the totals, and the advice."""
    _print_head(findings)
    for shape in findings.shapes:
        console.print(_shape_table(findings, shape))
        start = crossover((m.batch, m.speedup) for m in findings.of(shape))
        if start is not None:
            console.print(Text(f"int8 is slower from batch {start} on", style="yellow"))
    if sum(shape.count for shape in findings.shapes) > 1:
        console.print(_total_table(findings))
    for sentence in findings.advice:
        console.print(Text(sentence, style="bold"))


def _print_head(findings: Findings) -> None:
    for decision in findings.backends:
        if decision.accepted:
            console.print(Text.assemble("int8 by ", (decision.backend, "bold green"), f": {decision.reason}"))
            break
        console.print(Text(f"int8 not by {decision.backend}: {decision.reason}", style="yellow"))
    console.print(Text(f"{findings.dtype} by torch {torch.__version__}, {findings.threads} threads"))
    read, math = findings.limits.bandwidth, findings.limits.rate
    limits = "not measured, for that takes the native kernels"
    if read and math:
        limits = f"read {read / 1e9:.1f} GB/s, math {math / 1e9:.0f} GFLOP/s, measured during this run"
    console.print(Text(f"limits: {limits}"))
    if (findings.other_programs or 0) > _QUIET:
        busy = f"other programs kept {findings.other_programs:.1f} processors busy"
        console.print(Text(f"{busy}: do not trust the times", style="yellow"))
    if findings.kept_float:
        kept = f"linear layers that stay float and are not timed: {_short(findings.kept_float)}"
        console.print(Text(kept, style="yellow"))
    console.print()


def _shape_table(findings: Findings, shape: LinearShape) -> Table:
    numbers = ("batch", findings.dtype, "best", "int8", "best", "faster", "GB/s", "floor", "of limit")
    result = table(*numbers, right=numbers, title=_title(findings, shape))
    result.padding = (0, 1, 0, 0)  # nine columns in 80 characters
    for m in findings.of(shape):
        floor = findings.limits.floor(m.int8_bytes, m.operations)
        bound = "read" if findings.limits.binding(m.int8_bytes, m.operations) == "memory" else "math"
        result.add_row(
            *(str(m.batch), _ms(m.float_time.median), _dim(_ms(m.float_time.best))),
            *(_ms(m.int8_time.median), _dim(_ms(m.int8_time.best)), _faster(m.speedup)),
            f"{m.int8_bytes / m.int8_time.median / 1e9:.1f}",
            *(("-", "-") if floor is None else (_ms(floor), f"{floor / m.int8_time.median:.0%} {bound}")),
        )
    return result


def _title(findings: Findings, shape: LinearShape) -> str:
    if not shape.names:
        return f"{shape}, ms a call"
    layers = f"{shape.count} layers" if shape.count > 1 else "1 layer"
    bias = " with bias" if shape.bias else ""
    return f"{shape}{bias}, {layers}, ms a call\n[not bold dim]{escape(_short(shape.names))}[/]"


def _short(names: tuple[str, ...]) -> str:
    """Names with `*` for the numbers of a stack of layers, each once."""
    patterns = dict.fromkeys(re.sub(r"\d+", "*", name) for name in names)
    return ", ".join(shown(pattern) or "(the root)" for pattern in patterns)


def _total_table(findings: Findings) -> Table:
    layers = sum(shape.count for shape in findings.shapes)
    numbers = ("batch", findings.dtype, "int8", "faster")
    result = table(*numbers, right=numbers, title=f"all {layers} layers once, ms")
    for total in totals(findings.measurements):
        times = (_ms(total.float_seconds), _ms(total.int8_seconds))
        result.add_row(str(total.batch), *times, _faster(total.speedup))
    return result


def _ms(seconds: float) -> str:
    """Milliseconds with three digits, without a unit.

    Example:
        >>> _ms(0.0123456), _ms(0.00000432), _ms(1.5)
        ('12.3', '0.0043', '1500')
    """
    value = seconds * 1e3
    digits = (
        4 if value < 0.0995 else 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    )
    return f"{value:.{digits}f}"


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _faster(speedup: float) -> Text:
    return Text(f"{speedup:.2f}x", style="yellow" if is_slower(speedup) else "green")


def document(findings: Findings) -> dict[str, Any]:
    """The findings as plain data; times in seconds, sizes in bytes."""
    return {
        "source": findings.source,
        "dtype": findings.dtype,
        "threads": findings.threads,
        "torch": torch.__version__,
        "backends": [
            {"backend": d.backend, "accepted": d.accepted, "reason": d.reason} for d in findings.backends
        ],
        "limits": {
            "bytes_per_second": findings.limits.bandwidth,
            "operations_per_second": findings.limits.rate,
            "last_level_cache_bytes": last_level_cache(),
        },
        "other_programs_processors": findings.other_programs,
        "shapes": [_shape_document(findings, shape) for shape in findings.shapes],
        "kept_float": list(findings.kept_float),
        "totals": [
            {
                "batch": total.batch,
                "float_seconds": total.float_seconds,
                "int8_seconds": total.int8_seconds,
                "speedup": total.speedup,
            }
            for total in totals(findings.measurements)
        ],
        "advice": findings.advice,
    }


def _shape_document(findings: Findings, shape: LinearShape) -> dict[str, Any]:
    own = findings.of(shape)
    return {
        "out_features": shape.out_features,
        "in_features": shape.in_features,
        "bias": shape.bias,
        "count": shape.count,
        "names": list(shape.names),
        "slower_from_batch": crossover((m.batch, m.speedup) for m in own),
        "measurements": [
            {
                "batch": m.batch,
                "float": _timing_document(m.float_time),
                "int8": _timing_document(m.int8_time),
                "speedup": m.speedup,
                "bytes": m.int8_bytes,
                "operations": m.operations,
                "bytes_per_second": m.int8_bytes / m.int8_time.median,
                "floor_seconds": findings.limits.floor(m.int8_bytes, m.operations),
                "bound_by": findings.limits.binding(m.int8_bytes, m.operations),
            }
            for m in own
        ],
    }


def _timing_document(timing: Timing) -> dict[str, Any]:
    return {"median_seconds": timing.median, "best_seconds": timing.best, "samples": len(timing.seconds)}
