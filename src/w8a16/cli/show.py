"""How tables, sizes and JSON look; one place, so that all commands look alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from w8a16.convert import Plan, PlanRow, size

console = Console()
VERDICT_STYLE = {"int8": "green", "float": "yellow"}


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=True))


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; the columns named in `right` are numbers."""
    result = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result


def plan_table(plan: Plan, title: str) -> Table:
    """The plan, one row for each group of like weights."""
    groups: dict[tuple[str, str, str], list[PlanRow]] = {}
    for row in plan.rows:
        groups.setdefault((row.verdict, row.module_type, row.sentence), []).append(row)
    result = table(
        "verdict",
        "module",
        "weights",
        "before",
        "after",
        "why",
        right=("weights", "before", "after"),
        title=title,
    )
    ordered = sorted(groups.items(), key=lambda g: (g[0][0] != "int8", -sum(r.bytes_before for r in g[1])))
    for (verdict, module_type, sentence), rows in ordered:
        before, after = sum(r.bytes_before for r in rows), sum(r.bytes_after for r in rows)
        style = VERDICT_STYLE[verdict]
        result.add_row(
            f"[{style}]{verdict}[/]", module_type, f"{len(rows)}", size(before), size(after), sentence
        )
    result.add_row(
        "", "other", "", size(plan.other_bytes), size(plan.other_bytes_after), "vectors and buffers"
    )
    result.add_section()
    share = plan.bytes_after / plan.bytes_before if plan.bytes_before else 1.0
    result.add_row(
        "",
        "[bold]total[/]",
        f"{len(plan.rows)}",
        size(plan.bytes_before),
        f"[bold]{size(plan.bytes_after)}[/]",
        f"{share:.0%} of the float bytes; {plan.coverage:.1%} of the weight bytes are int8",
    )
    return result


@contextmanager
def status(text: str, enabled: bool) -> Iterator[None]:
    """A spinner on standard error while something runs that has no measure."""
    terminal = Console(stderr=True)
    if not (enabled and terminal.is_terminal):
        yield
        return
    with terminal.status(Text(text)):
        yield


@contextmanager
def byte_progress(label: str, enabled: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar in bytes on standard error; yields the callback `(name, done, total)`."""
    terminal = Console(stderr=True)
    if not (enabled and terminal.is_terminal):
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda name, done, total: progress.update(task, completed=done, total=total)
