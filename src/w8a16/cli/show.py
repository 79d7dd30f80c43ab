"""How tables, sizes and JSON look; one place, so that all commands look alike."""

from __future__ import annotations

import json
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from w8a16.convert import Plan, grouped, size, summary

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
    columns = ("verdict", "module", "weights", "before", "after", "why")
    result = table(*columns, right=("weights", "before", "after"), title=title)
    for group in grouped(plan):
        result.add_row(
            Text(group.verdict, style=VERDICT_STYLE[group.verdict]),
            group.module_type,
            str(group.count),
            size(group.bytes_before),
            size(group.bytes_after),
            Text(group.sentence),
        )
    other = (size(plan.other_bytes), size(plan.other_bytes_after))
    result.add_row("", "other", "", *other, "vectors and buffers")
    result.add_section()
    total = (size(plan.bytes_before), f"[bold]{size(plan.bytes_after)}[/]")
    result.add_row("", "[bold]total[/]", str(len(plan.rows)), *total, summary(plan))
    return result
