"""Building a model without memory for its parameters, but with its buffers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_LOCK = threading.Lock()


@contextmanager
def parameters_on_meta(dtype: torch.dtype | None = None) -> Iterator[None]:
    """While active, every parameter that a module gets is on the meta device, in the default dtype `dtype`.

    Buffers are computed as ever (rotary frequencies, position ids): on the meta device they would lose
    their values. A parameter is put on meta when its module takes it, before it is initialized, so its
    memory is never touched. Torch has no switch of that kind: its method is replaced for the time, in
    one thread after the other.
    """
    usual = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        usual(self, name, param)
        if param is not None and not param.is_meta:
            empty = torch.empty_like(param, device="meta")
            self._parameters[name] = nn.Parameter(empty, requires_grad=param.requires_grad)

    with _LOCK:
        before = torch.get_default_dtype()
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        try:
            if dtype is not None:
                torch.set_default_dtype(dtype)
            yield
        finally:
            nn.Module.register_parameter = usual  # type: ignore[method-assign]
            torch.set_default_dtype(before)


def state_on_meta(model: nn.Module) -> None:
    """Put the buffers of the state dict on the meta device too: their values are in the files."""
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                module._buffers[name] = buffer.to("meta")


def retype(model: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Give tensors on meta, by their keys in the state dict, other dtypes; tied ones remain one."""
    state = model.state_dict(keep_vars=True)
    wanted = {id(state[key]): dtype for key, dtype in dtypes.items()}
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                dtype = None if tensor is None else wanted.get(id(tensor))
                if tensor is None or dtype is None or dtype == tensor.dtype:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
                    trained = tensor.requires_grad and dtype.is_floating_point
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(empty, trained) if is_parameter else empty
                held[name] = made[id(tensor)]  # type: ignore[assignment]
