"""Checks on state-dict entries before they are loaded into a quantized layer.

`nn.Module.load_state_dict` copies any dtype into any buffer, so a float tensor would silently become
int8 codes (mostly zeros), and a negative or NaN scale would be accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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
    for name, tensor in expected.items():
        key = f"{prefix}{name}"
        if key in state_dict:
            problem = entry_problem(tensor, state_dict[key])
            if problem:
                problems.append(f"{key}: {problem}")
    return problems


def entry_problem(expected: Tensor, found: Any) -> str | None:
    """Say what is wrong with one tensor that should replace `expected`, or None."""
    if not isinstance(found, Tensor):
        return f"expected a tensor, found {type(found).__name__}"
    if found.dtype != expected.dtype:
        return f"expected {expected.dtype}, found {found.dtype}"
    if found.shape != expected.shape:
        return f"expected shape {list(expected.shape)}, found {list(found.shape)}"
    if found.dtype.is_floating_point and not found.is_meta:
        return scale_problem(found)
    return None


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
