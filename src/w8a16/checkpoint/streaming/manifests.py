"""The manifest of each output file: its part of what was done, completed when its last block is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from w8a16.checkpoint.contents import Contents
from w8a16.checkpoint.records import Manifest, ModuleRecord, Source, WeightRecord
from w8a16.layers.tensor_names import codes_name


def manifest_parts(
    contents: Contents, keys_of_files: list[set[str]], sources: list[Source], origin: str
) -> list[Manifest]:
    """Deal the contents of a model out to files: everything goes where its tensor is stored."""
    file_of = {key: i for i, keys in enumerate(keys_of_files) for key in keys}

    def place_of(key: str) -> int:
        return file_of.get(contents.ties.get(key, key), 0)

    modules: list[dict[str, ModuleRecord]] = [{} for _ in sources]
    for path, record in contents.modules.items():
        for name, weight in record.weights.items():
            part = modules[place_of(codes_key(path, name))]
            part.setdefault(path, replace(record, weights={})).weights[name] = weight
    kept: list[dict[str, str]] = [{} for _ in sources]
    for name, reason in contents.kept_float.items():
        kept[place_of(name)][name] = reason
    ties: list[dict[str, str]] = [{} for _ in sources]
    for alias, key in contents.ties.items():
        ties[file_of[key]][alias] = key
    hidden: list[list[str]] = [[] for _ in sources]
    for key in contents.hidden:
        hidden[place_of(key)].append(key)
    return [
        Manifest(modules[i], kept[i], ties[i], tuple(hidden[i]), source=sources[i], origin=origin)
        for i in range(len(sources))
    ]


def completed(
    manifest: Manifest,
    checksums: Mapping[str, int],
    figures: Mapping[str, tuple[float, float]],
    source_crc: int,
) -> Manifest:
    """Add what is known at the end.

    Args:
        manifest: the part of one file.
        checksums: CRC-32 of each stored tensor of the file.
        figures: SQNR and largest error of each weight, by the key of its stored codes.
        source_crc: CRC-32 of the source file.
    """
    modules = {}
    for path, record in manifest.modules.items():
        weights = {}
        for name, weight in record.weights.items():
            key = codes_key(path, name)
            weights[name] = _with_figures(weight, figures.get(manifest.ties.get(key, key)))
        modules[path] = replace(record, weights=weights)
    source = manifest.source and replace(manifest.source, crc32=source_crc)
    return replace(manifest, modules=modules, checksums=dict(checksums), source=source)


def codes_key(path: str, name: str) -> str:
    """The state-dict key of the codes of a weight."""
    return f"{path}.{codes_name(name)}" if path else codes_name(name)


def _with_figures(weight: WeightRecord, figures: tuple[float, float] | None) -> WeightRecord:
    if figures is None:
        return weight
    return replace(weight, sqnr_db=figures[0], largest_error=figures[1])
