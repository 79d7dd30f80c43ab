"""Which file of a path holds the weights: the file itself, or the one a folder offers."""

from __future__ import annotations

import os
from pathlib import Path

from w8a16.checkpoint.container.index import INDEX_SUFFIX, is_safe_name
from w8a16.checkpoint.container.printable import as_resource_error, shown, shown_list
from w8a16.errors import CheckpointError, ResourceError, UsageError

_STANDARD = tuple(
    f"{stem}{suffix}"
    for stem in ("model", "diffusion_pytorch_model")
    for suffix in (".safetensors", INDEX_SUFFIX)
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def find_weights(path: Path, weights: str | None = None) -> Path:
    """Return the safetensors file or the index that a path means.

    In a folder the names that transformers and diffusers write come first, then any other index, then
    any other file; of the first kind that is there, there must be exactly one, or `weights` chooses.

    Raises:
        CheckpointError: the folder has no weights, or several; pickle files are never read.
        ResourceError: no such file or folder.
        UsageError: `weights` is not the name of a file in the folder.
    """
    try:
        if not path.is_dir():
            return _file(path, weights)
        names = sorted(os.listdir(path))
    except OSError as error:
        raise as_resource_error(path, error) from error
    if weights is not None:
        return path / _chosen(path, names, weights)
    names = [name for name in names if not name.startswith(".")]  # unfinished downloads, finder's copies
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    files = [name for name in names if name.endswith(".safetensors")]
    for candidates in ([name for name in names if name in _STANDARD], indexes, files):
        if len(candidates) == 1:
            return path / candidates[0]
        if candidates:
            raise CheckpointError(
                f"{shown(path)}: holds {shown_list(candidates)}: choose one with weights=NAME "
                f"(--weights NAME){_hint(candidates)}"
            )
    raise CheckpointError(f"{shown(path)}: no {_STANDARD[0]} and no {_STANDARD[1]}{_pickles(names)}")


def _file(path: Path, weights: str | None) -> Path:
    if weights is not None:
        raise UsageError(
            f"{shown(path)}: not a folder, so there is nothing to choose with weights={weights!r}"
        )
    if not os.path.lexists(path):
        raise ResourceError(f"{shown(path)}: no such file or folder")
    if path.name.endswith(_PICKLES):
        raise CheckpointError(f"{shown(path)}: expected a .safetensors file; pickle is never read")
    return path


def _chosen(path: Path, names: list[str], weights: str) -> str:
    if not (is_safe_name(weights) and weights.endswith((".safetensors", INDEX_SUFFIX))):
        raise UsageError(
            f"{shown(path)}: weights={weights!r}: expected the name of a .safetensors file or of a "
            f"*{INDEX_SUFFIX} in the folder"
        )
    if weights not in names:
        offered = [name for name in names if name.endswith((".safetensors", INDEX_SUFFIX))]
        raise UsageError(f"{shown(path)}: no {shown(weights)}; found: {shown_list(offered) or 'no weights'}")
    return weights


def _hint(candidates: list[str]) -> str:
    looks_sharded = all("-of-" in name for name in candidates)
    return "; shards of one checkpoint need their index (*.safetensors.index.json)" if looks_sharded else ""


def _pickles(names: list[str]) -> str:
    pickles = [name for name in names if name.endswith(_PICKLES)]
    return f" (found {shown_list(pickles)}: pickle is never read)" if pickles else ""
