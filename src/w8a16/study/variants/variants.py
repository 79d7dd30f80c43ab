"""The quantizers that the study compares, by name, applied to a whole float model in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from w8a16.errors import ModuleError, UsageError
from w8a16.study.variants import quantizers
from w8a16.study.variants.float_rows import FloatRows, float_rows


@dataclass(frozen=True)
class Variant:
    """One way to quantize the rows of a weight."""

    name: str
    sentence: str
    """What it does, for tables and legends."""
    simulate: quantizers.Quantizer
    """Rows `[N, K]` to the values that the quantized weight stands for, same shape and dtype."""
    stored_bytes: Callable[[int, int], int]
    """`(N, K)` to the bytes of codes, scales and whatever else is kept."""


def _per_row(scale: int = 4, bits: int = 8, extra: int = 0) -> Callable[[int, int], int]:
    return lambda n, k: math.ceil(n * k * bits / 8) + n * (scale + extra)


def _grouped(size: int) -> Callable[[int, int], int]:
    return lambda n, k: n * k + 4 * n * math.ceil(k / size)


_ALL = (
    Variant(
        "per_channel",
        "int8, one float32 scale a row: what w8a16.quantize does",
        quantizers.per_channel,
        _per_row(),
    ),
    Variant(
        "textbook",
        "int8, scale and division in the weight's own dtype, no clamp: the tutorials' recipe",
        quantizers.textbook,
        _per_row(scale=2),  # as in the half-precision models it is for
    ),
    Variant(
        "per_tensor",
        "int8, one scale for the whole weight",
        quantizers.per_tensor,
        lambda n, k: n * k + 4,
    ),
    *(
        Variant(
            f"groups_{size}",
            f"int8, one scale for every {size} weights along the row",
            quantizers.in_groups(size),
            _grouped(size),
        )
        for size in (128, 64, 32)
    ),
    Variant(
        "outliers_4",
        "int8, the 4 largest weights of each row kept in float",
        quantizers.with_outliers(4),
        _per_row(extra=4 * 8),
    ),
    Variant(
        "range_128",
        "int8 with all 256 codes, -128..127, scale amax / 127.5",
        quantizers.range_128,
        _per_row(),
    ),
    *(
        Variant(
            f"bits_{bits}",
            f"{bits} bits, one float32 scale a row",
            quantizers.with_bits(bits),
            _per_row(bits=bits),
        )
        for bits in (6, 4)
    ),
    Variant(
        "scales_bf16",
        "int8, one bfloat16 scale a row",
        quantizers.with_scales_in(torch.bfloat16),
        _per_row(scale=2),
    ),
    Variant(
        "scales_fp16",
        "int8, one float16 scale a row",
        quantizers.with_scales_in(torch.float16),
        _per_row(scale=2),
    ),
    Variant(
        "clipped",
        "int8, the scale of each row searched for the least squared error",
        quantizers.clipped,
        _per_row(),
    ),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _ALL})
"""Every variant by name."""


def apply_variant(model: nn.Module, name: str) -> nn.Module:
    """Replace the weights of a float model by what the variant `name` makes of them, in place.

    The weights are those that `w8a16.quantize(model)` would convert; the model stays a float model of
    the same dtype. Memory: temporaries of a few times the largest weight.

    Returns:
        The model itself.

    Raises:
        UsageError: an unknown variant; the message lists the known ones.
        ModuleError: no weight of the model would become int8.
        WeightValueError: weights hold NaN or Inf.

    Example:
        >>> layer = apply_variant(nn.Linear(64, 8), "bits_4")
        >>> max(len(row.unique()) for row in layer.weight) <= 15
        True
    """
    variant = variant_named(name)
    for weight in float_rows(model):
        weight.write(variant.simulate(weight.read()))
    return model


def variant_bytes(model: nn.Module, name: str) -> int:
    """Bytes of the model's int8 weights as the variant `name` would store them.

    Counts only the weights that would be converted; whatever else the model holds is the same in every
    variant.

    Example:
        >>> variant_bytes(nn.Linear(64, 8), "per_channel"), variant_bytes(nn.Linear(64, 8), "bits_4")
        (544, 288)
    """
    variant = variant_named(name)
    return sum(variant.stored_bytes(*weight.shape) for weight in float_rows(model))


def flip_rate(before: nn.Module, after: str | nn.Module) -> float:
    """Share of rows whose largest weight changes its sign, over all weights that would become int8.

    Where several weights of a row have the largest magnitude (in bfloat16 many do), one that flips is
    enough. Only positive ones can: -127.5 rounds to -128, which is an int8. Rows of zeros do not count.

    Args:
        before: the float model; it is not changed.
        after: the name of a variant, or a copy of the model with a variant applied.

    Raises:
        UsageError: an unknown variant.
        ModuleError: `after` lacks a weight, or has another shape.

    Example:
        >>> layer = nn.Linear(2048, 64).bfloat16()
        >>> flip_rate(layer, "per_channel"), flip_rate(layer, "textbook") > 0.8
        (0.0, True)
    """
    variant = variant_named(after) if isinstance(after, str) else None
    others = {weight.name: weight for weight in float_rows(after)} if isinstance(after, nn.Module) else {}
    flipped = counted = 0
    for weight in float_rows(before):
        rows = weight.read()
        changed = variant.simulate(rows) if variant else _counterpart(weight, others).read()
        largest = rows.abs() == rows.abs().amax(dim=1, keepdim=True)
        flips = largest & (rows.sign() * changed.sign() < 0)
        flipped += int(flips.any(dim=1).sum())
        counted += int(rows.any(dim=1).sum())
    return flipped / counted if counted else 0.0


def _counterpart(weight: FloatRows, others: Mapping[str, FloatRows]) -> FloatRows:
    other = others.get(weight.name)
    if other is None or other.shape != weight.shape:
        came = "none" if other is None else f"rows {list(other.shape)}"
        raise ModuleError(
            f"{weight.name}: expected a weight with rows {list(weight.shape)} in both, got {came}"
        )
    return other


def variant_named(name: str) -> Variant:
    """Look a variant up; an unknown name is a UsageError that lists the known ones."""
    if name not in VARIANTS:
        raise UsageError(f"variant: expected one of {', '.join(VARIANTS)}; got {name!r}")
    return VARIANTS[name]
