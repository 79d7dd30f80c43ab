"""Which stored tensors of the float checkpoint each tensor of the quantized one is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.opened import Checkpoint, below
from w8a16.checkpoint.records import WeightRecord
from w8a16.checkpoint.skeleton import Piece
from w8a16.checkpoint.streaming.rows import RowRange, row_range
from w8a16.checkpoint.verification.report import Finding
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError
from w8a16.layers.tensor_names import tensor_names


@dataclass(frozen=True)
class Original:
    """The float checkpoint that a quantized one was made from."""

    shards: Shards
    sources: Mapping[str, tuple[Piece, ...]]
    """For keys of the model's state dict, what they are made of; keys that are missing here are looked up
    in the files by their own name."""


@dataclass(frozen=True)
class Weight:
    """An int8 weight, and the rows of the original that it is made of."""

    codes: str
    scales: str
    outliers: tuple[str, ...]
    """Their columns and values; empty where there are none."""
    record: WeightRecord
    ranges: tuple[RowRange, ...]

    @property
    def row_length(self) -> int:
        """Elements of a row."""
        return math.prod(self.record.shape[self.record.layout.lead :])


@dataclass
class Pairing:
    """What can be compared, and what cannot."""

    weights: list[Weight] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    """Tensors that must have the bytes of a tensor of the original, with its name."""
    not_compared: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def pair(checkpoint: Checkpoint, original: Original) -> Pairing:
    """Find the original of every tensor."""
    pairing = Pairing()
    used = _pair_weights(checkpoint, original, pairing)
    stored, floats = checkpoint.shards.tensors, original.shards.tensors
    computed = set(checkpoint.manifest.non_persistent_buffers)
    for name, info in stored.items():
        if name in used:
            continue
        pieces = original.sources.get(name) or ((Piece(name),) if name in floats else ())
        if not pieces and name in computed:
            continue  # a buffer that the class makes: no float file holds it
        whole = len(pieces) == 1 and pieces[0] == Piece(pieces[0].tensor)
        if not whole:
            known = "it is put together from several tensors" if pieces else "the original has no such tensor"
            pairing.not_compared[name] = known
            continue
        other = floats[pieces[0].tensor]
        if (other.dtype, other.size) == (info.dtype, info.size):
            pairing.copies[name] = pieces[0].tensor
        else:
            problem = f"{info.dtype} {list(info.shape)}, the original is {other.dtype} {list(other.shape)}"
            pairing.findings.append(Finding(name, problem))
    return pairing


def _pair_weights(checkpoint: Checkpoint, original: Original, pairing: Pairing) -> set[str]:
    """Pair all int8 weights; returns the stored keys that belong to them."""
    manifest = checkpoint.manifest
    names: dict[tuple[str, ...], list[str]] = {}
    records: dict[tuple[str, ...], WeightRecord] = {}
    for path, record in manifest.modules.items():
        for name, weight in record.weights.items():
            keys = (below(path, key) for key in tensor_names(name, weight.layout))
            stored = tuple(manifest.ties.get(key, key) for key in keys)
            names.setdefault(stored, []).append(below(path, name))
            records[stored] = weight
    for stored, own in names.items():
        try:
            paired = _pair_weight(stored, records[stored], own, original)
        except CheckpointError as error:
            pairing.findings.append(Finding(stored[0], str(error)))
            continue
        if isinstance(paired, str):
            pairing.not_compared[own[0]] = paired
        else:
            pairing.weights.append(paired)
    return {key for stored in names for key in stored}


def _pair_weight(
    stored: tuple[str, ...], record: WeightRecord, names: list[str], original: Original
) -> Weight | str:
    """The weight with its rows; or why it cannot be compared."""
    floats = original.shards.tensors
    mapped = [original.sources[name] for name in names if name in original.sources]
    by_name = [(Piece(name),) for name in names if name in floats]
    pieces = next(iter([*mapped, *by_name]), None)
    if pieces is None:
        return "the original has no tensor of this name"
    odd = [piece.tensor for piece in pieces if floats[piece.tensor].dtype not in FLOAT_DTYPES]
    if odd:
        return f"{', '.join(odd)} of the original: {floats[odd[0]].dtype}"
    shape, layout = record.layout.float_shape(record.shape), record.layout
    ranges = [row_range(piece, floats[piece.tensor].shape, shape, layout, names[0]) for piece in pieces]
    rows = math.prod(record.shape[: layout.lead])
    if sum(part.count for part in ranges) != rows:
        raise CheckpointError(f"the original has {sum(part.count for part in ranges)} of its {rows} rows")
    codes, scales, *outliers = stored
    return Weight(codes, scales, tuple(outliers), record, tuple(ranges))
