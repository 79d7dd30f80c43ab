"""The op `w8a16::linear` and its adjoint `w8a16::linear_input_grad`.

Dispatch to the chosen backend, and shape inference for `torch.compile` and `torch.export`.
What else PyTorch wants to know about an op is beside: `gradients.py` and `transforms.py` (autocast,
vmap). So a new backend only has to compute, with arguments already checked.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from w8a16.kernels.arguments import check_arguments
from w8a16.kernels.native_ops import try_linear
from w8a16.kernels.registry import select
from w8a16.kernels.schemas import LIBRARY

linear: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] = torch.ops.w8a16.linear.default
"""`(input [..., K], int8_weights [N, K], scales [N], bias [N] or None) -> [..., N]`, input's dtype."""
linear_input_grad: Callable[[Tensor, Tensor, Tensor], Tensor] = torch.ops.w8a16.linear_input_grad.default
"""`(grad_output [..., N], int8_weights [N, K], scales [N]) -> [..., K]`, the gradient's dtype."""


def _linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    result = try_linear(input, int8_weights, scales, bias)
    if result is not None:
        return result
    check_arguments(input, "input", "K", int8_weights, scales, bias)
    return select(input.device.type).linear(input, int8_weights, scales, bias)


def _linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    check_arguments(grad_output, "grad_output", "N", int8_weights, scales, None)
    return select(grad_output.device.type).linear_input_grad(grad_output, int8_weights, scales)


def _fake_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    check_arguments(input, "input", "K", int8_weights, scales, bias)
    return input.new_empty((*input.shape[:-1], int8_weights.shape[0]))


def _fake_linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    check_arguments(grad_output, "grad_output", "N", int8_weights, scales, None)
    return grad_output.new_empty((*grad_output.shape[:-1], int8_weights.shape[1]))


for _name, _real, _fake in (
    ("linear", _linear, _fake_linear),
    ("linear_input_grad", _linear_input_grad, _fake_linear_input_grad),
):
    LIBRARY.impl(_name, _real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"w8a16::{_name}", _fake, lib=LIBRARY)
