"""The short way to the native kernel: a call in which torch has nothing to do but compute.

The complete op (`op.py`) costs about 20 us a call, most of it Python: arguments are checked, the
backend is chosen, and a gradient kernel decides that there is nothing to record. A layer of 384 x 384
takes 4 us. So plain inference goes through `w8a16::linear_native` first, whose kernels are registered
from C++. It answers None for everything that it does not handle (another device or dtype, a layout
without constant row distance, wrong shapes, autocast, tracing, torch.func, dispatch modes, another
`W8A16_BACKEND`), and the complete op takes over: it is the one that graphs record and that explains
wrong arguments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from w8a16.kernels import cpu
from w8a16.kernels.op import LIBRARY, linear

# An absent bias is an undefined tensor, which Python calls None.
LIBRARY.define("linear_native(Tensor input, Tensor int8_weights, Tensor scales, Tensor bias) -> Tensor")

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_native: Any = None
_native_is_known = False


def apply_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.ops.w8a16.linear`, the short way where there is one."""
    if _is_compiling():
        return linear(input, int8_weights, scales, bias)
    if not _native_is_known:
        _find_native()
    if _native is not None and not _is_differentiated(input, scales, bias):
        result: Tensor | None = _native(input, int8_weights, scales, bias)
        if result is not None:
            return result
    return linear(input, int8_weights, scales, bias)


def _is_differentiated(input: Tensor, scales: Tensor, bias: Tensor | None) -> bool:
    if forward_ad._current_level >= 0:
        return True
    return _is_grad_enabled() and (
        input.requires_grad or scales.requires_grad or (bias is not None and bias.requires_grad)
    )


def _find_native() -> None:
    global _native, _native_is_known
    if cpu.problem() is None:
        cpu.chosen_variant()  # a wrong W8A16_CPU_ISA is an error before the first result
        if cpu.register_ops():
            _native = torch.ops.w8a16.linear_native.default
    _native_is_known = True
