"""Write a planned export: each file from the one with the same name, in blocks, on all cores."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from w8a16.checkpoint import as_resource_error
from w8a16.checkpoint.container.header import build_header
from w8a16.checkpoint.container.index import write_index
from w8a16.checkpoint.output.stage import check_output, staged
from w8a16.checkpoint.restoring import weight_rows
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.tensors import bytes_of
from w8a16.checkpoint.verification.work import run_all
from w8a16.integrations.compressed_tensors.blocks import copied_bytes, packed_rows
from w8a16.integrations.compressed_tensors.layout import PACKED, SCALE, SHAPE
from w8a16.integrations.compressed_tensors.plan import ExportPlan, PlannedFile, plan_export
from w8a16.integrations.compressed_tensors.rounded import WeightSource, write_rounded
from w8a16.integrations.folder_pair import open_pair

_METADATA = {"format": "pt"}

Progress = Callable[[int, int], None]
"""Called as `(bytes written, bytes in all)`."""


def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    pack_head: bool = False,
    float_source: str | os.PathLike[str] | None = None,
    check: bool = True,
) -> ExportPlan:
    """Write an int8 folder of a transformers model as compressed-tensors `pack-quantized`.

    The new folder has weights, index and config; `w8a16 export` copies tokenizers and the like as well.

    Args:
        source: what `w8a16 quantize` made of a transformers folder.
        target: a folder that does not exist yet; it appears when it is complete.
        pack_head: keep the layer that gives the logits int8, too; SGLang reads such a folder wrongly.
        float_source: the float folder that the int8 one was made from: scales are rounded to the dtype of the
            model, to which vLLM casts them, and its weights are quantized against these.
        check: refuse what transformers would not load, where compressed-tensors is installed.

    Returns:
        What was written, with the reason of every int8 weight that became float.

    Raises:
        OutputRefusedError: the target exists, or overlaps the source.
        CheckpointError, MissingExtraError, ResourceError: as `plan_export`; the disk is full or fails.
    """
    place = Path(target)
    check_output(Path(source), place)
    plan = plan_export(source, pack_head=pack_head, model_scales=float_source is not None, check=check)
    weights = None if float_source is None else open_pair(Path(float_source), Path(source)).weights
    with staged(place, need_bytes=output_bytes(plan)) as stage:
        write_export(plan, stage.path, weights=weights)
    return plan


def output_bytes(plan: ExportPlan) -> int:
    """Bytes that `write_export` writes, without index and config."""
    return sum(_output(file, Path()).size for file in plan.files)


def write_export(
    plan: ExportPlan,
    folder: Path,
    progress: Progress = lambda done, total: None,
    weights: WeightSource | None = None,
) -> list[str]:
    """Write weights, index and config into an empty folder, and return the names of the files.

    Args:
        plan: from `plan_export`.
        folder: exists and is empty.
        progress: called now and then.
        weights: the float weights, where the plan has scales in the dtype of the model.

    Raises:
        CheckpointError: `weights` are those of another model.
        ResourceError: a file was changed meanwhile, or the disk is full or fails.
    """
    sources = [SourceFile(file.header) for file in plan.files]
    outputs = [_output(file, folder) for file in plan.files]
    total, done = sum(output.size - output.header_bytes for output in outputs), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    try:
        files = list(zip(plan.files, sources, outputs, strict=True))
        blocks = (block for file in files for block in _blocks(*file))
        run_all(blocks, lambda block, own: block.run(own), lambda block, size: count(size))
        for file, source, output in files:
            if any(matrix.scale_dtype != torch.float32 for matrix in file.matrices):
                assert weights is not None
                write_rounded(file, source, output, weights, count)
            _write_shapes(file, output)
            output.complete(_METADATA)
            source.finish()
    finally:
        for output in outputs:
            output.close()
        for source in sources:
            source.close()
    names = [output.path.name for output in outputs]
    return names + _write_index(plan, outputs, folder) + _write_config(plan, folder)


def _output(file: PlannedFile, folder: Path) -> OutputFile:
    path = folder / file.header.path.name
    ordered = OutputFile(path, file.tensors, 0).tensors
    return OutputFile(path, ordered, len(build_header(ordered, _METADATA)))


def _blocks(file: PlannedFile, source: SourceFile, output: OutputFile) -> Iterator[Any]:
    for matrix in file.matrices:
        if matrix.scale_dtype != torch.float32:
            continue  # made anew
        n, k = matrix.shape
        yield from packed_rows(source, output, matrix.codes, f"{matrix.layer}.{PACKED}", n, k)
        key = f"{matrix.layer}.{SCALE}"
        yield from copied_bytes(source, output, matrix.scales, key, output.bytes_of(key))
    for weight in file.floats:
        yield from weight_rows(weight, source, output)
    for key, own in file.copies.items():
        info = file.header.tensors[own]
        yield from copied_bytes(source, output, info.start, key, info.size)


def _write_shapes(file: PlannedFile, output: OutputFile) -> None:
    for matrix in file.matrices:
        output.write(f"{matrix.layer}.{SHAPE}", 0, bytes_of(torch.tensor(matrix.shape, dtype=torch.int64)))


def _write_index(plan: ExportPlan, outputs: list[OutputFile], folder: Path) -> list[str]:
    index = plan.checkpoint.shards.index
    if index is None:
        return []
    weight_map = {key: output.path.name for output in outputs for key in output.tensors}
    write_index(folder / index.name, weight_map, sum(each.size - each.header_bytes for each in outputs))
    return [index.name]


def _write_config(plan: ExportPlan, folder: Path) -> list[str]:
    file = folder / "config.json"
    try:
        file.write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise as_resource_error(file, error) from error
    return [file.name]
