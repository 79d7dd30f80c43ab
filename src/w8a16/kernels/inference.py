"""The short way for plain inference: a call in which torch has nothing to do but compute.

The complete op costs several times a small layer's own time, most of it Python: a gradient kernel
decides that there is nothing to record, and arguments are checked. Where no gradient can be asked for,
the native op (`native_linear.py`) is tried first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from w8a16.kernels.native_linear import try_linear
from w8a16.kernels.op import linear

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled


def apply_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.ops.w8a16.linear`, the short way where there is one."""
    if not _is_compiling() and not _is_differentiated(input, scales, bias):
        result = try_linear(input, int8_weights, scales, bias)
        if result is not None:
            return result
    return linear(input, int8_weights, scales, bias)


def _is_differentiated(input: Tensor, scales: Tensor, bias: Tensor | None) -> bool:
    if forward_ad._current_level >= 0:
        return True
    return _is_grad_enabled() and (
        input.requires_grad or scales.requires_grad or (bias is not None and bias.requires_grad)
    )
