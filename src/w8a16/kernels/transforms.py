"""How the ops behave under autocast and under vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels.grouped import grouped_linear_input_grad, grouped_linear_op
from w8a16.kernels.lookup import embedding
from w8a16.kernels.op import linear, linear_input_grad
from w8a16.kernels.refined import refined_linear, refined_linear_input_grad
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


def _register_autocast(name: str, op: Callable[..., Tensor], casts: bool, device_type: str, key: str) -> None:
    """Under autocast the first argument of a linear map is cast, and scales are not."""

    def kernel(values: Tensor, *rest: Tensor | None) -> Tensor:
        if (
            casts
            and values.is_floating_point()
            and values.dtype != torch.float64
            and values.device.type == device_type
        ):
            values = values.to(torch.get_autocast_dtype(device_type))
        with without_autocast():
            return op(values, *rest)

    LIBRARY.impl(name, kernel, key)


for _device_type, _key in _AUTOCAST.items():
    _register_autocast("linear", linear, True, _device_type, _key)
    _register_autocast("linear_input_grad", linear_input_grad, False, _device_type, _key)
    _register_autocast("grouped_linear", grouped_linear_op, True, _device_type, _key)
    _register_autocast("grouped_linear_input_grad", grouped_linear_input_grad, False, _device_type, _key)
    _register_autocast("refined_linear", refined_linear, True, _device_type, _key)
    _register_autocast("refined_linear_input_grad", refined_linear_input_grad, False, _device_type, _key)


def _empty_batch(
    op: Callable[..., Tensor], in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> Tensor:
    """The result for a batch of size zero: one sample of zeros tells its shape."""
    sample = op(
        *(
            a.new_zeros(a.movedim(d, 0).shape[1:]) if d is not None else a
            for a, d in zip(arguments, in_dims, strict=True)
        )
    )
    return sample.new_empty((0, *sample.shape))


def _vmap_rule(
    op: Callable[..., Tensor], first_may_have_more_dimensions: bool
) -> Callable[..., tuple[Tensor, int]]:
    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        first, *rest = arguments
        if first_may_have_more_dimensions and in_dims[0] is not None and all(d is None for d in in_dims[1:]):
            return op(first.movedim(in_dims[0], 0), *rest), 0
        if info.batch_size == 0:
            return _empty_batch(op, in_dims, arguments), 0
        # Batched weights, scales or bias: one call for each; there is no batched kernel to gain from.
        slices = [
            op(*(a.select(d, i) if d is not None else a for a, d in zip(arguments, in_dims, strict=True)))
            for i in range(info.batch_size)
        ]
        return torch.stack(slices), 0

    return rule


for _name, _op, _may in (
    ("linear", linear, True),
    ("linear_input_grad", linear_input_grad, True),
    ("embedding", embedding, True),
    ("grouped_linear", grouped_linear_op, False),
    ("grouped_linear_input_grad", grouped_linear_input_grad, False),
    ("refined_linear", refined_linear, True),
    ("refined_linear_input_grad", refined_linear_input_grad, True),
):
    torch.library.register_vmap(f"w8a16::{_name}", _vmap_rule(_op, _may), lib=LIBRARY)
