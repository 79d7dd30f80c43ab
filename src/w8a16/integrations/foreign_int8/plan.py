"""What an import writes: the int8 weights of another library under the names and layouts of this one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w8a16.checkpoint import Manifest, Shards, Source, open_shards, shown
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.contents import contents_of
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.checkpoint.streaming.computed import read_computed
from w8a16.checkpoint.streaming.manifests import manifest_parts
from w8a16.checkpoint.streaming.placement import FileContents, Placement, place
from w8a16.convert import Recipe, execute
from w8a16.errors import CheckpointError, MissingExtraError, UnknownModelError
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.foreign_int8.found import find_int8
from w8a16.integrations.foreign_int8.pretend import as_float
from w8a16.integrations.foreign_int8.records import Found
from w8a16.integrations.transformers_folders import skeleton_of_tensors


@dataclass(frozen=True)
class ImportPlan:
    """Everything that an import writes."""

    shards: Shards
    """The source as it is stored."""
    found: Found
    files: tuple[FileContents, ...]
    manifests: tuple[Manifest, ...]
    model_name: str
    why_names: str | None
    """Why names and shapes had to tell what the tensors are, if they had to."""
    config: dict[str, Any]
    """The config of the source, without what it says of quantization; empty where there is none."""
    ignored: tuple[str, ...]
    """Stored tensors that the model has no place for, and need not have."""


def plan_import(folder: str | os.PathLike[str]) -> ImportPlan:
    """Plan from the headers and the config; besides these, only scalars and shapes are read.

    Args:
        folder: a model folder with int8 weights of compressed-tensors, bitsandbytes, quanto or torchao.

    Raises:
        CheckpointError: other weights, or codes that cannot be held as they are; says why.
        ResourceError: a file cannot be read.
    """
    path = Path(folder)
    shards = open_shards(path)
    config = read_config(path) if (path / "config.json").is_file() else {}
    found = find_int8(shards, config)
    floats = as_float(shards, found, config)
    skeleton, why_names = _skeleton(path, floats, config)
    recipe = _recipe(path, skeleton, found)
    computed = read_computed(skeleton, floats)
    execute(skeleton.model, recipe)
    contents = contents_of(skeleton.model)
    placement = place(skeleton, contents, floats)
    _refuse_lost(path, placement, {*computed, *skeleton.ignored}, found)
    sources = [_source_of(shards, file, path.resolve().name) for file in placement.files]
    keys = [set(file.tensors) for file in placement.files]
    manifests = manifest_parts(contents, keys, sources, skeleton.origin)
    rest = {key: value for key, value in config.items() if key != "quantization_config"}
    return ImportPlan(
        shards,
        found,
        tuple(placement.files),
        tuple(manifests),
        skeleton.name,
        why_names,
        rest,
        skeleton.ignored,
    )


def _skeleton(path: Path, floats: Shards, config: dict[str, Any]) -> tuple[Skeleton, str | None]:
    if not config:
        return skeleton_from_names(floats), "there is no config.json"
    try:
        return skeleton_of_tensors(path, floats), None
    except (UnknownModelError, MissingExtraError) as error:
        return skeleton_from_names(floats), str(error)


def _recipe(path: Path, skeleton: Skeleton, found: Found) -> Recipe:
    """Convert what is int8 in the source, in its groups, and nothing else."""
    include, groups, mixed = [], {}, []
    for key, pieces in skeleton.sources.items():
        weights = [found.weights.get(piece.tensor) for piece in pieces]
        held = [weight for weight in weights if weight is not None]
        if not held:
            continue
        sizes = {weight.group for weight in held}
        if len(held) < len(weights) or len(sizes) > 1:
            mixed.append(key)
            continue
        include.append(key)
        if size := sizes.pop():
            groups[key] = size
    if mixed:
        raise CheckpointError(
            f"{shown(path)}: {len(mixed)} weights of {skeleton.name} are put together from parts of which "
            f"some are float, or in other groups: {some(mixed)}"
        )
    return Recipe(include=include, group_size=groups)


def _refuse_lost(path: Path, placement: Placement, known: set[str], found: Found) -> None:
    """Every stored tensor has a place, and every one of codes is the makings of codes."""
    taken = {part.tensor for file in placement.files for each in file.quantized for part in each.ranges}
    taken |= placement.duplicates.keys()
    turned = sorted(
        part.tensor
        for file in placement.files
        for each in file.quantized
        for part in each.ranges
        if part.columns is not None
    )
    if turned:
        raise CheckpointError(
            f"{shown(path)}: the model has input and output of {len(turned)} weights exchanged, so that "
            f"their scales lie along the wrong dimension: {some(turned)}"
        )
    if floats := sorted(found.weights.keys() - taken):
        raise CheckpointError(
            f"{shown(path)}: {len(floats)} int8 weights are of layers that have no int8 here: {some(floats)}"
        )
    if lost := sorted(set(placement.unused) - known):
        raise CheckpointError(f"{shown(path)}: the model has no place for {len(lost)} tensors: {some(lost)}")


def _source_of(shards: Shards, file: FileContents, name: str) -> Source:
    header = shards.headers[file.shard]
    return Source(name, header.path.name, header.identity[2])
