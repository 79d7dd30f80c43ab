"""Check every entry and show a line for each."""

from __future__ import annotations

import json
import logging
import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from zoo.entry import Entry
from zoo.result import CHECKS, NOT_APPLICABLE, OK, Result

HEADINGS = ("architecture", "family", *CHECKS, "coverage", "published", "error", "drift")


def run(entries: Sequence[Entry], check: Callable[[Entry], Result], console: Console) -> list[Result]:
    """Check each entry; a crash of one is its result, not the end."""
    torch.set_num_threads(1)  # on tensors of this size threads only wait for each other
    _hush()
    results = []
    columns = (TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(entries))
        for entry in entries:
            progress.update(task, description=entry.name)
            results.append(_checked(entry, check))
            progress.advance(task)
    return results


def _checked(entry: Entry, check: Callable[[Entry], Result]) -> Result:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return check(entry)
    except Exception as error:
        return Result(entry.name, entry.family, runs=f"crashed: {type(error).__name__}: {error}")


def _hush() -> None:
    """Tiny models make the libraries warn about everything; none of it is about the weights."""
    logging.disable(logging.WARNING)


def show(results: Sequence[Result], console: Console) -> None:
    """Print the table, what went wrong, and a line that sums it up."""
    table = Table(*HEADINGS, box=None, header_style="bold", padding=(0, 1))
    for result in results:
        table.add_row(*_cells(result))
    console.print(table)
    for result in results:
        for check, text in result.problems.items():
            console.print(f"{result.name} {check}: {text}", style="red", markup=False, soft_wrap=True)
    console.print(summary(results), soft_wrap=True)


def show_markdown(results: Sequence[Result]) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + " --- |" * len(HEADINGS)]
    lines += [f"| {' | '.join(_cells(result))} |" for result in results]
    return "\n".join([*lines, "", summary(results)])


def summary(results: Sequence[Result]) -> str:
    """One line: how many architectures passed everything, and how much of them is int8."""
    good = sum(not result.problems for result in results)
    tiny = [result.coverage for result in results if result.coverage is not None]
    full = [result.published_coverage for result in results if result.published_coverage is not None]
    parts = [f"{good} of {len(results)} architectures pass every check"]
    if tiny:
        parts.append(f"coverage {statistics.mean(tiny):.1%} on average, {min(tiny):.1%} at the least")
    if full:
        parts.append(
            f"in published sizes {statistics.mean(full):.1%} and {min(full):.1%} ({len(full)} of them)"
        )
    parts.append(f"{sum(result.seconds for result in results):.0f} s")
    return "; ".join(parts)


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write all results as JSON."""
    path.write_text(json.dumps([result.to_dict() for result in results], indent=1) + "\n", encoding="utf-8")


def _cells(result: Result) -> list[str]:
    return [
        result.name,
        result.family,
        *(_verdict(getattr(result, check)) for check in CHECKS),
        _share(result.coverage),
        _share(result.published_coverage),
        _number(result.error),
        _number(result.drift),
    ]


def _verdict(text: str) -> str:
    if text == OK:
        return "ok"
    return "–" if text.startswith(NOT_APPLICABLE) else "FAIL"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
