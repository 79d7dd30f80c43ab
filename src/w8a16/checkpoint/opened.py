"""A quantized checkpoint: its files and what their manifests say together.

Each file carries the part of the manifest that is about its own tensors, so it can be understood alone.
A module whose weights lie in several files appears in the part of each, with the weights that are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from w8a16.checkpoint.container.header import Header
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards, open_shards
from w8a16.checkpoint.manifest import read_manifest
from w8a16.checkpoint.records import Manifest, ModuleRecord, Source
from w8a16.errors import CheckpointError
from w8a16.layers import stored_tensors

SAVED_BY = "w8a16_saved_by"
"""A key in the header of files that a library wrote which split the tensors as it liked."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a quantized checkpoint, each with its part of the manifest; checked against each other."""

    shards: Shards
    parts: tuple[Manifest, ...]
    """One for each file, in the order of `shards.headers`."""

    @cached_property
    def manifest(self) -> Manifest:
        """All parts as one."""
        return self.parts[0] if len(self.parts) == 1 else _merge(self.shards, self.parts)


def open_checkpoint(path: str | os.PathLike[str], *, weights: str | None = None) -> Checkpoint:
    """Read the headers and manifests of a file or folder, and check them completely; no tensor is read.

    Args:
        path: as `open_shards` takes it.
        weights: the file or index to use, where a folder offers several.

    Raises:
        CheckpointError: not a checkpoint of this library, or its files contradict each other.
        ResourceError: a file cannot be read.
    """
    return understand(open_shards(path, weights=weights))


def understand(shards: Shards) -> Checkpoint:
    """Read and check the manifests of files whose headers have been read.

    Raises:
        CheckpointError: see `open_checkpoint`.
    """
    if len(shards.headers) > 1 and any(SAVED_BY in header.metadata for header in shards.headers):
        raise CheckpointError(
            f"{shown(shards.path)}: save_pretrained wrote several files, which have no manifests of their "
            "own; load the folder with transformers' from_pretrained, or save it with a larger max_shard_size"
        )
    parts = tuple(read_manifest(header) for header in shards.headers)
    for header, part in zip(shards.headers, parts, strict=True):
        if problems := _problems_of_part(header, part):
            raise CheckpointError(_listed(header.path, "the manifest does not match the tensors", problems))
    checkpoint = Checkpoint(shards, parts)
    _ = checkpoint.manifest  # contradictions show now
    return checkpoint


def below(path: str, name: str) -> str:
    """The state-dict key of a tensor of the module at `path` (the root: "")."""
    return f"{path}.{name}" if path else name


def _problems_of_part(header: Header, part: Manifest) -> list[str]:
    tensors, owned, problems = header.tensors, set(), []
    for path, record in part.modules.items():
        for name, (dtype, shape) in stored_tensors(record.codes).items():
            key = below(path, name)
            owned.add(key)
            info = tensors.get(part.ties.get(key, key))
            if info is None:
                problems.append(f"{shown(key)}: in the manifest, but not in the file")
            elif (info.dtype, info.shape) != (dtype, shape):
                problems.append(
                    f"{shown(key)}: expected {dtype} {list(shape)}, found {info.dtype} {list(info.shape)}"
                )
    for alias, name in part.ties.items():
        if name not in tensors:
            problems.append(f"{shown(alias)}: tied to {shown(name)}, which is not in the file")
        if alias in tensors:
            problems.append(f"{shown(alias)}: tied to {shown(name)}, but stored as well")
    problems += [
        f"{shown(name)}: in the manifest, but not in the file"
        for name in part.non_persistent_buffers
        if part.ties.get(name, name) not in tensors
    ]
    if part.version > 1:
        problems += [f"{shown(key)}: has no checksum" for key in tensors if key not in part.checksums]
        missing = part.checksums.keys() - tensors.keys() - owned
        problems += [f"{shown(key)}: has a checksum, but is not in the file" for key in sorted(missing)]
    return problems


def _merge(shards: Shards, parts: tuple[Manifest, ...]) -> Manifest:
    union = _Union([header.path.name for header in shards.headers])
    merged = Manifest(
        modules=union.of((part.modules for part in parts), _join),
        kept_float=union.of(part.kept_float for part in parts),
        ties=union.of(part.ties for part in parts),
        non_persistent_buffers=tuple(
            union.of(dict.fromkeys(part.non_persistent_buffers, True) for part in parts)
        ),
        checksums=union.of(part.checksums for part in parts),
        source=_common(part.source and Source(part.source.name) for part in parts),
        origin=parts[0].origin,
        version=min(part.version for part in parts),
    )
    stored = shards.tensors
    union.problems += [
        f"{shown(alias)}: tied to {shown(name)}, but stored as well"
        for alias, name in merged.ties.items()
        if alias in stored
    ]
    for name, part in zip(union.names, parts, strict=True):
        if part.origin != merged.origin:
            union.problems.append(
                f"{shown(name)}: its origin is {part.origin!r}, that of {shown(union.names[0])} is "
                f"{merged.origin!r}"
            )
    if union.problems:
        where = shards.index or shards.path
        raise CheckpointError(
            _listed(where, "the manifests of its files contradict each other", union.problems)
        )
    return merged


class _Union:
    """Joins maps of several files, and notes every key that two of them define differently."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.problems: list[str] = []

    def of(
        self,
        maps: Iterable[Mapping[str, _Value]],
        join: Callable[[_Value, _Value], _Value | None] = lambda first, second: (
            first if first == second else None
        ),
    ) -> dict[str, _Value]:
        union: dict[str, _Value] = {}
        first: dict[str, str] = {}
        for file, part in zip(self.names, maps, strict=True):
            for key, value in part.items():
                other = first.setdefault(key, file)
                joined = join(union[key], value) if key in union else value
                if joined is None:
                    self.problems.append(f"{shown(key)}: {shown(other)} and {shown(file)} disagree")
                else:
                    union[key] = joined
        return union


def _join(first: ModuleRecord, second: ModuleRecord) -> ModuleRecord | None:
    """One module from its weights in two files; None where that cannot be."""
    same = (first.kind, first.weight_dtype) == (second.kind, second.weight_dtype)
    if not same or first.weights.keys() & second.weights.keys():
        return None
    return replace(first, weights={**first.weights, **second.weights})


def _common(values: Iterable[_Value]) -> _Value | None:
    first, *others = values
    return first if all(other == first for other in others) else None


def _listed(path: os.PathLike[str], what: str, problems: list[str]) -> str:
    return "\n".join([f"{shown(path)}: {what}:", *(f"  {problem}" for problem in problems)])
