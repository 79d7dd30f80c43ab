"""What was found in a checkpoint of another library: int8 codes, and where their scales lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from w8a16.checkpoint import Shards, shown
from w8a16.checkpoint.container.disk import discard, read_at
from w8a16.checkpoint.container.header import open_again
from w8a16.checkpoint.tensors import bytes_of
from w8a16.errors import CheckpointError


@dataclass(frozen=True)
class ForeignWeight:
    """A float weight `[N, K]` that is stored as `codes * scales / divisor`."""

    codes: str
    """The stored tensor of the codes: int8 `[N, K]`, or int32 words as compressed-tensors packs them."""
    packed: bool
    """Whether they are packed."""
    shape: tuple[int, int]
    scales: str
    """The stored tensor of the scales, in any float dtype: one, one a row, or one a group, row by row."""
    scales_a_row: int
    """How many scales a row has; 0: all rows share one."""
    divisor: int = 1
    zero_points: str | None = None
    """A stored tensor that has to hold zeros only."""

    @property
    def group(self) -> int:
        """Elements of a row that share a scale; 0: all."""
        return self.shape[1] // self.scales_a_row if self.scales_a_row > 1 else 0


@dataclass(frozen=True)
class Found:
    """The int8 weights of a checkpoint."""

    method: str
    weights: dict[str, ForeignWeight]
    """By the name that the float weight would have."""
    dropped: frozenset[str]
    """Stored tensors that only say how the codes lie, or are made anew."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know: something of the source that has no place here."""


def scales_a_row(shards: Shards, name: str, shape: tuple[int, int], layer: str) -> int:
    """How many scales each row has; 0 where all share one.

    Raises:
        CheckpointError: the scales are not floats, or neither one, one a row, nor one a group.
    """
    info = shards.tensors[name]
    n, k = shape
    if info.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise CheckpointError(
            f"{shown(layer)}: scales in {info.dtype}; expected float32, bfloat16 or float16"
        )
    if info.shape in ((), (1,), (1, 1)) and n != 1:
        return 0
    if info.shape in ((n,), (n, 1), ()):
        return 1
    if len(info.shape) == 2 and info.shape[0] == n and info.shape[1] and k % info.shape[1] == 0:
        return info.shape[1]
    raise CheckpointError(
        f"{shown(layer)}: scales {list(info.shape)} for a weight {list(shape)}; expected one for all, one a "
        "row, or one for each of equal groups in a row"
    )


def read_small(shards: Shards, names: list[str]) -> dict[str, Tensor]:
    """Read tensors of a few elements, opening each file once.

    Raises:
        ResourceError: a file cannot be read, or was changed meanwhile.
    """
    wanted, values = set(names), {}
    for header in shards.headers:
        held = [name for name in header.tensors if name in wanted]
        if not held:
            continue
        fd = open_again(header)
        try:
            for name in held:
                info = header.tensors[name]
                values[name] = torch.empty(info.shape, dtype=info.dtype)
                read_at(fd, bytes_of(values[name]), info.start, header.path)
        finally:
            discard(fd)
    return values
