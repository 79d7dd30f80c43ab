"""compressed-tensors with weights of 8-bit integers: `pack-quantized`, and `int-quantized` (not packed)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from w8a16.checkpoint import Shards, shown
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors.config import METHOD
from w8a16.integrations.compressed_tensors.layout import PACKED, SCALE, SHAPE, ZERO_POINT, words_in
from w8a16.integrations.foreign_int8.records import ForeignWeight, Found, read_small, scales_a_row

_ACTIVATIONS = ("input_scale", "input_zero_point", "output_scale", "output_zero_point", "input_global_scale")
_ORDER = "weight_g_idx"


def find(shards: Shards, config: Mapping[str, Any]) -> Found | None:
    """The int8 weights, or None where the checkpoint is of another kind.

    Raises:
        CheckpointError: weights of another width or type, or with zero points, an order or a rotation.
    """
    said = config.get("quantization_config")
    said = said if isinstance(said, dict) else {}
    tensors = shards.tensors
    packed = [name for name in tensors if name.endswith(f".{PACKED}")]
    if said.get("quant_method") != METHOD and not packed:
        return None
    notes = _check_config(said)
    layers = [name.removesuffix(f".{PACKED}") for name in packed]
    shapes = read_small(shards, [f"{layer}.{SHAPE}" for layer in layers])
    weights = {f"{layer}.weight": _packed(shards, layer, shapes.get(f"{layer}.{SHAPE}")) for layer in layers}
    for name, info in tensors.items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and info.dtype == torch.int8 and f"{layer}.{SCALE}" in tensors:
            weights[name] = _weight(shards, layer, name, False, (info.shape[0], info.shape[1]))
    dropped = {
        f"{name.removesuffix('.weight')}.{ending}"
        for name in weights
        for ending in (SCALE, SHAPE, ZERO_POINT, *_ACTIVATIONS)
    }
    return Found(METHOD, weights, frozenset(dropped & tensors.keys()), notes)


def _packed(shards: Shards, layer: str, stored: torch.Tensor | None) -> ForeignWeight:
    info = shards.tensors[f"{layer}.{PACKED}"]
    if stored is None or stored.numel() != 2:
        raise CheckpointError(f"{shown(layer)}: packed, but {SHAPE} is missing: how long are its rows?")
    n, k = (int(size) for size in stored.tolist())
    if info.dtype != torch.int32 or info.shape != (n, words_in(k)):
        raise CheckpointError(
            f"{shown(layer)}: expected int32 {[n, words_in(k)]} for 8-bit codes of {[n, k]}, found "
            f"{info.dtype} {list(info.shape)}"
        )
    return _weight(shards, layer, f"{layer}.{PACKED}", True, (n, k))


def _weight(shards: Shards, layer: str, codes: str, packed: bool, shape: tuple[int, int]) -> ForeignWeight:
    tensors, scales = shards.tensors, f"{layer}.{SCALE}"
    if scales not in tensors:
        raise CheckpointError(f"{shown(layer)}: has codes, but no {SCALE}")
    if f"{layer}.{_ORDER}" in tensors:
        raise CheckpointError(f"{shown(layer)}: its groups are in an order of their own ({_ORDER})")
    zero_points = f"{layer}.{ZERO_POINT}"
    if packed and zero_points in tensors:
        raise CheckpointError(f"{shown(layer)}: asymmetric, it has zero points; int8 here is symmetric")
    count = scales_a_row(shards, scales, shape, layer)
    return ForeignWeight(
        codes, packed, shape, scales, count, zero_points=zero_points if zero_points in tensors else None
    )


def _check_config(said: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse what codes and scales do not say by themselves."""
    if said.get("transform_config"):
        raise CheckpointError("the model is rotated (transform_config), which needs code beside the weights")
    if (said.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise CheckpointError("the weights are stored sparsely (sparsity_config)")
    notes: tuple[str, ...] = ()
    for name, group in (said.get("config_groups") or {}).items():
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            continue
        width, kind = weights.get("num_bits"), weights.get("type", "int")
        if (width, kind) != (8, "int"):
            raise CheckpointError(
                f"{shown(name)}: weights of type {kind} with {width} bits; expected int with 8"
            )
        if not weights.get("symmetric", True):
            raise CheckpointError(f"{shown(name)}: asymmetric, it has zero points; int8 here is symmetric")
        if weights.get("actorder") not in (None, False, "static", "weight"):
            raise CheckpointError(f"{shown(name)}: its groups are in an order of their own (actorder)")
        if group.get("input_activations") or group.get("output_activations"):
            notes = ("activations are quantized in the source; here they stay float",)
    return notes
