"""Under which names other programs expect the weights of a model: those of its published checkpoints.

transformers renames tensors when it loads a folder, and stacks the experts of a layer into one weight;
`save_pretrained` undoes both. Its own code for that is run here on tensors that hold row numbers in the
place of values, so what comes out says which rows of a stack each published tensor is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """A published matrix that is made of some rows of a stack of experts."""

    name: str
    first: int
    """The first of its rows, counted through all experts."""
    count: int


def published_names(model: nn.Module, keys: Collection[str]) -> dict[str, str]:
    """The published name of each key of the state dict: its own where none is known.

    Args:
        model: built by transformers, on the meta device.
        keys: of its state dict, those that are to be stored.
    """
    state = model.state_dict(keep_vars=True)
    given = {key: state[key] for key in keys if key in state}
    owners = {id(tensor): key for key, tensor in given.items()}
    names = {key: key for key in keys}
    for name, tensor in _reverted(model, given).items():
        if id(tensor) in owners:  # else it is computed from what is stored, and has no name of its own
            names[owners[id(tensor)]] = name
    return names


def published_parts(model: nn.Module, stacks: Mapping[str, tuple[int, int]]) -> dict[str, tuple[Part, ...]]:
    """The matrices that each stack of experts is published in; a stack without such is left out.

    Args:
        model: built by transformers, on the meta device.
        stacks: keys of its state dict, with the experts and the rows of each.
    """
    found = {}
    for key, (experts, rows) in stacks.items():
        numbers = torch.arange(experts * rows).view(experts, rows, 1)
        parts = [_part(name, tensor) for name, tensor in _reverted(model, {key: numbers}).items()]
        known = sorted((part for part in parts if part is not None), key=lambda part: part.first)
        if len(known) == len(parts) and _cover(known, experts * rows):
            found[key] = tuple(known)
    return found


def _reverted(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Any]:
    """What transformers would save; nothing where this version cannot say it."""
    try:
        from transformers.core_model_loading import revert_weight_conversion

        reverted: dict[str, Any] = revert_weight_conversion(model, dict(state))
    except Exception:  # its rules are made for values, and may do anything with tensors that have none
        return {}
    return reverted


def _part(name: str, numbers: Any) -> Part | None:
    """The rows that a tensor is made of, where they follow each other."""
    if not isinstance(numbers, Tensor) or numbers.dim() != 2 or not name.endswith(".weight"):
        return None
    flat = numbers.reshape(-1)
    first = int(flat[0]) if flat.numel() else 0
    follows = torch.equal(flat, torch.arange(first, first + flat.numel()))
    return Part(name, first, flat.numel()) if follows else None


def _cover(parts: list[Part], rows: int) -> bool:
    """Whether sorted parts give every row once."""
    end = 0
    for part in parts:
        if part.first != end:
            return False
        end += part.count
    return bool(parts) and end == rows
