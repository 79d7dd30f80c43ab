"""The weights of a float folder, read from its files one at a time, as the model class has them.

The pieces of a skeleton say which stored tensors a weight is made of, so what the library that owns the
class renames, stacks or splits when it loads a folder holds here too. Nothing is kept: a weight that is
asked for again is read again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from w8a16.checkpoint import Shards, shown
from w8a16.checkpoint.container.disk import discard, read_at
from w8a16.checkpoint.container.header import open_again
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.checkpoint.streaming.computed import read_computed
from w8a16.checkpoint.tensors import bytes_of
from w8a16.convert import effective_weight
from w8a16.errors import CheckpointError


class FloatSource:
    """Called with the full name of a weight, it returns the float values in their stored dtype.

    The skeleton's modules that compute a weight from other tensors (weight normalization) get real
    values at once: those are few and small.
    """

    def __init__(self, skeleton: Skeleton, shards: Shards) -> None:
        read_computed(skeleton, shards)
        self._model, self._shards = skeleton.model, shards
        self._state: dict[str, Tensor] = skeleton.model.state_dict(keep_vars=True)
        self._pieces = dict(skeleton.sources)
        made_of = {id(self._state[key]): pieces for key, pieces in skeleton.sources.items()}
        for key, tensor in self._state.items():  # of tied keys only those that are stored have pieces
            if key not in self._pieces and id(tensor) in made_of:
                self._pieces[key] = made_of[id(tensor)]

    def __call__(self, name: str) -> Tensor:
        """Read one weight.

        Raises:
            CheckpointError: the model has no weight of this name.
            ResourceError: a file cannot be read, or was changed meanwhile.
        """
        tensor = self._state.get(name)
        if tensor is None:
            return self._computed(name)
        if not tensor.is_meta:
            return tensor.detach()
        return _assembled(self._shards, self._pieces[name], tensor)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a weight, which is not read; None where the model has none of this name."""
        tensor = self._state.get(name)
        try:
            return tuple((self._computed(name) if tensor is None else tensor).shape)
        except CheckpointError:
            return None

    def _computed(self, name: str) -> Tensor:
        path, _, own_name = name.rpartition(".")
        try:
            weight = effective_weight(self._model.get_submodule(path), own_name)
        except AttributeError:
            weight = None
        if not isinstance(weight, Tensor):
            raise CheckpointError(
                f"{shown(self._shards.path)}: {type(self._model).__name__} has no weight {shown(name)}"
            )
        return weight


def _assembled(shards: Shards, pieces: Sequence[Piece], like: Tensor) -> Tensor:
    """A tensor with the shape of `like`, put together from the files."""
    if len(pieces) == 1 and pieces[0].start is None:
        part = _read(shards, pieces[0])
        return part.mT if pieces[0].transposed else part.reshape(like.shape)
    result = torch.empty(like.shape, dtype=like.dtype, device="cpu")
    for piece in pieces:
        part = _read(shards, piece)
        part = part.mT if piece.transposed else part
        part = part.reshape((1,) * (like.dim() - part.dim()) + part.shape)
        start = piece.start or (0,) * like.dim()
        place = tuple(slice(begin, begin + size) for begin, size in zip(start, part.shape, strict=True))
        result[place] = part
    return result


def _read(shards: Shards, piece: Piece) -> Tensor:
    """The rows of a stored tensor that a piece means."""
    header, info = shards.header_of(piece.tensor), shards.tensors[piece.tensor]
    shape, offset = info.shape, info.start
    if piece.rows is not None:
        begin, end = piece.rows
        shape = (end - begin, *info.shape[1:])
        offset += begin * (info.size // max(info.shape[0], 1))
    tensor = torch.empty(shape, dtype=info.dtype, device="cpu")
    fd = open_again(header)
    try:
        read_at(fd, bytes_of(tensor), offset, header.path)
    finally:
        discard(fd)
    return tensor
