"""What the kernels at torch's Autograd key have in common: questions about the call, and the way down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_is_grad_enabled = torch.is_grad_enabled


def is_differentiated(*tensors: Tensor | None) -> bool:
    """Whether autograd would record an operation on these tensors, or forward mode may follow one."""
    if forward_ad._current_level >= 0:
        return True
    if _is_grad_enabled():
        for tensor in tensors:  # a loop, for any() costs a generator
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def is_transformed() -> bool:
    """Whether torch.func or forward mode is at work: torch can transform plain operations, and no kernel."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active or forward_ad._current_level >= 0


def below_autograd(op: Any, keyset: Any, *arguments: Any) -> Tensor:
    """Call an op from its own kernel at the Autograd key, with nothing left to record."""
    with torch._C._AutoDispatchBelowAutograd():
        result: Tensor = op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)
        return result


def autograd_kernel(
    op: Any,
    function: Any,
    plain: Callable[..., Tensor],
    attempt: Callable[..., Tensor | None] | None = None,
) -> Callable[..., Tensor]:
    """The kernel of an op at the Autograd key.

    Args:
        op: the op.
        function: the `torch.autograd.Function` that records it; its first argument is the keyset.
        plain: the same in plain torch operations, for torch.func and forward mode.
        attempt: a shorter way, tried where nothing is to be recorded; None where it declines.
    """

    def kernel(keyset: Any, *arguments: Tensor | None) -> Tensor:
        if is_transformed():
            return plain(*arguments)
        if is_differentiated(*arguments):
            result: Tensor = function.apply(keyset, *arguments)
            return result
        short = None if attempt is None else attempt(*arguments)
        return below_autograd(op, keyset, *arguments) if short is None else short

    return kernel


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that the transforms of torch.func have wrapped: of a batched one, the whole batch."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def is_batched(tensor: Tensor) -> bool:
    """Whether a vmap of torch.func is among the wrappers."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return False
