"""The study's page: tables and sentences that are made from the results, and from nothing else.

A sentence that draws a conclusion is there only if an interval says so: a cost is "shown" where the
95 % interval of the loss excludes 0 on the bad side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from w8a16.convert import size as size_text
from w8a16.study.report.figures import number, percent, times
from w8a16.study.report.pages import render_markdown
from w8a16.study.report.study_charts import VARIANT_ORDER
from w8a16.study.report.study_results import Loss, Row, chosen, distinct, largest_size, rows_of
from w8a16.study.variants import VARIANTS


def study_page(results: dict[str, Any], charts: Sequence[Path] = ()) -> str:
    """The page as Markdown.

    Args:
        results: the document that the study writes.
        charts: the files of `study_charts`, in a folder beside the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    rows = rows_of(results)
    int8 = [row for row in rows if row.variant == "int8"]
    content = {
        "command": _command(results["settings"]),
        "settings": results["settings"],
        "versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        "scenarios": results["scenarios"],
        "charts": {path.stem: f"{path.parent.name}/{path.name}" for path in charts},
        "models": _models(rows),
        "losses": [_loss_row(row, rows) for row in int8],
        "tally": _tally(int8),
        "costs": [_cost_row(row) for row in _costs(int8)],
        "textbook": _textbook(rows),
        "quantizers": _quantizers(rows),
        "tails": _tails(rows_of(results, "tails")),
        "peers": _peers(rows_of(results, "peers"), int8),
    }
    return render_markdown("study.md.j2", content)


def _command(settings: dict[str, Any]) -> str:
    """The command that makes such results."""
    words = ["w8a16 study"] + (["--quick"] if settings["quick"] else [])
    usual_sizes = ["small"] if settings["quick"] else ["small", "medium", "large"]
    if list(settings["sizes"]) != usual_sizes:
        words += [f"--size {size}" for size in settings["sizes"]]
    if settings["seeds"] != (1 if settings["quick"] else 3):
        words.append(f"--seeds {settings['seeds']}")
    return " ".join(words)


def loss_text(loss: Loss | None) -> str:
    """A loss with its interval.

    Example:
        >>> loss_text(Loss(0.0012, -0.0001, 0.0025)), loss_text(Loss(0.0, 0.0, 0.0)), loss_text(None)
        ('0.0012 (-0.0001 to 0.0025)', '0', 'n/a')
    """
    if loss is None:
        return "n/a"
    if loss.low == loss.high == loss.value:
        return number(loss.value)
    return f"{number(loss.value)} ({number(loss.low)} to {number(loss.high)})"


def _models(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Every trained model with its float32 score."""
    return [
        {
            "title": row.title,
            "size": row.size,
            "parameters": f"{row.parameters:,}",
            "metric": f"{row.metric}, {row.unit}" if row.unit else row.metric,
            "score": number(row.score),
        }
        for row in chosen(rows, variant="float", dtype="float32")
    ]


def _loss_row(row: Row, rows: Sequence[Row]) -> dict[str, str]:
    same = {"scenario": row.scenario, "size": row.size}
    base = chosen(rows, variant="float", dtype="float32", **same)
    own = chosen(rows, variant="float", dtype=row.dtype, **same)
    ratio = base[0].bytes / row.bytes if base and base[0].bytes and row.bytes else None
    return {
        "title": row.title,
        "size": row.size,
        "dtype": row.dtype,
        "metric": row.unit or row.metric,
        "float": loss_text(own[0].loss) if own and row.dtype != "float32" else "0",
        "int8": loss_text(row.loss),
        "alone": loss_text(row.loss_same_dtype),
        "smaller": times(ratio) if ratio else "n/a",
    }


def _costs(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.loss_same_dtype is not None and row.loss_same_dtype.shown]


def _cost_row(row: Row) -> dict[str, str]:
    loss = row.loss_same_dtype or Loss(0.0, 0.0, 0.0)
    before = None if row.score is None else abs(row.score) - abs(loss.value)
    return {
        "title": row.title,
        "size": row.size,
        "dtype": row.dtype,
        "loss": f"{loss_text(loss)} {row.unit or row.metric}",
        "share": percent(loss.value / before) if before and before > 0 else "n/a",
    }


def _tally(rows: Sequence[Row]) -> dict[str, int]:
    """How many intervals contain 0, and on which side of it the others lie."""
    found = [row.loss_same_dtype for row in rows if row.loss_same_dtype is not None]
    worse, better = sum(loss.shown for loss in found), sum(loss.gain for loss in found)
    return {
        "all": len(found),
        "worse": worse,
        "better": better,
        "open": len(found) - worse - better,
        "broken": sum(row.score is None for row in rows),
    }


def _textbook(rows: Sequence[Row]) -> dict[str, Any]:
    """The textbook recipe beside ours, where rows can flip: in float32 none does."""
    lines = []
    theirs, ours = [], []
    for row in chosen(rows, variant="textbook"):
        if row.dtype == "float32":
            continue
        same = {"dtype": row.dtype, "scenario": row.scenario, "size": row.size}
        own = chosen(rows, variant="int8", **same)
        theirs.append(row)
        ours += own
        lines.append(
            {
                "title": row.title,
                "size": row.size,
                "dtype": row.dtype,
                "flips": percent(row.flip_rate),
                "textbook": loss_text(row.loss_same_dtype) if row.score is not None else row.note,
                "ours": loss_text(own[0].loss_same_dtype) if own else "n/a",
                "metric": row.unit or row.metric,
            }
        )
    return {"lines": lines, "theirs": len(_costs(theirs)), "ours": len(_costs(ours))}


def _quantizers(rows: Sequence[Row]) -> dict[str, Any]:
    """Losses in float32 of the largest models: a line for each quantizer, a column for each scenario."""
    own = [
        row
        for row in chosen(rows, dtype="float32")
        if row.variant != "float" and row.size == largest_size(rows, row.scenario)
    ]
    names = distinct(own, "variant")
    order = [name for name in VARIANT_ORDER if name in names]
    order += [name for name in names if name not in order]
    scenarios = distinct(own, "scenario")
    lines = []
    for name in order if len(order) > 1 else ():
        cells = [chosen(own, variant=name, scenario=scenario) for scenario in scenarios]
        lines.append({"name": name, "what": _sentence(name), "cells": [_cell(found) for found in cells]})
    heads = [chosen(own, scenario=scenario)[0] for scenario in scenarios]
    return {"heads": [f"{row.title}, {row.unit or row.metric}" for row in heads], "lines": lines}


def _sentence(name: str) -> str:
    if name == "int8":
        name = "per_channel"  # the simulation of what int8 is
    return VARIANTS[name].sentence if name in VARIANTS else ""


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return "n/a"
    loss = rows[0].loss
    mark = " \N{BLACK UP-POINTING SMALL TRIANGLE}" if loss is not None and loss.shown else ""
    return (number(loss.value) if loss is not None else "n/a") + mark


def _tails(rows: Sequence[Row]) -> dict[str, Any]:
    """Float, int8 and repaired for each factor, and how often the repair sufficed."""
    lines = []
    needed = mended = 0
    notes = []
    for row in chosen(rows, variant="float"):
        if row.score is None:
            notes.append(f"{row.title}, {row.size}: {row.note}")
            continue
        same = {"scenario": row.scenario, "size": row.size, "factor": row.factor}
        int8, repaired = (chosen(rows, variant=name, **same) for name in ("int8", "repaired"))
        cost = bool(int8 and int8[0].loss and int8[0].loss.shown)
        needed += cost
        mended += bool(cost and repaired and repaired[0].loss and not repaired[0].loss.shown)
        lines.append(
            {
                "title": row.title,
                "size": row.size,
                "factor": number(row.factor),
                "float": loss_text(row.loss),
                "int8": loss_text(int8[0].loss) if int8 else "n/a",
                "repaired": _repaired(repaired),
                "added": percent(repaired[0].share_added) if repaired else "n/a",
                "metric": row.unit or row.metric,
            }
        )
    return {"lines": lines, "needed": needed, "mended": mended, "notes": notes}


def _repaired(rows: Sequence[Row]) -> str:
    if not rows:
        return "n/a"
    return rows[0].note if rows[0].score is None and rows[0].note else loss_text(rows[0].loss)


def _peers(rows: Sequence[Row], int8: Sequence[Row]) -> dict[str, Any]:
    """Other libraries on the same models, ours beside them."""
    lines = []
    measured = [row for row in rows if row.score is not None]
    for row in measured:
        same = {"scenario": row.scenario, "size": row.size, "dtype": row.dtype}
        ours = chosen(int8, **same)
        lines.append(
            {
                "name": row.variant,
                "title": row.title,
                "size": row.size,
                "loss": loss_text(row.loss),
                "bytes": size_text(round(row.bytes)) if row.bytes else "n/a",
                "ours": loss_text(ours[0].loss) if ours else "n/a",
                "our_bytes": size_text(round(ours[0].bytes)) if ours and ours[0].bytes else "n/a",
                "metric": row.unit or row.metric,
            }
        )
    without = {f"{row.variant}: {row.note}" for row in rows if row.score is None}
    return {"lines": lines, "without": sorted(without)}
