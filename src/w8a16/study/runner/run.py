"""Goes through the cells of a study, each on one thread: in this process, or in several.

The models are small, so two cells at once are quicker than one on two threads; and with one thread a
cell, the results do not depend on how many run at once. Other processes are spawned, not forked: torch's
threads do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from w8a16.errors import ResourceError, UsageError
from w8a16.study.runner.cell import measure_cell
from w8a16.study.runner.folder import Folder
from w8a16.study.runner.settings import CellKey, Settings
from w8a16.study.scenarios import Scenario

Watch = Callable[[CellKey, str, float], None]
"""Called with the cell, what is being done, and the share of the cell that is done; 1 when it is finished."""

_Event = tuple[CellKey, str, float]


@dataclass
class Study:
    """What a run did."""

    folder: Folder
    reused: list[CellKey] = field(default_factory=list)
    """Finished earlier, with the same settings."""
    measured: list[CellKey] = field(default_factory=list)
    """Finished now, in this order."""


def run_study(
    scenarios: Sequence[Scenario],
    settings: Settings,
    path: Path,
    *,
    at_once: int = 1,
    watch: Watch = lambda key, what, share: None,
) -> Study:
    """Measure every cell that is not finished yet.

    Args:
        scenarios: as `scenario_named` makes them.
        settings: sizes, seeds and how thoroughly.
        path: the folder; cells that are finished there with the same settings are kept.
        at_once: how many cells run at a time; more than 1 needs a script that can be imported.
        watch: called as work goes on, in this process.

    Raises:
        UsageError: no scenarios, no seeds, or none at once.
        OutputRefusedError: the folder holds other things.
        ResourceError: a process was killed.
    """
    for name, count in (("scenarios", len(scenarios)), ("seeds", settings.seeds), ("at_once", at_once)):
        if count < 1:
            raise UsageError(f"{name}: expected at least 1, got {count}")
    study = Study(Folder(path))
    waiting = []
    for scenario, key in settings.cells(scenarios):
        if study.folder.read_cell(settings, key) is None:
            waiting.append((scenario, key))
        else:
            study.reused.append(key)
            watch(key, "finished earlier", 1.0)
    if at_once == 1:
        for scenario, key in waiting:
            _work(scenario, key, settings, path, watch)
            study.measured.append(key)
    elif waiting:
        _in_processes(waiting, settings, study, min(at_once, len(waiting)), watch)
    return study


def _work(scenario: Scenario, key: CellKey, settings: Settings, path: Path, watch: Watch) -> None:
    with _one_thread():
        measure_cell(scenario, key, settings, Folder(path), lambda what, share: watch(key, what, share))
    watch(key, "finished", 1.0)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_processes(
    waiting: Sequence[tuple[Scenario, CellKey]], settings: Settings, study: Study, count: int, watch: Watch
) -> None:
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(events,))
    with _listening(events, watch):
        try:
            futures: dict[Future[None], CellKey] = {
                pool.submit(_work_there, scenario, key, settings, study.folder.path): key
                for scenario, key in waiting
            }
            while futures:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    study.measured.append(futures.pop(future))
        except BrokenProcessPool as error:
            raise ResourceError(
                "a process of the study was killed; if memory ran out, run fewer at once (--threads). "
                "What was finished is kept: run the study again"
            ) from error
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()  # what they were at is lost, what they finished is kept
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _listening(events: Any, watch: Watch) -> Iterator[None]:
    """Hand on what other processes report."""
    ended = threading.Event()

    def listen() -> None:
        while True:
            try:
                watch(*events.get(timeout=0.2))
            except queue.Empty:
                if ended.is_set():
                    return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_events: Any = None


def _start(events: Any) -> None:
    global _events
    _events = events


def _work_there(scenario: Scenario, key: CellKey, settings: Settings, path: Path) -> None:
    _work(scenario, key, settings, path, lambda *event: _events.put(event))
