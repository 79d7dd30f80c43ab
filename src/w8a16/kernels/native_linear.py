"""The op `w8a16::linear_native`: the CPU kernel with nothing of Python between torch and C++.

Its kernels are registered from C++ and answer None for everything that they do not handle: another
device or dtype, a layout without a constant distance between rows, wrong shapes, autocast, tracing,
torch.func, dispatch modes, another `W8A16_BACKEND`. The complete op `w8a16::linear` then computes the
result or explains what is wrong, and it is the one that graphs record.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import cpu, schemas

_op: Any = None
_op_is_known = False


def try_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor | None:
    """`w8a16::linear` without gradient, or None where the native op does not apply."""
    if not _op_is_known:
        _find_op()
    if _op is None:
        return None
    result: Tensor | None = _op(input, int8_weights, scales, bias)
    return result


def _find_op() -> None:
    global _op, _op_is_known
    assert schemas.LIBRARY is not None  # the op must be defined before its kernels are
    if cpu.problem() is None:
        cpu.chosen_variant()  # a wrong W8A16_CPU_ISA is an error before the first result
        if cpu.register_ops():
            _op = torch.ops.w8a16.linear_native.default
    _op_is_known = True
