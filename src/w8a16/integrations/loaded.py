"""From a model that was loaded with traced tensors to a skeleton."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from w8a16.checkpoint import shown
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.errors import CheckpointError
from w8a16.integrations.boxes import NotFollowed
from w8a16.integrations.folders import some
from w8a16.integrations.traced import Ledger, Traced


def skeleton_of_loaded(path: Path, model: nn.Module, ledger: Ledger, name: str) -> Skeleton:
    """Put the traced tensors of a loaded model on the meta device, and note what they were made of.

    Args:
        path: the folder, for errors.
        model: loaded from `ledger.state()` by its library; changed in place.
        ledger: of the stored tensors.
        name: of the model class.

    Raises:
        CheckpointError: a tensor was computed from stored ones in a way that pieces do not express, or
            a stored tensor was loaded and then lost.
    """
    traced = {
        key: value for key, value in model.state_dict(keep_vars=True).items() if isinstance(value, Traced)
    }
    sources = _sources(path, traced, ledger, name)
    used = {piece.tensor for pieces in sources.values() for piece in pieces}
    lost = sorted(ledger.used - used - set(ledger.copies))
    if lost:
        raise CheckpointError(
            f"{shown(path)}: {name} takes other tensors in the place of {len(lost)} of the folder: "
            f"{some(lost)}"
        )
    _move_to_meta(model, ledger, {id(traced[key]): pieces for key, pieces in sources.items()})
    return Skeleton(
        model=model,
        sources=_stored_only(traced, sources, ledger),
        ignored=tuple(name for name in ledger.tensors if name not in ledger.used),
        origin="classes",
        name=name,
    )


def _sources(
    path: Path, traced: dict[str, Traced], ledger: Ledger, name: str
) -> dict[str, tuple[Piece, ...]]:
    sources, problems = {}, []
    for key, tensor in traced.items():
        try:
            sources[key] = ledger.pieces(tensor)
        except NotFollowed as error:
            problems.append(f"{key} ({error})")
    if problems:
        raise CheckpointError(
            f"{shown(path)}: {name} computes {len(problems)} tensors from stored ones in a way that cannot "
            f"be streamed: {some(problems)}; load the model, call w8a16.quantize on it, and save it with "
            "w8a16.save"
        )
    return sources


def _move_to_meta(model: nn.Module, ledger: Ledger, sources: dict[int, tuple[Piece, ...]]) -> None:
    """Replace the traced tensors; one that has several places remains one."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if not isinstance(tensor, Traced):
                    continue
                if id(tensor) not in made:
                    pieces = sources[id(tensor)]
                    dtype = ledger.tensors[pieces[0].tensor].dtype if pieces else tensor.dtype
                    empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
                    trained = tensor.requires_grad and dtype.is_floating_point
                    is_parameter = held is module._parameters
                    made[id(tensor)] = nn.Parameter(empty, trained) if is_parameter else empty
                held[name] = made[id(tensor)]  # type: ignore[assignment]


def _stored_only(
    state: dict[str, Traced], sources: dict[str, tuple[Piece, ...]], ledger: Ledger
) -> dict[str, tuple[Piece, ...]]:
    """Of each group of tied keys, the one that the files hold, and those that they hold a copy for."""
    groups: dict[int, list[str]] = {}
    for key, tensor in state.items():
        groups.setdefault(id(tensor), []).append(key)
    found = {}
    for keys in groups.values():
        pieces = sources[keys[0]]
        stored = pieces[0].tensor if pieces else keys[0]
        kept = next((key for key in keys if _names_same(key, stored)), keys[0])
        found[kept] = pieces
        copies = [copy for copy, original in ledger.copies.items() if original == stored]
        for key in keys:
            copy = next((copy for copy in copies if _names_same(key, copy)), None)
            if key != kept and copy is not None:
                found[key] = (Piece(copy),)
    return {key: found[key] for key in state if key in found}


def _names_same(key: str, stored: str) -> bool:
    """Whether a key and a stored name differ by a prefix at most."""
    return f".{key}".endswith(f".{stored}") or f".{stored}".endswith(f".{key}")
