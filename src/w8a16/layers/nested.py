"""Nested tensors: batches of sequences of different lengths, in both of torch's layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import linear


def nested_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the linear op to every component of a nested tensor; the layout stays the same."""
    if input.layout == torch.jagged:
        # All components lie behind one another in `values`, so one call serves them all.
        values = linear(input.values(), int8_weights, scales, bias)
        jagged: Any = input
        result: Tensor = torch.nested.nested_tensor_from_jagged(values, jagged.offsets(), jagged.lengths())
        return result
    components = [linear(component, int8_weights, scales, bias) for component in input.unbind()]
    return torch.nested.as_nested_tensor(components)
