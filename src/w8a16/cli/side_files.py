"""The files of a source that are no weights: descriptions are copied, code and pickles are not."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from w8a16.checkpoint import as_resource_error

_COPIED = {".json", ".txt", ".md", ".model", ".jinja", ".tiktoken", ".vocab", ".spm", ".bpe"}
_COPIED_NAMES = {"LICENSE", "NOTICE"}


@dataclass
class SideFiles:
    """What was copied and what was left out; names relative to the source."""

    copied: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def copy_side_files(source: Path, target: Path, read: Collection[Path]) -> SideFiles:
    """Copy config, tokenizer and text files with their sub-folders; code, pickles and the rest stay.

    Args:
        source: the folder.
        target: the folder that gets the copies; what it holds already is left alone.
        read: the weight files and indexes that were quantized.

    Raises:
        ResourceError: a file cannot be read or written.
    """
    files = SideFiles()
    try:
        for file in sorted(source.rglob("*")):
            _copy_one(file, file.relative_to(source), target, read, files)
    except OSError as error:
        raise as_resource_error(error.filename or target, error) from error
    return files


def _copy_one(file: Path, name: Path, target: Path, read: Collection[Path], files: SideFiles) -> None:
    hidden = next((part for part in name.parts[:-1] if part.startswith(".")), None)
    if hidden:  # version control, download caches
        files.left_out += [] if f"{hidden}/" in files.left_out else [f"{hidden}/"]
        return
    if file in read or not file.is_file():
        return
    wanted = file.suffix in _COPIED or file.name in _COPIED_NAMES
    if not wanted or file.name.endswith(".index.json"):  # an index names shards that are not here
        files.left_out.append(str(name))
        return
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target / name)
    files.copied.append(str(name))
