"""The names of stages, and which stages of runs that are over, or of others at work, lie beside a target."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

_LONGEST = 200  # bytes of the target's name in that of its stage, which must fit into 255 as well


@dataclass(frozen=True)
class Leftover:
    """A stage beside the target that is not ours."""

    path: Path
    size: int
    """Bytes of its files."""
    seconds: float
    """How long ago something in it changed last."""
    abandoned: bool
    """Whether its writer is known to be gone; False where the file system has no locks to tell."""
    removed: bool = False

    def gone(self) -> Leftover:
        """Return the same, removed."""
        return replace(self, removed=True)


def stage_names(target: Path) -> Iterator[Path]:
    """Names for a stage of this process, best first: one may be taken by a dead process of the same id."""
    first = f"{_prefix(target)}{os.getpid()}"
    for number in itertools.count(1):
        yield target.with_name(f"{first}.partial" if number == 1 else f"{first}-{number}.partial")


def stages_of(target: Path) -> list[Path]:
    """Every stage of this target, also those of other processes, by name; empty where none can be listed."""
    pattern = re.compile(re.escape(_prefix(target)) + r"\d+(-\d+)?\.partial")
    try:
        names = sorted(name for name in os.listdir(target.parent) if pattern.fullmatch(name))
    except OSError:  # a folder that may be written but not read
        return []
    return [target.with_name(name) for name in names]


def writer_of(stage: Path) -> str:
    """The process id in the name of a stage."""
    return stage.name.removesuffix(".partial").rpartition(".w8a16-")[2].partition("-")[0]


def describe(stage: Path, abandoned: bool) -> Leftover:
    """Measure a stage; what vanishes meanwhile, or cannot be read, does not count."""
    size, newest = 0, 0.0
    for folder, _, names in os.walk(stage):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            try:
                status = path.lstat()
            except OSError:
                continue
            size += 0 if path == Path(folder) else status.st_size
            newest = max(newest, status.st_mtime)
    return Leftover(stage, size, max(time.time() - newest, 0.0), abandoned)


def _prefix(target: Path) -> str:
    name = os.fsencode(target.name)
    if len(name) <= _LONGEST:
        return f".{target.name}.w8a16-"
    short = name[:_LONGEST].decode("utf-8", "ignore")  # not cut within a character
    return f".{short}~{hashlib.sha256(name).hexdigest()[:16]}.w8a16-"
