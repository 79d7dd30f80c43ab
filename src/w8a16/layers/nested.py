"""Nested tensors: batches of sequences of different lengths, in both of torch's layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def for_each_component(input: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a map of rows to every component of a nested tensor; the layout stays the same."""
    if input.layout == torch.jagged:
        # All components lie behind one another in `values`, so one call serves them all.
        values = apply(input.values())
        jagged: Any = input
        result: Tensor = torch.nested.nested_tensor_from_jagged(values, jagged.offsets(), jagged.lengths())
        return result
    return torch.nested.as_nested_tensor([apply(component) for component in input.unbind()])
