"""What model folders of every library have in common: a config in JSON, and float weights in safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from w8a16.checkpoint import as_resource_error, shown
from w8a16.errors import CheckpointError, ResourceError

_LISTED = 10
_LONGEST = 100_000_000  # bytes


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON object of a folder.

    Raises:
        ResourceError: no such folder, or the file cannot be read.
        CheckpointError: no such file, or not a JSON object.
    """
    file = folder / name
    try:
        if not folder.is_dir():
            what = "not a folder" if folder.exists() else "no such folder"
            raise ResourceError(f"{shown(folder)}: {what}; expected a model folder")
        if not file.is_file():
            raise CheckpointError(f"{shown(folder)}: no {name}; expected a model folder")
        with file.open("rb") as opened:
            raw = opened.read(_LONGEST)
    except OSError as error:
        raise as_resource_error(file, error) from error
    try:
        config = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown(file)}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{shown(file)}: expected a JSON object")
    return config


def some(names: list[str]) -> str:
    """Up to ten names, fit to be printed."""
    more = f", ... ({len(names) - _LISTED} more)" if len(names) > _LISTED else ""
    return ", ".join(shown(name) for name in names[:_LISTED]) + more
