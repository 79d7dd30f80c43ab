"""The study as one JSON document: every cell, and the seeds put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from w8a16.errors import CheckpointError
from w8a16.study.runner.folder import Folder
from w8a16.study.runner.pooling import pooled
from w8a16.study.runner.settings import PEER_LIBRARIES, CellKey, Settings, installed, versions
from w8a16.study.scenarios import SIZES, Scenario

FORMAT = "w8a16-study"
VERSION = 1


def study_results(folder: Folder, settings: Settings, scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """Read the finished cells and put them together; the same cells give the same document.

    Raises:
        CheckpointError: a cell is missing.
    """
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, entry in _entries(folder, settings, scenarios):
        entries.setdefault((key.scenario, key.size), []).append(entry)
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {"sizes": list(settings.sizes), "seeds": settings.seeds, "quick": settings.quick},
        "versions": versions(),
        "peers": {name: installed(name) for name in PEER_LIBRARIES},
        "scenarios": [_described(scenario) for scenario in scenarios],
        "cells": [entry["cell"] for group in entries.values() for entry in group],
        "pooled": [pooled(group) for group in entries.values()],
    }


def processor_seconds(
    folder: Folder, settings: Settings, scenarios: Sequence[Scenario]
) -> dict[str, dict[str, float]]:
    """What each cell cost when it was measured, by its parts; "training (found)" where it was kept before."""
    return {str(key): entry["seconds"] for key, entry in _entries(folder, settings, scenarios)}


def _entries(
    folder: Folder, settings: Settings, scenarios: Sequence[Scenario]
) -> Iterator[tuple[CellKey, dict[str, Any]]]:
    """The cells in the order of the report: scenario, size from small to large, seed."""
    place = {scenario.name: number for number, scenario in enumerate(scenarios)}
    keys = [key for _, key in settings.cells(scenarios)]
    for key in sorted(keys, key=lambda key: (place[key.scenario], SIZES.index(key.size), key.seed)):
        entry = folder.read_cell(settings, key)
        if entry is None:
            raise CheckpointError(f"{folder.path}: the cell {key} is missing: run the study again")
        yield key, entry


def _described(scenario: Scenario) -> dict[str, str]:
    names = ("name", "title", "modality", "task", "source")
    return {name: str(getattr(scenario, name)) for name in names}
