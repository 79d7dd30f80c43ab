"""Progress through stages that have names, on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SECONDS_BETWEEN_EVENTS = 0.5

Stages = Callable[[str, int, int], None]
"""Called as `(stage, done, total)`."""


@contextmanager
def stages(as_json: bool) -> Iterator[Stages]:
    """A bar for each stage on a terminal; yields the callback.

    With `as_json` one JSON object a line, at most two a second and the end of each stage:
    `{"event": "progress", "what": ..., "done": ..., "total": ..., "seconds": ...}`.
    """
    if as_json:
        yield _events()
        return
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield lambda stage, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total or None)
            progress.update(bars[stage], completed=done, total=total or None)

        yield show


def _events() -> Stages:
    started = time.perf_counter()
    shown = started - _SECONDS_BETWEEN_EVENTS

    def show(stage: str, done: int, total: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if done != total and now - shown < _SECONDS_BETWEEN_EVENTS:
            return
        shown = now
        event = {"event": "progress", "what": stage, "done": done, "total": total}
        print(json.dumps({**event, "seconds": round(now - started, 3)}), file=sys.stderr, flush=True)

    return show
