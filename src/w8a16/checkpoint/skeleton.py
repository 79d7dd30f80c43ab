"""A skeleton: a model without weights, and which stored tensors each of its tensors is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Piece:
    """A stored tensor, or some of its rows, and the place in a tensor of the model that it fills.

    First the rows are taken, then the last two dimensions are exchanged, then the values are placed.
    """

    tensor: str
    """Its name in the files."""
    start: tuple[int, ...] | None = None
    """The first index that it fills in the model's tensor, in which it lies with its last dimensions: a
    matrix fills one index of the first dimension of a stack. None: it is the whole of the model's tensor,
    with the same values in the same order (the shapes may differ, as of a convolution and a matrix)."""
    transposed: bool = False
    """Whether its last two dimensions are exchanged on the way in."""
    rows: tuple[int, int] | None = None
    """The first and the end of the indices in its first dimension that are meant; None: all."""


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device, with the way from its state dict to the files."""

    model: nn.Module
    """In evaluation mode. Its parameters are on meta, in the dtypes they have in the files. What the files
    need not hold has real values: buffers that are not part of the state dict, and the few tensors of the
    state dict that the class computes itself."""
    sources: dict[str, tuple[Piece, ...]]
    """For each key of the state dict what it is made of; no key is missing whose tensor is on meta, but of
    tied keys only those are here that the files hold themselves."""
    ignored: tuple[str, ...]
    """Stored tensors that the model has no place for, and need not have (buffers of older classes)."""
    origin: str
    """How it was known what each tensor is: "classes" or "names"."""
    name: str
    """The model class, or "tensor names"."""
    copied: dict[str, str] = field(default_factory=dict)
    """Stored tensors that cannot be a tensor of any model, because of their names, each with the reason;
    they are copied as they are."""
