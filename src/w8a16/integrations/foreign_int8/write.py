"""Write a planned import: each file from the one with the same name, in blocks, on all cores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from w8a16.checkpoint import Shards, as_resource_error, file_metadata
from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.container.index import write_index
from w8a16.checkpoint.manifest import reserved_header_bytes
from w8a16.checkpoint.output.stage import check_output, staged
from w8a16.checkpoint.streaming.blocks import Block
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.cutting import cut, uses_of
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.manifests import completed
from w8a16.checkpoint.streaming.placement import FileContents, Quantized
from w8a16.checkpoint.streaming.results import Range, whole_crc
from w8a16.checkpoint.tensors import bytes_of
from w8a16.checkpoint.verification.work import run_all
from w8a16.integrations.foreign_int8.blocks import Place, WeightRows, Written
from w8a16.integrations.foreign_int8.plan import ImportPlan, plan_import
from w8a16.integrations.int8_note import add_note

_BYTES = 4 << 20

Progress = Callable[[int, int], None]
"""Called as `(bytes written, bytes in all)`."""


def import_int8(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> ImportPlan:
    """Make an int8 folder of this library from one of another, with the same codes.

    The new folder has weights, index and config; `w8a16 import` copies tokenizers and the like as well.

    Args:
        source: a folder with int8 weights of compressed-tensors, bitsandbytes, quanto or torchao.
        target: a folder that does not exist yet; it appears when it is complete.

    Raises:
        OutputRefusedError: the target exists, or overlaps the source.
        CheckpointError: codes that cannot be held as they are.
        ResourceError: a file cannot be read, or the disk is full or fails.
    """
    place = Path(target)
    check_output(Path(source), place)
    plan = plan_import(source)
    with staged(place, need_bytes=imported_bytes(plan)) as stage:
        write_import(plan, stage.path)
    return plan


def imported_bytes(plan: ImportPlan) -> int:
    """Bytes that `write_import` writes, without index and config."""
    return sum(output.size for output in _outputs(plan, Path()))


def write_import(plan: ImportPlan, folder: Path, progress: Progress = lambda done, total: None) -> list[str]:
    """Write weights, index and config into an empty folder, and return the names of the files.

    Raises:
        CheckpointError: scales or zero points that int8 here cannot have.
        ResourceError: a file was changed meanwhile, or the disk is full or fails.
    """
    sources = {header.path: SourceFile(header) for header in plan.shards.headers}
    outputs = _outputs(plan, folder)
    written: list[dict[str, list[Range]]] = [{} for _ in outputs]
    number_of = {id(output): number for number, output in enumerate(outputs)}
    total, done = sum(output.size - output.header_bytes for output in outputs), 0

    def take(block: WeightRows | Block, ranges: Written) -> None:
        nonlocal done
        for key, part in ranges:
            written[number_of[id(block.output)]].setdefault(key, []).append(part)
            done += part.size
        progress(done, total)

    try:
        run_all(_blocks(plan, outputs, sources), _run, take)
        for contents, output, manifest, ranges in zip(
            plan.files, outputs, plan.manifests, written, strict=True
        ):
            _write_memory(contents, output, ranges)
            crcs = {key: whole_crc(ranges.get(key, ()), output.bytes_of(key)) for key in output.tensors}
            whole = replace(completed(manifest, crcs, {}, 0), source=manifest.source)
            output.complete(file_metadata(whole))
        for source in sources.values():
            source.finish()
    finally:
        for output in outputs:
            output.close()
        for source in sources.values():
            source.close()
    names = [output.path.name for output in outputs]
    return names + _write_index(plan.shards, outputs, folder) + _write_config(plan, folder)


def _run(block: WeightRows | Block, buffers: Buffers) -> Written:
    return block.run(buffers) if isinstance(block, WeightRows) else block.run(buffers, True).written


def _outputs(plan: ImportPlan, folder: Path) -> list[OutputFile]:
    outputs = []
    for contents, manifest in zip(plan.files, plan.manifests, strict=True):
        path = folder / plan.shards.headers[contents.shard].path.name
        ordered = OutputFile(path, contents.tensors, 0).tensors
        outputs.append(OutputFile(path, ordered, reserved_header_bytes(ordered, manifest)))
    return outputs


def _blocks(
    plan: ImportPlan, outputs: list[OutputFile], sources: dict[Path, SourceFile]
) -> Iterator[WeightRows | Block]:
    for contents, output in zip(plan.files, outputs, strict=True):
        for target in contents.quantized:
            yield from _rows(plan, target, output, sources)
        uses = list(uses_of(replace(contents, quantized=[]), output))
        for block in cut(sources.values(), uses):
            if block.output is not None:  # the others only read, for a checksum that is not made here
                yield block


def _rows(
    plan: ImportPlan, target: Quantized, output: OutputFile, sources: dict[Path, SourceFile]
) -> Iterator[WeightRows]:
    def place(name: str) -> Place:
        header = plan.shards.header_of(name)
        return Place(sources[header.path], header.tensors[name])

    for part in target.ranges:
        weight = plan.found.weights[part.tensor]
        k = weight.shape[1]
        groups = k // target.row_length if target.row_length else 1
        keys = (output, target.codes_key, target.scales_key)
        points = place(weight.zero_points) if weight.zero_points else None
        files = (weight, place(weight.codes), place(weight.scales), points, *keys)
        skipped, first, count = part.skipped // max(k, 1), part.first // groups, part.count // groups
        step = max(1, _BYTES // max(k, 1))
        for i in range(0, count, step):
            yield WeightRows(*files, skipped + i, first + i, min(step, count - i))


def _write_memory(contents: FileContents, output: OutputFile, written: dict[str, list[Range]]) -> None:
    """Buffers that the class computes itself."""
    for key, tensor in contents.memory.items():
        view = bytes_of(tensor.detach().resolve_conj().resolve_neg().cpu().contiguous())
        output.write(key, 0, view)
        written.setdefault(key, []).append(Range(0, len(view), crc32(view)))


def _write_index(shards: Shards, outputs: list[OutputFile], folder: Path) -> list[str]:
    if shards.index is None:
        return []
    weight_map = {key: output.path.name for output in outputs for key in output.tensors}
    write_index(
        folder / shards.index.name, weight_map, sum(each.size - each.header_bytes for each in outputs)
    )
    return [shards.index.name]


def _write_config(plan: ImportPlan, folder: Path) -> list[str]:
    if not plan.config:
        return []
    file = folder / "config.json"
    try:
        file.write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise as_resource_error(file, error) from error
    add_note(folder)
    return [file.name]
