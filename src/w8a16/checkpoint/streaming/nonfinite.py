"""Weights with values that have no code: found, named, and refused or kept float."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from w8a16.checkpoint.container.disk import discard, read_at
from w8a16.checkpoint.container.header import TensorInfo, open_again
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.checkpoint.streaming.blocks import BLOCK_BYTES, find_nonfinite
from w8a16.checkpoint.streaming.buffers import Buffers
from w8a16.checkpoint.streaming.results import NonFinite
from w8a16.checkpoint.tensors import bytes_of
from w8a16.convert import REASONS
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import WeightValueError


@dataclass(frozen=True)
class Description:
    """What is wrong with a stored tensor."""

    tensor: str
    problem: str


def describe(found: Iterable[NonFinite], shards: Shards) -> list[Description]:
    """One description for each tensor, with the count, the first position and the value there."""
    by_tensor: dict[str, list[NonFinite]] = {}
    for part in found:
        by_tensor.setdefault(part.tensor, []).append(part)
    return [
        Description(name, _problem(parts, shards.tensors[name])) for name, parts in sorted(by_tensor.items())
    ]


def refusal(descriptions: list[Description]) -> WeightValueError:
    """The error that names all of them."""
    bad = [f"{shown(d.tensor)}: {REASONS['nonfinite']}: {d.problem}" for d in descriptions]
    listed = bad[0] if len(bad) == 1 else "".join(f"\n  {line}" for line in bad)
    return WeightValueError(
        f"{listed}; nothing was written; on_nonfinite='keep-float' (--on-nonfinite keep-float) leaves such "
        "weights as they are"
    )


def find_nonfinite_weights(skeleton: Skeleton, shards: Shards) -> dict[str, str]:
    """Read every float tensor once; returns what is wrong, by the names of the model's parameters."""
    buffers, found = Buffers(), []
    for header in shards.headers:
        fd = open_again(header)
        try:
            for name, info in header.tensors.items():
                if info.dtype in FLOAT_DTYPES and len(info.shape) >= 2:
                    found += _scan(fd, header.path, name, info, buffers)
        finally:
            discard(fd)
    problems = {d.tensor: d.problem for d in describe(found, shards)}
    return {
        key: problems[piece.tensor]
        for key, pieces in skeleton.sources.items()
        for piece in pieces
        if piece.tensor in problems
    }


def _scan(fd: int, path: Path, name: str, info: TensorInfo, buffers: Buffers) -> list[NonFinite]:
    step = BLOCK_BYTES // info.dtype.itemsize
    count = info.size // info.dtype.itemsize
    found = []
    for start in range(0, count, step):
        part = buffers.take("raw", (min(step, count - start),), info.dtype)
        read_at(fd, bytes_of(part), info.start + start * info.dtype.itemsize, path)
        bad = find_nonfinite(name, part, start.__add__)
        if bad is not None:
            found.append(bad)
    return found


def _problem(parts: list[NonFinite], info: TensorInfo) -> str:
    first = min(parts, key=lambda part: part.first)
    count, total = sum(part.count for part in parts), math.prod(info.shape)
    index = [int(i) for i in torch.unravel_index(torch.tensor(first.first), info.shape)]
    verb = "is" if count == 1 else "are"
    what = "NaN or Inf" if info.dtype != torch.float64 else "NaN, Inf or too large for a float32 scale"
    return f"{count} of {total} values {verb} {what}, the first at {index} ({first.value})"
