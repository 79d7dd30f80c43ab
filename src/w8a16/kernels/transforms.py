"""How both ops behave under autocast and under vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels.op import linear, linear_input_grad
from w8a16.kernels.schemas import LIBRARY

_AUTOCAST = {
    device_type: key
    for device_type, key in (
        ("cpu", "AutocastCPU"),
        ("cuda", "AutocastCUDA"),
        ("mps", "AutocastMPS"),
        ("xpu", "AutocastXPU"),
    )
    if hasattr(torch._C.DispatchKey, key)
}
_AUTOCAST_KEYS = functools.reduce(
    lambda keys, key: keys | torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key)),
    _AUTOCAST.values(),
    torch._C.DispatchKeySet(torch._C.DispatchKey.Undefined),
)


def without_autocast() -> AbstractContextManager[None]:
    """A context in which autocast casts nothing: sums stay float32, gradients keep their dtype."""
    guard: AbstractContextManager[None] = torch._C._ExcludeDispatchKeyGuard(_AUTOCAST_KEYS)
    return guard


def _register_autocast(device_type: str, key: str) -> None:
    """Under autocast the input is cast and scales are not."""

    def cast_linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        if input.is_floating_point() and input.dtype != torch.float64 and input.device.type == device_type:
            input = input.to(torch.get_autocast_dtype(device_type))
        with without_autocast():
            return linear(input, int8_weights, scales, bias)

    def keep_linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
        with without_autocast():
            return linear_input_grad(grad_output, int8_weights, scales)

    LIBRARY.impl("linear", cast_linear, key)
    LIBRARY.impl("linear_input_grad", keep_linear_input_grad, key)


for _device_type, _key in _AUTOCAST.items():
    _register_autocast(_device_type, _key)


def _empty_batch(
    op: Callable[..., Tensor], in_dims: tuple[int | None, ...], arguments: tuple[Tensor | None, ...]
) -> Tensor:
    """The result for a batch of size zero: one sample of zeros tells its shape."""
    sample = op(
        *(
            a.new_zeros(a.movedim(d, 0).shape[1:]) if a is not None and d is not None else a
            for a, d in zip(arguments, in_dims, strict=True)
        )
    )
    return sample.new_empty((0, *sample.shape))


def _vmap_rule(op: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Tensor | None) -> tuple[Tensor, int]:
        first, *rest = arguments
        if first is not None and in_dims[0] is not None and all(d is None for d in in_dims[1:]):
            return op(first.movedim(in_dims[0], 0), *rest), 0
        if info.batch_size == 0:
            return _empty_batch(op, in_dims, arguments), 0
        # Batched weights, scales or bias: one call for each; there is no batched kernel to gain from.
        slices = [
            op(
                *(
                    a.select(d, i) if a is not None and d is not None else a
                    for a, d in zip(arguments, in_dims, strict=True)
                )
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(slices), 0

    return rule


torch.library.register_vmap("w8a16::linear", _vmap_rule(linear), lib=LIBRARY)
torch.library.register_vmap("w8a16::linear_input_grad", _vmap_rule(linear_input_grad), lib=LIBRARY)
