"""What is known so far of every file while blocks end in any order; completes a file after its last block."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from w8a16.checkpoint.manifest import file_metadata
from w8a16.checkpoint.records import Manifest
from w8a16.checkpoint.streaming.blocks import Block
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.streaming.manifests import completed
from w8a16.checkpoint.streaming.results import (
    NonFinite,
    Range,
    Result,
    RowErrors,
    weight_figures,
    whole_crc,
)


@dataclass
class Product:
    """An output file in the making."""

    file: OutputFile
    manifest: Manifest
    source: SourceFile
    """The file that it stands for."""
    written: dict[str, list[Range]] = field(default_factory=dict)
    errors: dict[str, list[RowErrors]] = field(default_factory=dict)


class Tally:
    """Takes the results of blocks, from any thread."""

    def __init__(self, products: Iterable[Product], blocks: Iterable[Block]) -> None:
        self.bytes_done = 0
        """Source bytes of the blocks that are done."""
        self.nonfinite: list[NonFinite] = []
        self.zero_rows = self.underflow_rows = 0
        self._lock = threading.Lock()
        self._by_file = {id(product.file): product for product in products}
        self._by_source: dict[int, list[Product]] = {}
        for product in self._by_file.values():
            self._by_source.setdefault(id(product.source), []).append(product)
        self._reads: dict[int, list[Range]] = {}
        self._left_of_source: Counter[int] = Counter()
        self._left_of_product: Counter[int] = Counter()
        for block in blocks:
            self._left_of_source[id(block.source)] += 1
            for product in self._waiting_for(block):
                self._left_of_product[id(product)] += 1

    @property
    def is_writing(self) -> bool:
        """Whether blocks should write: no longer once something is found that has no code."""
        return not self.nonfinite

    def take(self, block: Block, result: Result) -> None:
        """Note a result; the thread that brings a file's last one completes the file."""
        with self._lock:
            self._note(block, result)
            self._left_of_source[id(block.source)] -= 1
            source_done = not self._left_of_source[id(block.source)]
            done = []
            for product in self._waiting_for(block):
                self._left_of_product[id(product)] -= 1
                if not self._left_of_product[id(product)]:
                    done.append(product)
        if source_done:
            block.source.finish()
        for product in done if self.is_writing else []:
            product.file.complete(file_metadata(self._complete_manifest(product)))
            product.written.clear()  # of a large checkpoint this would grow and grow
            product.errors.clear()

    def note_memory(self, product: Product, key: str, written: Range) -> None:
        """A tensor was written from memory."""
        product.written.setdefault(key, []).append(written)

    def stored_crc(self, source: SourceFile, name: str) -> int:
        """The checksum of a stored tensor that was only read."""
        info = source.header.tensors[name]
        inside = [
            Range(part.start - info.start, part.size, part.crc)
            for part in self._reads[id(source)]
            if info.start <= part.start < info.start + info.size
        ]
        return whole_crc(inside, info.size)

    def _waiting_for(self, block: Block) -> list[Product]:
        """The files that cannot be complete before the block is done."""
        waiting = self._by_source.get(id(block.source), [])
        if block.output is None or self._by_file[id(block.output)].source is block.source:
            return waiting
        return [*waiting, self._by_file[id(block.output)]]

    def _note(self, block: Block, result: Result) -> None:
        self.bytes_done += block.size
        if result.read is not None:
            self._reads.setdefault(id(block.source), []).append(result.read)
        if result.nonfinite is not None:
            self.nonfinite.append(result.nonfinite)
        if block.output is None:
            return
        product = self._by_file[id(block.output)]
        for key, written in result.written:
            product.written.setdefault(key, []).append(written)
        if result.errors is not None:
            key, errors = result.errors
            product.errors.setdefault(key, []).append(errors)
            self.zero_rows += errors.zero_rows
            self.underflow_rows += errors.underflow_rows

    def _complete_manifest(self, product: Product) -> Manifest:
        checksums = {
            key: whole_crc(product.written.get(key, ()), product.file.bytes_of(key))
            for key in product.file.tensors
        }
        figures = {key: weight_figures(parts) for key, parts in product.errors.items()}
        source_crc = whole_crc(self._reads[id(product.source)], product.source.size)
        return completed(product.manifest, checksums, figures, source_crc)
