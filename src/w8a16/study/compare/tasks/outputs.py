"""Finding the tensor that a task is about among the inputs and outputs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ComparisonError
from w8a16.study.compare.nesting import float_tensors_in, signature


def main_output(outputs: Any, names: Sequence[str], task: str, dimensions: Sequence[int]) -> Tensor:
    """The float tensor with one of these names, or else the first one with so many dimensions.

    Raises:
        ComparisonError: there is none.
    """
    floats = float_tensors_in(outputs)
    named = [floats[name] for name in names if name in floats]
    fitting = [tensor for tensor in (*named, *floats.values()) if tensor.dim() in dimensions]
    if not fitting:
        expected = " or ".join(map(str, dimensions))
        raise ComparisonError(
            f"task {task}: expected a float tensor with {expected} dimensions among the outputs, got "
            f"{signature(outputs)}; pass another task, or a module whose forward returns such a tensor"
        )
    return fitting[0]


def input_named(batch: Any, *names: str) -> Tensor | None:
    """The first tensor with one of these names, where the batch has names."""
    if not isinstance(batch, Mapping):
        return None
    found = (batch.get(name) for name in names)
    return next((tensor for tensor in found if isinstance(tensor, Tensor)), None)


def kept_positions(mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """Which positions count: those that an attention mask of this shape does not leave out."""
    if mask is None or mask.shape != shape:
        return torch.ones(shape, dtype=torch.bool, device=device)
    return mask.to(device) != 0
