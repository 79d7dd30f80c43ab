"""How the benchmarks print: the same table for a terminal and for a page, and JSON for the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from w8a16.cli.show import table as rich_table


@dataclass
class Report:
    """A table of texts; the first column names the row, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences below it."""

    def markdown(self) -> str:
        """For a page: the table, then the notes."""
        lines = [_line(self.columns), _line(["---", *["--:"] * (len(self.columns) - 1)])]
        lines += [_line(row) for row in self.rows]
        return "\n".join([f"{self.title}:", "", *lines, *(f"\n{note}" for note in self.notes)])

    def print(self, console: Console) -> None:
        """For a terminal."""
        shown = rich_table(*self.columns, right=self.columns[1:], title=self.title)
        for row in self.rows:
            shown.add_row(*(_styled(cell) for cell in row))
        console.print(shown)
        for note in self.notes:
            console.print(Text(note.replace("\\*", "*"), style="dim"))


def publish(reports: Sequence[Report], as_markdown: bool) -> None:
    """Print all reports."""
    if as_markdown:
        print("\n\n".join(report.markdown() for report in reports))
        return
    console = Console()
    for report in reports:
        report.print(console)


def write_json(path: str | None, data: dict[str, Any]) -> None:
    """Write the results where they were asked for; `-` is standard output."""
    text = json.dumps(data, indent=1)
    if path == "-":
        print(text)
    elif path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Tell what is going on, on standard error."""
    print(text, file=sys.stderr, flush=True)


def milliseconds(seconds: float) -> str:
    """Three digits, without a unit."""
    value = seconds * 1e3
    digits = (
        4 if value < 0.0995 else 3 if value < 0.9995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    )
    return f"{value:.{digits}f}"


def machine_note(machine: dict[str, Any], other_programs: float | None) -> str:
    """One sentence on what the figures were measured on."""
    busy = other_programs if other_programs is not None and other_programs > 0.1 else None
    disturbed = "" if busy is None else f" Disturbed: other programs kept {busy:.1f} processors busy."
    return (
        f"{machine['processor']}, {threads(machine)}, {machine['instruction_set']}, "
        f"torch {machine['torch']}; int8 by {machine['backend']}.{disturbed}"
    )


def threads(machine: dict[str, Any]) -> str:
    """How many threads ran."""
    return "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _styled(cell: str) -> Text:
    """Markdown's bold and its escaped asterisk, as a terminal shows them."""
    bold = cell.startswith("**") and cell.endswith("**")
    return Text(cell[2:-2] if bold else cell.replace("\\*", "*"), style="bold green" if bold else "")
