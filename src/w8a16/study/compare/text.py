"""A comparison as plain text: what `print` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from w8a16.convert import size
from w8a16.study.plain_text import text_table

if TYPE_CHECKING:
    from w8a16.study.compare.result import Comparison, TensorDrift

WORST = 5
"""How many modules the tables name."""


def comparison_text(comparison: Comparison) -> str:
    """The tables of a comparison, one under the other."""
    parts = [_summary(comparison), _outputs(comparison), _task(comparison)]
    parts += [_modules(comparison), _blame(comparison), _kept(comparison)]
    return "\n\n".join(part for part in parts if part)


def _summary(comparison: Comparison) -> str:
    before, after = comparison.bytes_before, comparison.bytes_after
    ratio = f", {before / after:.2f} times smaller" if after else ""
    return (
        f"{comparison.model}: {size(before)} to {size(after)}{ratio}; "
        f"{comparison.coverage:.1%} of the bytes of its matrices are int8\n"
        f"{comparison.samples} samples in {comparison.batches} batches"
    )


def _outputs(comparison: Comparison) -> str:
    rows = [(path or "output", *_drift_cells(drift)) for path, drift in comparison.outputs]
    return _table(("output", "SQNR", "cosine", "largest difference", "of"), rows)


def _task(comparison: Comparison) -> str:
    if comparison.task_name == "any":  # says the same of the outputs again
        return ""
    rows = [(name.replace("_", " "), str(metric)) for name, metric in comparison.task.items()]
    return _table((f"task: {comparison.task_name}", "value"), rows)


def _modules(comparison: Comparison) -> str:
    called = [module for module in comparison.modules if module.own is not None]
    worst = sorted(called, key=lambda module: module.own.sqnr_db if module.own else 0.0)[:WORST]
    rows = []
    for module in worst:
        weight = f"{module.weight.sqnr_db:.1f} dB" if module.weight else "-"
        own = f"{module.own.sqnr_db:.1f} dB" if module.own else "-"
        drifted = f"{module.drifted.sqnr_db:.1f} dB" if module.drifted else "-"
        rows.append((module.name or "(the model)", module.kind, weight, own, drifted))
    title = f"worst {len(rows)} of {len(comparison.modules)} int8 modules"
    silent = [module.name for module in comparison.modules if module.depth is None]
    note = f"\nnever called: {', '.join(silent)}" if silent else ""
    return _table((title, "kind", "weight", "output, float inputs", "output, drifted inputs"), rows) + note


def _blame(comparison: Comparison) -> str:
    rows = [
        (
            " = ".join((blame.name or "(the model)", *blame.tied)),
            f"{blame.share:.1%}",
            f"{blame.drift_without:.3g}",
            size(blame.bytes_added),
        )
        for blame in comparison.blame[:WORST]
    ]
    title = f"to blame, of {comparison.drift:.3g} {comparison.drift_unit}"
    untried = comparison.blame_untried
    note = f"\nnot tried: {len(untried)} with less error of their own" if untried else ""
    return _table((title, "share", "drift without it", "bytes to keep it float"), rows) + note


def _kept(comparison: Comparison) -> str:
    return _table(("stayed float", "because"), list(comparison.kept_float))


def _drift_cells(drift: TensorDrift) -> tuple[str, ...]:
    return (
        f"{drift.sqnr_db:.1f} dB",
        f"{drift.cosine:.6f}",
        f"{drift.largest_difference:.3g}",
        f"{drift.largest_reference:.3g}",
    )


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    return text_table([header, *rows])
