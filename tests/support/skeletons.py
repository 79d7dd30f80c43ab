"""What a skeleton says a model is made of, put together from the files and compared to the model itself."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from support.files import bits
from w8a16.checkpoint import Shards
from w8a16.checkpoint.skeleton import Piece, Skeleton


def read(shards: Shards, name: str) -> Tensor:
    """A stored tensor, with the safetensors library."""
    with safe_open(shards.header_of(name).path, framework="pt") as file:
        return file.get_tensor(name)


def assembled(shards: Shards, pieces: tuple[Piece, ...], like: Tensor) -> Tensor:
    """The tensor that pieces make: what `Piece` promises, in the plainest way."""
    filled = torch.zeros(like.shape, dtype=torch.int32)
    result = torch.empty(like.shape, dtype=like.dtype, device="cpu")
    for piece in pieces:
        part = read(shards, piece.tensor)
        assert part.dtype == like.dtype, piece
        if piece.rows is not None:
            part = part[slice(*piece.rows)]
        if piece.transposed:
            part = part.mT
        if piece.start is None:
            result, filled = part.reshape(like.shape), filled + 1
            continue
        part = part.reshape((1,) * (like.dim() - part.dim()) + part.shape)
        place = tuple(slice(begin, begin + size) for begin, size in zip(piece.start, part.shape, strict=True))
        result[place] = part
        filled[place] += 1
    assert bool((filled == 1).all()), "the pieces leave a gap or overlap"
    return result


def groups(state: dict[str, Tensor]) -> set[frozenset[str]]:
    """Which keys are the same memory."""
    found: dict[Hashable, set[str]] = {}
    for key, tensor in state.items():
        identity = id(tensor) if tensor.is_meta or not tensor.numel() else (tensor.data_ptr(), tensor.shape)
        found.setdefault(identity, set()).add(key)
    return {frozenset(keys) for keys in found.values()}


def hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers outside the state dict, under all their names."""
    return {
        f"{path}.{name}" if path else name: buffer
        for path, module in model.named_modules(remove_duplicate=False)
        for name, buffer in module._buffers.items()
        if buffer is not None and name in module._non_persistent_buffers_set
    }


def assert_leads_to(skeleton: Skeleton, shards: Shards, expected: nn.Module) -> None:
    """Following the sources gives `expected`: keys, shapes, dtypes, values, ties, hidden buffers, classes."""
    found = skeleton.model.state_dict(keep_vars=True)
    wanted = expected.state_dict(keep_vars=True)
    # By name: a parametrized module has a class of its own.
    assert [(n, type(m).__name__) for n, m in skeleton.model.named_modules()] == [
        (n, type(m).__name__) for n, m in expected.named_modules()
    ]
    assert list(found) == list(wanted)
    assert groups(found) == groups(wanted)
    source_of = {id(found[key]): pieces for key, pieces in skeleton.sources.items()}
    for key, tensor in wanted.items():
        assert (found[key].shape, found[key].dtype) == (tensor.shape, tensor.dtype), key
        assert found[key].requires_grad == tensor.requires_grad, key
        assert isinstance(found[key], nn.Parameter) == isinstance(tensor, nn.Parameter), key
        if found[key].is_meta:
            pieces = skeleton.sources.get(key, source_of[id(found[key])])
            assert bits(assembled(shards, pieces, found[key])) == bits(tensor), key
        else:
            assert bits(found[key]) == bits(tensor), key
            assert key not in skeleton.sources
    assert set(skeleton.sources) <= set(found)
    assert_same_hidden_buffers(skeleton.model, expected)
    used = {piece.tensor for pieces in skeleton.sources.values() for piece in pieces}
    assert used | set(skeleton.ignored) == set(shards.tensors)


def assert_same_hidden_buffers(model: nn.Module, expected: nn.Module) -> None:
    found, wanted = hidden_buffers(model), hidden_buffers(expected)
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert not found[name].is_meta, name
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype), name
        assert bits(found[name]) == bits(tensor), name


def stored_once(folder: Path) -> set[str]:
    """Names in the only weight file of a folder."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())
