"""What every metric refuses: tensors that do not fit each other, and numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from w8a16.errors import ShapeError, UsageError


def vector_of(name: str, values: Sequence[float] | Tensor) -> Tensor:
    """Finite numbers as float64 `[n]` on the CPU."""
    if isinstance(values, Tensor):
        vector = values.detach().reshape(-1).to("cpu", torch.float64)
    else:
        vector = torch.tensor(list(values), dtype=torch.float64, device="cpu")
    check_finite(name, vector)
    return vector


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and Inf, with their count and the first position."""
    wrong = ~torch.isfinite(tensor)
    count = int(wrong.sum())
    if count:
        first = wrong.nonzero()[0].tolist()
        raise UsageError(f"{name}: {count} of {tensor.numel()} values are NaN or Inf, the first at {first}")


def check_pair(
    reference: Tensor, other: Tensor, names: tuple[str, str] = ("reference", "other"), finite: bool = True
) -> None:
    """Refuse tensors of different shapes, and NaN or Inf in either."""
    if reference.shape != other.shape:
        shapes = f"{list(reference.shape)} and {list(other.shape)}"
        raise ShapeError(f"{names[0]} and {names[1]}: expected equal shapes, got {shapes}")
    if finite:
        for name, tensor in zip(names, (reference, other), strict=True):
            check_finite(name, tensor)
