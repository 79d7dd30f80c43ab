"""What a quantized model has to store: its tensors, each once, and what a manifest says about them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.checkpoint.records import ModuleRecord, WeightRecord
from w8a16.convert import Plan, plan
from w8a16.errors import CheckpointError
from w8a16.layers import QuantizedModule, kind_of_quantized


@dataclass(frozen=True)
class Contents:
    """The tensors of a model (on the meta device, too) as a file would hold them."""

    tensors: dict[str, Tensor]
    """To be stored, by key."""
    ties: dict[str, str]
    """Keys that are the same tensor as a stored one, with its key."""
    hidden: tuple[str, ...]
    """Those (keys of `tensors` or `ties`) that are not part of the state dict."""
    modules: dict[str, ModuleRecord]
    kept_float: dict[str, str]


def contents_of(model: nn.Module, executed: Plan | None = None) -> Contents:
    """Look through a quantized model.

    Args:
        model: any model.
        executed: the plan that was carried out, for the reasons; without it they are worked out anew.

    Raises:
        CheckpointError: something in the state dict is no tensor.
    """
    hidden = _hidden_buffers(model)
    tensors, ties = _stored_once({**_state(model), **hidden})
    return Contents(tensors, ties, tuple(hidden), _module_records(model), _kept_float(model, executed))


def _module_records(model: nn.Module) -> dict[str, ModuleRecord]:
    records = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, QuantizedModule):
            kind = kind_of_quantized(module)
            if kind is None:
                raise CheckpointError(f"{path}: {type(module).__name__} is not in the table of layer kinds")
            weights = {
                name: WeightRecord(layout, tuple(module.codes_of(name).shape))
                for name, layout in module.layouts.items()
            }
            records[path] = ModuleRecord(kind.name, module.weight_dtype, weights)
    return records


def _state(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict(keep_vars=True)
    foreign = [
        f"{key}: {type(value).__name__}" for key, value in state.items() if not isinstance(value, Tensor)
    ]
    if foreign:
        raise CheckpointError(f"only tensors can be stored in safetensors, found {', '.join(foreign)}")
    return dict(state)


def _stored_once(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split the state into tensors to store and aliases of them."""
    first: dict[Hashable, str] = {}
    tensors, ties = {}, {}
    for key, tensor in state.items():
        name = first.setdefault(_memory(tensor), key)
        if name == key:
            tensors[key] = tensor
        else:
            ties[key] = name
    return tensors, ties


def _memory(tensor: Tensor) -> Hashable:
    if tensor.numel() == 0 or tensor.is_meta or tensor.layout != torch.strided:
        return id(tensor)
    layout = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.is_conj(), tensor.is_neg())
    return (tensor.device, tensor.data_ptr(), *layout)


def _hidden_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers outside the state dict (position ids, rotary frequencies): a meta skeleton has lost them."""
    hidden = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(name)
            if buffer is not None:
                hidden[f"{path}.{name}" if path else name] = buffer
    return hidden


def _kept_float(model: nn.Module, executed: Plan | None) -> dict[str, str]:
    if executed is not None:
        return {row.name: row.reason for row in executed.rows if row.verdict == "float"}
    rows = (row for row in plan(model).rows if row.reason != "already_quantized")
    return {row.name: "not_converted" if row.verdict == "int8" else row.reason for row in rows}
