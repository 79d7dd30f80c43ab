"""The one switch: the same int8 tensors under the same names, as frozen Parameters instead of buffers.

Buffers are the usual form. Engines that move or shard only Parameters (offloading to CPU or disk, FSDP,
tensor parallelism) need the other one. State-dict keys, values and results are the same in both; tied
weights stay one tensor. Probes (`QuantizedModule.keep_probe`) are set aside meanwhile: engines look up every
parameter in the state dict, where they are not. A model whose int8 tensors are Parameters cannot take
`requires_grad_(True)` as a whole, because torch allows gradients of floating-point tensors only.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from w8a16.layers.base import PROBE, QuantizedModule
from w8a16.layers.tensor_names import tensor_names

_Tensor = TypeVar("_Tensor", bound=Tensor)
_SET_ASIDE = "_probe_is_set_aside"


def hold_as_parameters(model: nn.Module, *, floats: bool = True) -> nn.Module:
    """Register the tensors of every int8 weight of `model` as Parameters that are never trained, in place.

    Args:
        model: any module with int8 parts.
        floats: whether the scales (and what else of a weight is float) become Parameters too. Without them
            the first floating-point parameter of a model still tells the dtype that it computes in.

    Returns:
        The model itself.
    """
    made: dict[int, nn.Parameter] = {}
    for module, key in _held(model):
        tensor = module._buffers.get(key)
        if tensor is None or (tensor.is_floating_point() and not floats):
            continue
        if id(tensor) not in made:
            made[id(tensor)] = _marked_as(tensor, nn.Parameter(tensor, requires_grad=False))
        del module._buffers[key]
        module._parameters[key] = made[id(tensor)]
    for part in model.modules():
        if isinstance(part, QuantizedModule) and part._parameters.pop(PROBE, None) is not None:
            part.__dict__[_SET_ASIDE] = True
    return model


def hold_as_buffers(model: nn.Module) -> nn.Module:
    """Register the tensors of every int8 weight of `model` as buffers again, in place; returns the model."""
    made: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for module, key in _held(model):
        parameter = module._parameters.get(key)
        if parameter is None:
            continue
        # The Parameter is kept beside its detached form: while it lives, its id is unique.
        made.setdefault(id(parameter), (parameter, _marked_as(parameter, parameter.detach())))
        del module._parameters[key]
        module._buffers[key] = made[id(parameter)][1]
    for part in model.modules():
        if isinstance(part, QuantizedModule) and part.__dict__.pop(_SET_ASIDE, False):
            part.keep_probe()
    return model


def _held(model: nn.Module) -> list[tuple[QuantizedModule, str]]:
    return [
        (module, key)
        for module in model.modules()
        if isinstance(module, QuantizedModule)
        for name, layout in module.layouts.items()
        for key in tensor_names(name, layout)
    ]


def _marked_as(before: Tensor, after: _Tensor) -> _Tensor:
    """`after` with the notes that other libraries left on `before` ("has been loaded")."""
    after.__dict__.update(before.__dict__)
    return after
