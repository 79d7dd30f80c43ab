"""`w8a16 study`: what 8 bits do to small real models of every modality, trained on the spot."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from w8a16.cli.show import console, print_json
from w8a16.cli.study_tables import cost_table, loss_table, tails_table
from w8a16.errors import MissingExtraError, UsageError
from w8a16.study.runner import CellKey, Settings, processor_seconds, run_study, study_results
from w8a16.study.runner.folder import Folder, write_json
from w8a16.study.runner.run import Watch
from w8a16.study.scenarios import SCENARIOS, SIZES, scenario_named

_MOST_AT_ONCE = 8  # unless asked for: each is a process with a torch of its own, half a gigabyte
_REPORT_LIBRARIES = ("jinja2", "matplotlib")


def run(
    names: Sequence[str],
    sizes: Sequence[str],
    seeds: int | None,
    quick: bool,
    out: Path,
    threads: int | None,
    as_json: bool,
) -> None:
    """Check the options, measure what is missing, write the results, and show them."""
    settings = _settings(sizes, seeds, quick)
    for library in _REPORT_LIBRARIES:
        if find_spec(library) is None:
            raise MissingExtraError(library, "study", "the study's page")
    scenarios = [scenario_named(name) for name in dict.fromkeys(names or SCENARIOS)]
    at_once = _processors() if threads is None else threads
    if at_once < 1:
        raise UsageError(f"--threads: expected at least 1, got {threads}")
    started = time.perf_counter()
    keys = [key for _, key in settings.cells(scenarios)]
    with _progress(keys, as_json) as watch:
        study = run_study(scenarios, settings, out, at_once=at_once, watch=watch)
    results = study_results(study.folder, settings, scenarios)
    write_json(out / "results.json", results)
    seconds = processor_seconds(study.folder, settings, scenarios)
    _write_environment(study.folder, seconds, at_once, time.perf_counter() - started, len(study.measured))
    files = _write_pages(results, out)
    if as_json:
        print_json({**results, "files": [str(path) for path in files]})
        return
    console.print(loss_table(results))
    console.print(tails_table(results))
    console.print(cost_table(seconds))
    for path in files:
        console.print(Text(f"wrote {path}"), soft_wrap=True)


def _settings(sizes: Sequence[str], seeds: int | None, quick: bool) -> Settings:
    for size in sizes:
        if size not in SIZES:
            raise UsageError(f"--size: expected one of {', '.join(SIZES)}, got {size!r}")
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds: expected at least 1, got {seeds}")
    chosen = tuple(size for size in SIZES if size in sizes) or (SIZES[:1] if quick else SIZES)
    return Settings(chosen, seeds or (1 if quick else 3), quick)


def _processors() -> int:
    import torch

    return min(_MOST_AT_ONCE, torch.get_num_threads())


def _write_environment(
    folder: Folder, seconds: dict[str, dict[str, float]], at_once: int, wall: float, measured: int
) -> None:
    """What differs from run to run stays out of the results."""
    environment = {
        "system": platform.platform(),
        "machine": platform.machine(),
        "cells_at_once": at_once,
        "cells_measured": measured,
        "wall_seconds": round(wall, 1),
        "processor_seconds": seconds,
    }
    write_json(folder.path / "environment.json", environment)


def _write_pages(results: dict[str, Any], out: Path) -> list[Path]:
    from w8a16.study.report import study_charts, study_page

    charts = study_charts(results, out / "charts")
    page = out / "study.md"
    page.write_text(study_page(results, charts), encoding="utf-8")
    return [out / "results.json", page, *charts]


@contextmanager
def _progress(keys: Sequence[CellKey], as_json: bool) -> Iterator[Watch]:
    """A bar over the cells, with what each is at; with `as_json` one JSON object a line."""
    if as_json:
        yield _Events().show
        return
    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield lambda key, what, share: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal, transient=True) as bars:
        whole = bars.add_task("cells", total=len(keys))
        running: dict[CellKey, Any] = {}

        def watch(key: CellKey, what: str, share: float) -> None:
            if share >= 1:
                if key in running:
                    bars.remove_task(running.pop(key))
                bars.advance(whole)
                return
            if key not in running:
                running[key] = bars.add_task("", total=100)
            bars.update(running[key], completed=round(100 * share), description=f"{key}: {what}")

        yield watch


class _Events:
    """Progress for machines: one line a step, not one for each step of the training."""

    def __init__(self) -> None:
        self._last: dict[CellKey, str] = {}

    def show(self, key: CellKey, what: str, share: float) -> None:
        if self._last.get(key) == what:
            return
        self._last[key] = what
        event = {"event": "progress", "cell": str(key), "what": what, "share": round(share, 3)}
        print(json.dumps(event), file=sys.stderr, flush=True)
