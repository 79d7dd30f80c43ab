"""Does a checkpoint hold int8 weights that can be taken over? By the library that wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from w8a16.checkpoint import METADATA_KEY, Shards, open_shards, refuse_quantized, shown
from w8a16.errors import CheckpointError, W8A16Error
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.foreign_int8 import packed, plain
from w8a16.integrations.foreign_int8.records import Found

_CODES = frozenset(
    {
        torch.int8,
        torch.uint8,
        torch.int32,
        torch.uint32,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e8m0fnu,
    }
)


def find_int8(shards: Shards, config: Mapping[str, Any]) -> Found:
    """Find the int8 weights of another library.

    Args:
        shards: the files.
        config: the model's config.json; empty where there is none.

    Raises:
        CheckpointError: float weights, weights of this library, or of a kind that has no int8 code here.
    """
    if any(METADATA_KEY in header.metadata for header in shards.headers):
        raise CheckpointError(f"{shown(shards.path)}: int8 of w8a16 already: nothing is to be imported")
    try:
        found = packed.find(shards, config) or plain.find(shards)
    except CheckpointError as error:
        raise error.at(shown(shards.path)) from error
    if found is None or not found.weights:
        _say_what_it_is(shards, config)
    _refuse_other_codes(shards, found)
    return found


def has_int8(folder: Path) -> bool:
    """Whether a folder holds int8 weights that can be taken over."""
    try:
        config = read_config(folder) if (folder / "config.json").is_file() else {}
        find_int8(open_shards(folder), config)
    except W8A16Error:
        return False
    return True


def _say_what_it_is(shards: Shards, config: Mapping[str, Any]) -> NoReturn:
    expected = "expected int8 weights of compressed-tensors, bitsandbytes, quanto or torchao"
    try:
        refuse_quantized(shards, config)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("expected float weights", expected)) from error
    raise CheckpointError(f"{shown(shards.path)}: float weights; {expected}; use w8a16 quantize for these")


def _refuse_other_codes(shards: Shards, found: Found) -> None:
    known = {*found.dropped, *(weight.codes for weight in found.weights.values())}
    others = [
        name
        for name, info in shards.tensors.items()
        if name not in known and info.dtype in _CODES and len(info.shape) >= 2
    ]
    if others:
        raise CheckpointError(
            f"{shown(shards.path)}: beside int8 weights of {found.method} there are {len(others)} tensors of "
            f"codes that are not understood: {some(others)}"
        )
