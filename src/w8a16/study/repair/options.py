"""The ways in which one weight can be held, with what each costs and how much of the error it leaves.

Upgrades are compared by the error that they leave in the layer's output, as far as the weight tells:
the squared error of each weight times the mean square of the input that it multiplies. Of all ways only
those on the lower convex hull of (bytes, error) are kept: any other is beaten by one of these, or by a
mix of two. Walking down the hull, each further byte buys less than the one before.

Letters: N output channels (rows), K input features (columns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from w8a16.convert.candidate import int8_bytes
from w8a16.errors import UsageError
from w8a16.layers import Layout
from w8a16.layers.layout import ROWS
from w8a16.layers.quantizing import dequantize_with_layout, quantize_with_layout
from w8a16.study.variants import FloatRows

UPGRADES = ("outliers", "groups", "float")
"""What a repair may use."""
OUTLIERS = (1, 2, 4, 8)
GROUP_SIZES = (128, 64, 32)
_SAMPLED_ROWS = 2048  # the error only says what to try first


@dataclass(frozen=True)
class Option:
    """One way to hold a weight."""

    words: str
    """"int8", "4 outliers a row", "groups of 128" or "float"."""
    layout: Layout | None
    """None: it stays float."""
    bytes: int
    error: float
    """Power of the error, as a share of that of plain int8; of some rows where there are many."""


def options_of(weight: FloatRows, upgrades: Sequence[str], input_power: Tensor | None) -> list[Option]:
    """Plain int8 first, then the upgrades worth having, from the cheapest to the most exact.

    Args:
        weight: the weight, with its float values.
        upgrades: some of `UPGRADES`.
        input_power: float64 `[K]`, mean squares of the inputs; None: all alike.
    """
    base = Option("int8", weight.layout, _bytes(weight, weight.layout), 1.0)
    rows = weight.read()
    sample = rows[:: max(1, len(rows) // _SAMPLED_ROWS)]
    if _error(sample, weight.layout, input_power) == 0:
        sample = rows  # a padding row is exact, and so may others be
    plain = _error(sample, weight.layout, input_power)
    if plain == 0:
        return [base]
    found = [base]
    for layout in _layouts(weight, upgrades):
        share = _error(sample, layout, input_power) / plain
        found.append(Option(layout.refinement or "int8", layout, _bytes(weight, layout), share))
    if "float" in upgrades:
        found.append(Option("float", None, weight.float_bytes, 0.0))
    return _lower_hull(found)


def held_values(weight: FloatRows, layout: Layout) -> Tensor:
    """What the weight is with this layout, in the shape and dtype of the float weight."""
    values = weight.parameter.detach()
    held = quantize_with_layout(values, layout)
    return dequantize_with_layout(held.int8_weights, held.scales, layout, values.dtype, held.outliers)


def check_upgrades(upgrades: Sequence[str]) -> tuple[str, ...]:
    """Refuse unknown upgrades, and none at all."""
    named = (upgrades,) if isinstance(upgrades, str) else tuple(upgrades)
    unknown = [name for name in named if name not in UPGRADES]
    if unknown or not named:
        raise UsageError(
            f"upgrades: expected some of {', '.join(UPGRADES)}; got {', '.join(unknown) or 'none'}"
        )
    return named


def _layouts(weight: FloatRows, upgrades: Sequence[str]) -> list[Layout]:
    if not weight.refinable:
        return []
    layouts = [weight.layout.with_outliers(count) for count in OUTLIERS] if "outliers" in upgrades else []
    layouts += [weight.layout.in_groups(size) for size in GROUP_SIZES] if "groups" in upgrades else []
    shape = tuple(weight.parameter.shape)
    return [layout for layout in layouts if layout.why_not(shape) is None and _bytes(weight, layout)]


def _bytes(weight: FloatRows, layout: Layout) -> int:
    return int8_bytes(tuple(weight.parameter.shape), layout)


def _error(rows: Tensor, layout: Layout, input_power: Tensor | None) -> float:
    """Power of the error of rows `[N, K]`, each column weighted with the power of its input."""
    held = quantize_with_layout(rows, _of_matrix(layout))
    values = dequantize_with_layout(
        held.int8_weights, held.scales, _of_matrix(layout), torch.float32, held.outliers
    )
    columns = (values - rows).square_().sum(0, dtype=torch.float64)
    return float(columns.sum() if input_power is None else columns @ input_power.to(columns.device))


def _of_matrix(layout: Layout) -> Layout:
    """The same refinement for the rows as a matrix."""
    if layout.group:
        return ROWS.in_groups(layout.group)
    return ROWS.with_outliers(layout.outliers) if layout.outliers else ROWS


def _lower_hull(options: list[Option]) -> list[Option]:
    """The lower convex hull that starts at the first option; later points are dearer and more exact."""
    first, rest = options[0], sorted(options[1:], key=lambda option: (option.bytes, option.error))
    hull = [first]
    for option in rest:
        if option.error >= hull[-1].error or option.bytes <= first.bytes:
            continue
        while len(hull) > 1 and _slope(hull[-2], option) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(a: Option, b: Option) -> float:
    """Error bought by a byte on the way from `a` to `b`."""
    return (a.error - b.error) / (b.bytes - a.bytes)
