"""The folder of a study: finished cells and trained models, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from w8a16.errors import MissingExtraError, OutputRefusedError
from w8a16.study.runner.settings import CellKey, Settings
from w8a16.study.scenarios import Pretrained, Progress, Scenario

_MARK = "cells"


class Folder:
    """Keeps what is done; an interrupted run loses no more than the cells it was at.

    Raises:
        OutputRefusedError: the folder holds other things than a study.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise OutputRefusedError(f"{path}: expected a folder for the study, found a file")
        if path.is_dir() and any(path.iterdir()) and not (path / _MARK).is_dir():
            raise OutputRefusedError(f"{path}: expected an empty folder or one of a study, found other files")
        (path / _MARK).mkdir(parents=True, exist_ok=True)
        self.path = path

    def read_cell(self, settings: Settings, key: CellKey) -> dict[str, Any] | None:
        """The finished cell of these settings; None if there is none."""
        path = self._cell(settings, key)
        if not path.exists():
            return None
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cell

    def write_cell(self, settings: Settings, key: CellKey, cell: dict[str, Any]) -> None:
        """Keep a finished cell."""
        write_json(self._cell(settings, key), cell)

    def model(
        self, scenario: Scenario, settings: Settings, key: CellKey, progress: Progress
    ) -> tuple[nn.Module, bool]:
        """The trained model of a cell, and whether it was here already."""
        if isinstance(scenario, Pretrained):
            return scenario.train(key.size, key.seed, settings.quick, progress), True
        try:
            from safetensors.torch import load_model, save_model  # noqa: PLC0415
        except ImportError as error:
            raise MissingExtraError("safetensors", "study", "keeping trained models") from error
        path = self.path / "models" / f"{key}-{settings.model_fingerprint(key)}.safetensors"
        if path.exists():
            model = scenario.build(key.size)
            load_model(model, str(path))  # strict: every name and shape
            return model.eval(), True
        model = scenario.train(key.size, key.seed, settings.quick, progress)
        _atomic(path, lambda part: save_model(model, str(part)))
        return model, False

    def _cell(self, settings: Settings, key: CellKey) -> Path:
        return self.path / _MARK / f"{key}-{settings.cell_fingerprint(key)}.json"


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON under its name only when it is complete; the same data are the same bytes."""
    text = json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    _atomic(path, lambda part: part.write_text(text, encoding="utf-8"))


def _atomic(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
