"""A file, a folder of shards, or a folder of several models, each in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

from w8a16.checkpoint.container.index import INDEX_SUFFIX
from w8a16.checkpoint.container.printable import as_resource_error
from w8a16.checkpoint.container.shards import Shards, open_shards


def find_checkpoints(path: Path, *, weights: str | None = None) -> list[tuple[Path, Shards]]:
    """Open what a path holds: `(place below the path, files)` of each checkpoint, by name.

    A folder with safetensors files is one checkpoint, at `Path()`; else each folder in it that has some
    is one, as in a diffusers pipeline.

    Raises:
        CheckpointError: there is none, or its files are broken.
        ResourceError: a file or folder cannot be read.
    """
    try:
        names = sorted(os.listdir(path)) if path.is_dir() and not _has_weights(path) else []
        found = [Path(name) for name in names if _has_weights(path / name)]
    except OSError as error:
        raise as_resource_error(path, error) from error
    if not found:
        return [(Path(), open_shards(path, weights=weights))]  # which says what is missing, if anything
    return [(place, open_shards(path / place, weights=weights)) for place in found]


def _has_weights(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any(name.endswith((".safetensors", INDEX_SUFFIX)) for name in os.listdir(folder))
