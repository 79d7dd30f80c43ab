"""A skeleton: a model without weights, and which stored tensors each of its tensors is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Piece:
    """One stored tensor, and the place in a tensor of the model that it fills."""

    tensor: str
    """Its name in the files."""
    start: tuple[int, ...] | None = None
    """The first index that it fills in the model's tensor; None: it is the whole tensor, of the same shape.
    A stored tensor of fewer dimensions (one expert of a stack) fills a single index of the leading ones."""
    transposed: bool = False
    """Whether its last two dimensions are exchanged on the way in."""


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device, with the way from its state dict to the files."""

    model: nn.Module
    """In evaluation mode; parameters on meta, in the dtypes they have in the files; buffers that are not
    part of the state dict have their real values."""
    sources: dict[str, tuple[Piece, ...]]
    """For each key of the state dict, what it is made of. Of tied keys, those that are stored."""
    ignored: tuple[str, ...]
    """Stored tensors that the model has no place for, and need not have (buffers of older classes)."""
    origin: str
    """How it was known what each tensor is: "classes" or "names"."""
    name: str
    """The model class, or "tensor names"."""
