"""What is shown while something runs: on standard error, so that standard output holds the result only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

_SECONDS_BETWEEN_EVENTS = 0.5


@contextmanager
def status(text: str, enabled: bool) -> Iterator[None]:
    """A spinner while something runs that has no measure."""
    terminal = Console(stderr=True)
    if not (enabled and terminal.is_terminal):
        yield
        return
    with terminal.status(Text(text)):
        yield


@contextmanager
def byte_progress(label: str, total: int, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Progress in bytes; yields the callback that takes the bytes done so far.

    A bar with rate and time left on a terminal; with `as_json` one JSON object a line, at most two a
    second: `{"event": "progress", "what": ..., "bytes": ..., "total": ..., "seconds": ...}`.
    """
    if as_json:
        events = _Events(label, total)
        yield events.show
        events.show(total, last=True)
        return
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield lambda done: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)


class _Events:
    """Progress for machines."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._started = time.perf_counter()
        self._shown = self._started - _SECONDS_BETWEEN_EVENTS

    def show(self, done: int, last: bool = False) -> None:
        now = time.perf_counter()
        if not last and now - self._shown < _SECONDS_BETWEEN_EVENTS:
            return
        self._shown = now
        event = {"event": "progress", "what": self._what, "bytes": done, "total": self._total}
        print(json.dumps({**event, "seconds": round(now - self._started, 3)}), file=sys.stderr, flush=True)
