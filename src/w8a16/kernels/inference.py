"""The short way for plain inference: a call in which torch has nothing to do but compute.

The complete op costs several times a small layer's own time, most of it Python: a gradient kernel
decides that there is nothing to record, and arguments are checked. Where no gradient can be asked for,
the native op (`native_ops.py`) is tried first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from w8a16.kernels.dispatch import is_differentiated
from w8a16.kernels.native_ops import try_linear
from w8a16.kernels.op import linear

_is_compiling = torch.compiler.is_compiling


def apply_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.ops.w8a16.linear`, the short way where there is one."""
    if not _is_compiling() and not is_differentiated(input, scales, bias):
        result = try_linear(input, int8_weights, scales, bias)
        if result is not None:
            return result
    return linear(input, int8_weights, scales, bias)
