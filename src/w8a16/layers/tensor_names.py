"""The names of the tensors that a layer holds for a float weight, and their dtypes and shapes.

weight    int8_weights, scales              (outlier_columns, outlier_values)
NAME      NAME_int8_weights, NAME_scales    (NAME_outlier_columns, NAME_outlier_values)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from w8a16.layers.layout import ROWS, Layout

CODES, SCALES = "int8_weights", "scales"
OUTLIER_COLUMNS, OUTLIER_VALUES = "outlier_columns", "outlier_values"


def codes_name(name: str) -> str:
    """The buffer that holds the codes of the float weight `name`."""
    return _full(name, CODES)


def scales_name(name: str) -> str:
    """The buffer that holds the scales of the float weight `name`."""
    return _full(name, SCALES)


def outlier_names(name: str) -> tuple[str, str]:
    """The buffers that hold columns and values of the outliers of the float weight `name`."""
    return _full(name, OUTLIER_COLUMNS), _full(name, OUTLIER_VALUES)


def tensor_names(name: str, layout: Layout) -> tuple[str, ...]:
    """All buffers of a weight: codes, scales, and where the layout has outliers their columns and values."""
    return codes_name(name), scales_name(name), *(outlier_names(name) if layout.outliers else ())


def stored_tensors(
    weights: Mapping[str, tuple[Layout, tuple[int, ...]]],
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Names, dtypes and shapes of the int8 tensors for weights with these layouts and shapes of codes."""
    stored: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, (layout, shape) in weights.items():
        stored[codes_name(name)] = (torch.int8, shape)
        stored[scales_name(name)] = (torch.float32, layout.scales_shape(shape))
        if layout.outliers:
            columns, values = outlier_names(name)
            stored[columns] = (torch.int32, (shape[0], layout.outliers))
            stored[values] = (torch.float32, (shape[0], layout.outliers))
    return stored


def held_bytes(layout: Layout, codes_shape: tuple[int, ...]) -> int:
    """Bytes of all tensors of a weight with codes of this shape."""
    total = 0
    for dtype, shape in stored_tensors({"weight": (layout, codes_shape)}).values():
        total += dtype.itemsize * torch.Size(shape).numel()
    return total


def int8_names(names: Iterable[str]) -> set[str]:
    """The names of the buffers that hold these weights, whatever their layout."""
    every = ROWS.with_outliers(1)
    return {key for name in names for key in tensor_names(name, every)}


def _full(name: str, part: str) -> str:
    return part if name == "weight" else f"{name}_{part}"
