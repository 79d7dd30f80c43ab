"""Checks on state-dict entries before they are loaded into a quantized layer.

`nn.Module.load_state_dict` copies any dtype into any buffer, so a float tensor would silently become
int8 codes (mostly zeros), and a negative or NaN scale would be accepted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from w8a16.layers.tensor_names import OUTLIER_COLUMNS, OUTLIER_VALUES, SCALES


def check_entries(
    class_name: str, weight: str, expected: Mapping[str, Tensor], state_dict: Mapping[str, Any], prefix: str
) -> list[str]:
    """List everything that is wrong with the entries of one int8 weight; empty where all is well.

    Missing entries are left to torch, which reports them where `strict` asks for it, except where a
    float weight stands in their place.
    """
    problems = []
    if f"{prefix}{weight}" in state_dict and not any(f"{prefix}{name}" in state_dict for name in expected):
        problems.append(
            f"{prefix}{weight}: found a float weight for a {class_name}, which expects "
            f"{' and '.join(prefix + name for name in expected)}; load the float checkpoint into the float "
            "model and quantize that, or call layer.quantize(weight)"
        )
    row_length = next(iter(expected.values())).shape[-1]  # of the codes, which come first
    for name, tensor in expected.items():
        key = f"{prefix}{name}"
        if key in state_dict:
            problem = entry_problem(tensor, state_dict[key], value_check(name, row_length))
            if problem:
                problems.append(f"{key}: {problem}")
    return problems


def entry_problem(
    expected: Tensor, found: Any, problem_of: Callable[[Tensor], str | None] | None = None
) -> str | None:
    """Say what is wrong with one tensor that should replace `expected`, or None."""
    if not isinstance(found, Tensor):
        return f"expected a tensor, found {type(found).__name__}"
    if found.dtype != expected.dtype:
        return f"expected {expected.dtype}, found {found.dtype}"
    if found.shape != expected.shape:
        return f"expected shape {list(expected.shape)}, found {list(found.shape)}"
    return None if problem_of is None or found.is_meta else problem_of(found)


def value_check(name: str, row_length: int) -> Callable[[Tensor], str | None] | None:
    """What to ask of the values of the buffer `name` of a quantized layer; None where all are allowed.

    Args:
        name: as `tensor_names` gives it.
        row_length: elements of a row of the codes, for the columns of outliers.
    """
    if name.endswith(OUTLIER_COLUMNS):
        return functools.partial(column_problem, row_length=row_length)
    if name.endswith(OUTLIER_VALUES):
        return outlier_problem
    return scale_problem if name.endswith(SCALES) else None


def scale_problem(scales: Tensor) -> str | None:
    """Say which scale is not a finite positive number, or None where all are.

    Example:
        >>> scale_problem(torch.tensor([0.5, -1.0]))
        'expected finite positive scales, found -1.0 at [1]'
    """
    bad = torch.nonzero(~(torch.isfinite(scales) & (scales > 0)))
    if len(bad) == 0:
        return None
    first = bad[0].tolist()
    return f"expected finite positive scales, found {scales[tuple(first)].item()} at {first}"


def outlier_problem(values: Tensor) -> str | None:
    """Say which outlier is not finite, or None where all are.

    Example:
        >>> outlier_problem(torch.tensor([[8.0, float("inf")]]))
        'expected finite outliers, found inf at [0, 1]'
    """
    bad = torch.nonzero(~torch.isfinite(values))
    if len(bad) == 0:
        return None
    first = bad[0].tolist()
    return f"expected finite outliers, found {values[tuple(first)].item()} at {first}"


def column_problem(columns: Tensor, row_length: int) -> str | None:
    """Say which row's outlier columns do not ascend within the row, or None where all do.

    Example:
        >>> column_problem(torch.tensor([[0, 5], [7, 7]], dtype=torch.int32), row_length=8)
        'expected ascending columns, 0 to 7, found [7, 7] in row 1'
    """
    before = torch.cat([columns.new_full((len(columns), 1), -1), columns[:, :-1]], 1)
    bad = torch.nonzero(((columns <= before) | (columns >= row_length)).any(1))
    if len(bad) == 0:
        return None
    row = int(bad[0])
    found = columns[row].tolist()
    return f"expected ascending columns, 0 to {row_length - 1}, found {found} in row {row}"
