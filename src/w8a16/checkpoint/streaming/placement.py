"""From a converted skeleton to work: which file every tensor goes to, and which stored tensors make it.

The skeleton has been converted on the meta device by the same code that converts a model, so what is
int8, what is tied and how codes lie is not decided here. Tensors that have real values (buffers outside
the state dict, weights that had to be computed) are written from memory; all others from the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from w8a16.checkpoint.container.printable import shown, shown_list
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.contents import Contents
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.checkpoint.streaming.rows import RowRange, Shape, row_range
from w8a16.errors import CheckpointError
from w8a16.layers import Layout, QuantizedModule
from w8a16.layers.tensor_names import codes_name, stored_tensors


@dataclass(frozen=True)
class Quantized:
    """Codes and scales, and the stored tensors that they are made of."""

    codes_key: str
    scales_key: str
    outlier_keys: tuple[str, ...]
    layout: Layout
    row_length: int
    ranges: tuple[RowRange, ...]


@dataclass(frozen=True)
class Copied:
    """A tensor that is stored as it is, and what it is made of."""

    key: str
    row_length: int
    ranges: tuple[RowRange, ...]


@dataclass
class FileContents:
    """What one output file holds."""

    shard: int
    """Index of the source file that it stands for."""
    tensors: dict[str, tuple[torch.dtype, Shape]] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    quantized: list[Quantized] = field(default_factory=list)
    copied: list[Copied] = field(default_factory=list)


@dataclass
class Placement:
    """All output files, and the stored tensors that nothing is made of."""

    files: list[FileContents]
    unused: list[str]
    duplicates: dict[str, str]
    """Stored tensors that repeat the values of another one: tied weights that the files hold twice."""


def place(skeleton: Skeleton, contents: Contents, shards: Shards) -> Placement:
    """Find a file and the makings for every tensor of the converted skeleton.

    Raises:
        CheckpointError: tensors that the files lack, or that cannot be put together.
    """
    placer = _Placer(skeleton, contents, shards)
    placer.place_all()
    return placer.placement()


class _Placer:
    def __init__(self, skeleton: Skeleton, contents: Contents, shards: Shards) -> None:
        self._skeleton, self._contents, self._shards = skeleton, contents, shards
        self._shard_of = {name: i for i, header in enumerate(shards.headers) for name in header.tensors}
        self._files = {i: FileContents(i) for i in range(len(shards.headers))}
        self._aliases: dict[str, list[str]] = {}
        for alias, key in contents.ties.items():
            self._aliases.setdefault(key, []).append(alias)
        self._used: set[str] = set()
        self._duplicates: dict[str, str] = {}
        self._missing: list[str] = []

    def place_all(self) -> None:
        weights = _int8_weights(self._skeleton.model)
        for key, tensor in self._contents.tensors.items():
            weight = weights.get(id(tensor))
            if not tensor.is_meta:
                self._put_memory(key, tensor, weight)
            elif weight is None:
                self._put_copy(key, tensor)
            elif weight.codes is tensor:
                self._put_quantized(key, weight)
        for name in self._skeleton.copied:
            self._put_unplaced(name)
        if self._missing:
            raise CheckpointError(
                f"{shown(self._shards.path)}: {self._skeleton.name} needs {len(self._missing)} tensors that "
                f"the files lack: {shown_list(self._missing)}"
            )

    def placement(self) -> Placement:
        files = [file for file in self._files.values() if file.tensors]
        unused = [name for name in self._shards.tensors if name not in self._used]
        return Placement(files, unused, self._duplicates)

    def _put_memory(self, key: str, tensor: Tensor, weight: _Int8Weight | None) -> None:
        """Beside what it was made from, or in the first file."""
        shard = 0
        if weight is not None:
            below = (i for name, i in self._shard_of.items() if name.startswith(f"{weight.path}."))
            shard = next(below, 0)
        file = self._files[shard]
        file.tensors[key] = (tensor.dtype, tuple(tensor.shape))
        file.memory[key] = tensor

    def _put_copy(self, key: str, tensor: Tensor) -> None:
        pieces = self._pieces([key, *self._aliases.get(key, ())])
        if not pieces:
            return
        shape = tuple(tensor.shape)
        # As rows along the last dimension; a vector, which may have parts, too, as rows of one element.
        layout = Layout(lead=max(1, len(shape) - 1))
        ranges = self._ranges(pieces, shape, layout, tensor.dtype, key)
        file = self._files[self._shard_of[pieces[0].tensor]]
        file.tensors[key] = (tensor.dtype, shape)
        file.copied.append(Copied(key, math.prod(shape[layout.lead :]), ranges))

    def _put_unplaced(self, name: str) -> None:
        """A tensor that is in the files and not in the skeleton, under its own name."""
        file, info = self._files[self._shard_of[name]], self._shards.tensors[name]
        file.tensors[name] = (info.dtype, info.shape)
        elements = math.prod(info.shape)
        file.copied.append(Copied(name, elements, (RowRange(name, 0, 0, 1, None),)))
        self._used.add(name)

    def _put_quantized(self, key: str, weight: _Int8Weight) -> None:
        pieces = self._pieces(weight.names)
        if not pieces:
            return
        codes = tuple(weight.codes.shape)
        shape = weight.layout.float_shape(codes)
        ranges = self._ranges(pieces, shape, weight.layout, weight.dtype, weight.names[0])
        length = math.prod(codes[weight.layout.lead :])
        file = self._files[self._shard_of[pieces[0].tensor]]
        prefix = key.removesuffix(codes_name(weight.name))
        stored = stored_tensors({weight.name: (weight.layout, codes)})
        file.tensors |= {prefix + name: kind for name, kind in stored.items()}
        _, scales_key, *others = (prefix + name for name in stored)
        file.quantized.append(Quantized(key, scales_key, tuple(others), weight.layout, length, ranges))

    def _pieces(self, names: list[str]) -> tuple[Piece, ...]:
        """What the tensor with these names is made of; further names that the files hold are duplicates."""
        held = [name for name in names if name in self._skeleton.sources]
        if not held:
            self._missing.append(names[0])
            return ()
        first, *others = (self._skeleton.sources[name] for name in held)
        for pieces in others:
            for piece, original in zip(pieces, first, strict=False):
                if piece.tensor != original.tensor:
                    self._duplicates[piece.tensor] = original.tensor
                    self._used.add(piece.tensor)
        return first

    def _ranges(
        self, pieces: tuple[Piece, ...], shape: Shape, layout: Layout, dtype: torch.dtype, name: str
    ) -> tuple[RowRange, ...]:
        ranges = []
        for piece in pieces:
            info = self._shards.tensors[piece.tensor]
            if info.dtype != dtype:
                raise CheckpointError(
                    f"{shown(name)}: expected {dtype}, found {info.dtype} in {shown(piece.tensor)}; all "
                    "parts of a tensor need one dtype"
                )
            self._used.add(piece.tensor)
            ranges.append(row_range(piece, info.shape, shape, layout, name))
        _check_rows(ranges, shape, layout, name)
        return tuple(ranges)


@dataclass(frozen=True)
class _Int8Weight:
    path: str
    name: str
    names: list[str]
    """All names of the float weight, in the order of the model."""
    codes: Tensor
    layout: Layout
    dtype: torch.dtype


def _int8_weights(model: nn.Module) -> dict[int, _Int8Weight]:
    """Every int8 weight, by the identity of each of its tensors."""
    found: dict[int, _Int8Weight] = {}
    for path, module, name in _each_weight(model):
        codes = module.codes_of(name)
        full_name = f"{path}.{name}" if path else name
        if id(codes) in found:
            found[id(codes)].names.append(full_name)
        else:
            layout, dtype = module.layouts[name], module.weight_dtype
            weight = _Int8Weight(path, name, [full_name], codes, layout, dtype)
            others = (module.scales_of(name), *(module.outliers_of(name) or ()))
            found |= {id(tensor): weight for tensor in (codes, *others)}
    return found


def _each_weight(model: nn.Module) -> Iterator[tuple[str, QuantizedModule, str]]:
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module.layouts if isinstance(module, QuantizedModule) else ():
            yield path, module, name


def _check_rows(ranges: list[RowRange], shape: Shape, layout: Layout, name: str) -> None:
    """Every row must be filled exactly once."""
    end = 0
    for part in sorted(ranges, key=lambda part: part.first):
        if part.first != end:
            break
        end += part.count
    count = math.prod(layout.codes_shape(shape)[: layout.lead])
    if end != count:
        raise CheckpointError(
            f"{shown(name)} {list(shape)}: {count} rows are needed, and the files do not give each of them "
            f"once: {', '.join(shown(part.tensor) for part in ranges)}"
        )
