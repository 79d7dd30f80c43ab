"""Quantize a checkpoint from files to files: bounded memory, all cores, no float model.

    work = plan_checkpoint(open_shards(source), skeleton)
    work.run(folder)

Planning reads headers only. The skeleton is converted on the meta device by the code that converts
models, so every verdict is that of `plan(model)`; what remains is to move bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from w8a16.checkpoint.container.crc import crc32
from w8a16.checkpoint.container.index import write_index
from w8a16.checkpoint.container.printable import shown, shown_list
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.contents import contents_of
from w8a16.checkpoint.manifest import reserved_header_bytes
from w8a16.checkpoint.records import Manifest, Source
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.checkpoint.streaming.computed import read_computed
from w8a16.checkpoint.streaming.cutting import cut, uses_of
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.manifests import manifest_parts
from w8a16.checkpoint.streaming.nonfinite import describe, find_nonfinite_weights, refusal
from w8a16.checkpoint.streaming.placement import FileContents, Placement, place
from w8a16.checkpoint.streaming.pool import run_blocks
from w8a16.checkpoint.streaming.results import Range
from w8a16.checkpoint.streaming.tally import Product, Tally
from w8a16.checkpoint.tensors import bytes_of
from w8a16.convert import EVERYTHING, Plan, Recipe, execute
from w8a16.errors import CheckpointError, ResourceError

DEFAULT_MEMORY = 512 << 20
"""Bytes that the work may take beyond the interpreter."""
_OVERHEAD = 64 << 20
"""Of those, what headers, plans and the allocator may take."""
_SINGLE = "model.safetensors"

Progress = Callable[[int, int], None]
"""Called now and then as `(bytes done, bytes in all)`."""


@dataclass(frozen=True)
class Options:
    """What the caller chose; as the arguments of `w8a16.quantize`."""

    recipe: Recipe = EVERYTHING
    strict: bool = False
    on_nonfinite: str = "error"


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    files: tuple[str, ...]
    """Names of the files that were written, the index last."""
    bytes_written: int
    zero_rows: int
    """Rows of zeros, which have scale 1."""
    underflow_rows: int
    """Rows too small for a float32 scale, stored as zeros."""


@dataclass
class CheckpointWork:
    """A planned quantization of one checkpoint; `run` carries it out."""

    shards: Shards
    plan: Plan
    origin: str
    model_name: str
    ignored: tuple[str, ...]
    """Stored tensors that are left out because the model has no place for them."""
    duplicates: dict[str, str]
    """Stored tensors that repeat another one."""
    _placement: Placement
    _manifests: list[Manifest]
    _headers: list[int]

    @property
    def source_bytes(self) -> int:
        """Bytes of all source files."""
        return sum(header.identity[2] for header in self.shards.headers)

    @property
    def output_bytes(self) -> int:
        """Bytes that `run` writes, without the index."""
        return sum(file.size for file in self._outputs(Path()))

    def run(
        self,
        folder: Path,
        *,
        memory: int = DEFAULT_MEMORY,
        threads: int | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Outcome:
        """Write the quantized files into an empty folder.

        Args:
            folder: exists; what it is left with after an error is to be removed.
            memory: bytes that may be used; decides how many threads work.
            threads: at most so many; default: one for each core.
            progress: called in this thread.

        Raises:
            WeightValueError: weights hold NaN or Inf; all are named.
            CheckpointError: tied weights are stored twice, with different values.
            ResourceError: a file was changed meanwhile; the disk is full or fails; too little memory.
        """
        sources = [SourceFile(header) for header in self.shards.headers]
        outputs = self._outputs(folder)
        products = [
            Product(file, manifest, sources[contents.shard])
            for file, manifest, contents in zip(outputs, self._manifests, self._placement.files, strict=True)
        ]
        pairs = zip(self._placement.files, outputs, strict=True)
        blocks = cut(sources, [use for contents, file in pairs for use in uses_of(contents, file)])
        count = _threads_for(memory, max(block.memory for block in blocks), threads)
        tally = Tally(products, blocks)
        total = sum(block.size for block in blocks)
        try:
            for product, contents in zip(products, self._placement.files, strict=True):
                _write_memory(product, contents, tally)
            run_blocks(
                blocks,
                count,
                tally.take,
                lambda: tally.is_writing,
                lambda: progress(tally.bytes_done, total),
            )
        finally:
            for source in sources:
                source.close()
            for output in outputs:
                output.close()
        if tally.nonfinite:
            raise refusal(describe(tally.nonfinite, self.shards))
        self._check_duplicates(sources, tally)
        progress(total, total)
        names = [file.path.name for file in outputs]
        names += self._write_index(folder, outputs)
        written = sum((folder / name).stat().st_size for name in names)
        return Outcome(tuple(names), written, tally.zero_rows, tally.underflow_rows)

    def _outputs(self, folder: Path) -> list[OutputFile]:
        files = zip(self._placement.files, self._headers, strict=True)
        return [
            OutputFile(folder / _file_name(self.shards, contents.shard), contents.tensors, header_bytes)
            for contents, header_bytes in files
        ]

    def _check_duplicates(self, sources: list[SourceFile], tally: Tally) -> None:
        by_path = {source.path: source for source in sources}
        differing = []
        for name, original in self.duplicates.items():
            one, other = (
                tally.stored_crc(by_path[self.shards.header_of(each).path], each) for each in (name, original)
            )
            if one != other:
                differing.append(f"{shown(name)} and {shown(original)}")
        if differing:
            raise CheckpointError(
                f"{shown(self.shards.path)}: {self.model_name} has one tensor where the files hold two with "
                f"different values: {', '.join(differing)}"
            )

    def _write_index(self, folder: Path, outputs: list[OutputFile]) -> list[str]:
        if self.shards.index is None:
            return []
        weight_map = {key: file.path.name for file in outputs for key in file.tensors}
        total = sum(file.size - file.header_bytes for file in outputs)
        path = folder / self.shards.index.name
        write_index(path, weight_map, total)
        return [path.name]


def plan_checkpoint(
    shards: Shards, skeleton: Skeleton, options: Options = Options(), *, source_name: str | None = None
) -> CheckpointWork:
    """Plan the quantization of a checkpoint; reads no tensor, except the few that weights are computed from.

    With `on_nonfinite="keep-float"` every tensor is read once, to find those that hold NaN or Inf.

    Args:
        shards: the float checkpoint.
        skeleton: what its tensors are; it is converted, so it serves once.
        options: as for `w8a16.quantize`.
        source_name: noted in the manifest.

    Raises:
        CheckpointError: the files and the skeleton do not fit together.
        PatternError, CoverageError: as `w8a16.quantize`.
        WeightValueError: a computed weight holds NaN or Inf.
    """
    used = read_computed(skeleton, shards)
    nonfinite = find_nonfinite_weights(skeleton, shards) if options.on_nonfinite == "keep-float" else {}
    executed = execute(
        skeleton.model,
        options.recipe,
        options.strict,
        on_nonfinite=options.on_nonfinite,
        value_problems=nonfinite,
    )
    contents = contents_of(skeleton.model, executed)
    placement = place(skeleton, contents, shards)
    lost = sorted({*placement.unused} - {*used, *skeleton.ignored})
    if lost:
        raise CheckpointError(
            f"{shown(shards.path)}: {skeleton.name} has no place for {len(lost)} tensors of the files: "
            f"{shown_list(lost)}"
        )
    if not placement.files:
        raise CheckpointError(f"{shown(shards.path)}: holds no tensors, so there is nothing to quantize")
    sources = [_source_of(shards, file, source_name) for file in placement.files]
    keys = [set(file.tensors) for file in placement.files]
    manifests = manifest_parts(contents, keys, sources, skeleton.origin)
    headers = [
        reserved_header_bytes(OutputFile(Path(), file.tensors, 0).tensors, manifest)
        for file, manifest in zip(placement.files, manifests, strict=True)
    ]
    return CheckpointWork(
        shards,
        executed,
        skeleton.origin,
        skeleton.name,
        skeleton.ignored,
        placement.duplicates,
        placement,
        manifests,
        headers,
    )


def _source_of(shards: Shards, file: FileContents, name: str | None) -> Source:
    header = shards.headers[file.shard]
    return Source(name, header.path.name, header.identity[2], 0)


def _file_name(shards: Shards, shard: int) -> str:
    """Names are kept, except that of a file that was given by itself."""
    name = shards.headers[shard].path.name
    return _SINGLE if shards.index is None and shards.path == shards.headers[shard].path else name


def _write_memory(product: Product, contents: FileContents, tally: Tally) -> None:
    for key, tensor in contents.memory.items():
        data = bytes_of(tensor.detach().resolve_conj().resolve_neg().cpu().contiguous())
        product.file.write(key, 0, data)
        tally.note_memory(product, key, Range(0, len(data), crc32(data)))


def _threads_for(memory: int, each: int, most: int | None) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = (memory - _OVERHEAD) // max(each, 1)
    if fitting < 1:
        need = math.ceil((each + _OVERHEAD) / (1 << 20))
        raise ResourceError(
            f"memory: expected at least {need} MiB for this checkpoint, got {memory >> 20} MiB"
        )
    return min(fitting, cores if most is None else most)
