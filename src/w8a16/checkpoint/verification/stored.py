"""What the files alone tell: checksums, scales that are positive numbers, codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from w8a16.checkpoint.container.crc import combine, crc32
from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.opened import Checkpoint, below
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.files import SourceFile
from w8a16.checkpoint.tensors import bytes_of
from w8a16.checkpoint.verification.report import Finding
from w8a16.layers.tensor_names import tensor_names

_PART = 4 << 20  # bytes
_ROLES = ("codes", "scales", None, "outliers")
"""What the tensors of a weight are, in the order of `tensor_names`."""


@dataclass(frozen=True)
class StoredPart:
    """Some bytes of a stored tensor."""

    file: SourceFile
    name: str
    info: TensorInfo
    role: str | None
    """"codes", "scales", "outliers" (their values), or None for all other tensors."""
    start: int
    size: int


@dataclass(frozen=True)
class PartOutcome:
    """What was found in them."""

    crc: int
    bad: int = 0
    """Scales that are not finite positive numbers, or outliers that are not finite."""
    first_bad: int = 0
    """Index of the first of them in the part."""
    value: float = 0.0
    lowest_codes: int = 0


class StoredTally:
    """Puts the parts of each tensor together; parts of a tensor come in the order of its bytes."""

    def __init__(self) -> None:
        self.lowest_codes = 0
        self._crcs: dict[tuple[Path, str], int] = {}
        self._bad: dict[str, Finding] = {}

    def take(self, part: StoredPart, outcome: PartOutcome) -> None:
        """Note the outcome of the next part."""
        key = part.file.path, part.name
        self._crcs[key] = combine(self._crcs.get(key, 0), outcome.crc, part.size)
        self.lowest_codes += outcome.lowest_codes
        if not outcome.bad:
            return
        known = self._bad.get(part.name)
        if known is None:
            index = part.start // part.info.dtype.itemsize + outcome.first_bad
            wanted = "finite positive scales" if part.role == "scales" else "finite outliers"
            problem = f"expected {wanted}, the first of the others is {outcome.value}"
            known = Finding(part.name, problem, 0, unflattened(index, part.info.shape))
        self._bad[part.name] = replace(known, count=(known.count or 0) + outcome.bad)

    def crc(self, shards: Shards, name: str) -> int:
        """The checksum of a tensor that was read as a whole."""
        return self._crcs[shards.header_of(name).path, name]

    def findings(self, checkpoint: Checkpoint) -> Iterator[Finding]:
        """All that is wrong with the stored tensors."""
        for name, expected in checkpoint.manifest.checksums.items():
            found = self.crc(checkpoint.shards, name)
            if found != expected:
                yield Finding(name, f"its checksum is {found:08x}, the manifest says {expected:08x}")
        yield from self._bad.values()


def stored_parts(checkpoint: Checkpoint, files: list[SourceFile]) -> Iterator[StoredPart]:
    """Every byte of every tensor, cut into small parts, in the order of the files."""
    roles = {
        below(path, key): role
        for path, record in checkpoint.manifest.modules.items()
        for name, weight in record.weights.items()
        for key, role in zip(tensor_names(name, weight.layout), _ROLES, strict=False)
    }
    for file in files:
        for name, info in file.header.tensors.items():
            yield from parts_of(file, name, info, roles.get(name))


def parts_of(file: SourceFile, name: str, info: TensorInfo, role: str | None) -> Iterator[StoredPart]:
    """One tensor, cut; an empty one is one empty part."""
    for start in range(0, max(info.size, 1), _PART):
        yield StoredPart(file, name, info, role, start, min(_PART, info.size - start))


def check_part(part: StoredPart, buffers: Buffers) -> PartOutcome:
    """Read a part and look at it."""
    raw = buffers.take("stored", (part.size,), torch.uint8)
    view = bytes_of(raw)
    read_at(part.file.fd, view, part.info.start + part.start, part.file.path)
    crc = crc32(view)
    if part.role == "codes":
        codes = raw.view(torch.int8)
        # The minimum is some forty times faster than the count, and there are hardly ever any.
        found = len(codes) and int(codes.min()) == -128
        return PartOutcome(crc, lowest_codes=int((codes == -128).count_nonzero()) if found else 0)
    if part.role is not None:
        values = raw.view(torch.float32)
        good = torch.isfinite(values)
        bad = torch.nonzero(~(good & (values > 0) if part.role == "scales" else good))
        if len(bad):
            first = int(bad[0])
            return PartOutcome(crc, len(bad), first, float(values[first]))
    return PartOutcome(crc)


def unflattened(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index, one number for each dimension, of an element in a tensor of this shape."""
    place = []
    for i in range(len(shape)):
        inner = math.prod(shape[i + 1 :])
        place.append(index // inner)
        index %= inner
    return tuple(place)
