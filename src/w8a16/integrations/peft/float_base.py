"""A base layer as the float layer that it stands for, while peft computes with its weight.

peft's code reads and writes `base_layer.weight`, asks for the class of the layer, and makes layers of that
class. In this scope all of that meets an ordinary float layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from w8a16.layers import QuantizedModule


@contextmanager
def as_float(base: QuantizedModule) -> Iterator[dict[str, nn.Parameter]]:
    """Let `base` be of its float class, with float weights; yields them by name.

    What is written into them is dropped at the end. They are float32, or float64 where the weights were:
    what is computed with them is rounded once, to int8, and not to the dtype of the model before.
    """
    kind, layouts = type(base), base.layouts
    dtype = torch.promote_types(base.weight_dtype, torch.float32)
    floats = {
        name: nn.Parameter(base.dequantized(name, dtype).contiguous(), requires_grad=False)
        for name in layouts
    }
    base.__class__ = kind.float_type  # type: ignore[assignment]
    base._parameters.update(floats)
    try:
        yield floats
    finally:
        for name in floats:
            base._parameters.pop(name, None)
        base.__class__ = kind


def values_of(base: QuantizedModule) -> dict[str, Tensor]:
    """The float weights that the codes stand for, as `as_float` has them."""
    dtype = torch.promote_types(base.weight_dtype, torch.float32)
    return {name: base.dequantized(name, dtype) for name in base.layouts}
