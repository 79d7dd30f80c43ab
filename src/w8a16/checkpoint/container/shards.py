"""Several safetensors files as one checkpoint: which they are, and which tensor lies where.

`open_shards` reads every header and the index, and checks them against each other completely, before
any tensor is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from w8a16.checkpoint.container.find_weights import find_weights
from w8a16.checkpoint.container.header import Header, TensorInfo, read_header
from w8a16.checkpoint.container.index import INDEX_SUFFIX, Index, read_index
from w8a16.checkpoint.container.printable import shown
from w8a16.errors import CheckpointError

_LISTED = 100


@dataclass(frozen=True)
class Shards:
    """The files of one checkpoint, with checked headers; every tensor lies in exactly one of them."""

    path: Path
    """What was opened: the file, or the folder."""
    headers: tuple[Header, ...]
    """One for each file, ordered by file name."""
    index: Path | None
    """The index file, where there is one."""

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """All tensors, in the order of the files, and inside a file in the order of their bytes."""
        return {name: info for header in self.headers for name, info in header.tensors.items()}

    def header_of(self, name: str) -> Header:
        """The header of the file that holds a tensor.

        Raises:
            KeyError: no file holds it.
        """
        return self._headers_by_tensor[name]

    @cached_property
    def _headers_by_tensor(self) -> dict[str, Header]:
        return {name: header for header in self.headers for name in header.tensors}


def open_shards(path: str | os.PathLike[str], *, weights: str | None = None) -> Shards:
    """Find the files of a checkpoint, read their headers, and check them against each other.

    Args:
        path: a `.safetensors` file, an index (`*.safetensors.index.json`), or a folder with
            `model.safetensors`, `diffusion_pytorch_model.safetensors` or the index of one; else with
            exactly one index, or exactly one other `.safetensors` file.
        weights: the file or index to use, where a folder offers several.

    Raises:
        CheckpointError: no weights or several, a broken file or index, missing shards, or tensors that
            are not where the index says; the message names the file, and every tensor.
        ResourceError: a file cannot be read.
        UsageError: `weights` is not the name of a file in the folder.
    """
    opened = Path(path)
    found = find_weights(opened, weights)
    if not found.name.endswith(INDEX_SUFFIX):
        return Shards(opened, (read_header(found),), None)
    index = read_index(found)
    headers = tuple(read_header(shard) for shard in index.shards)
    problems = _find_contradictions(index, headers)
    if problems:
        more = [f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        listed = "\n".join(f"  {problem}" for problem in problems[:_LISTED] + more)
        raise CheckpointError(f"{shown(index.path)}: does not match its shards:\n{listed}")
    return Shards(opened, headers, index.path)


def _find_contradictions(index: Index, headers: tuple[Header, ...]) -> list[str]:
    """Every tensor that is not in exactly the one file that the index names."""
    holders: dict[str, list[str]] = {}
    for header in headers:
        for name in header.tensors:
            holders.setdefault(name, []).append(header.path.name)
    problems = []
    for name, files in holders.items():
        listed = index.weight_map.get(name)
        if len(files) > 1:
            problems.append(f"{shown(name)}: in several shards: {', '.join(map(shown, files))}")
        elif listed is None:
            problems.append(f"{shown(name)}: in {shown(files[0])}, but not in the index")
        elif listed != files[0]:
            problems.append(f"{shown(name)}: the index says {shown(listed)}, but it is in {shown(files[0])}")
    problems += [
        f"{shown(name)}: the index says {shown(listed)}, but no shard has it"
        for name, listed in index.weight_map.items()
        if name not in holders
    ]
    return problems
