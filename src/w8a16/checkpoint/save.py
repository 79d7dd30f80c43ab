"""Save a quantized model: one safetensors file with the manifest in its header."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path

from torch import Tensor, nn

from w8a16.checkpoint.printable import as_resource_error
from w8a16.checkpoint.records import Manifest, ModuleRecord, Source, WeightRecord
from w8a16.checkpoint.tensors import refuse_unstorable, write_file
from w8a16.convert import Plan, plan
from w8a16.errors import CheckpointError
from w8a16.layers import QuantizedModule, kind_of_quantized

FILE_NAME = "model.safetensors"


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    source: str | None = None,
    executed: Plan | None = None,
) -> Path:
    """Write the quantized model as plain safetensors, tied tensors once, and return the file's path.

    Args:
        model: a model with at least one int8 module.
        path: a file name ending in `.safetensors`, or a folder (made if needed) that gets a
            `model.safetensors`. An existing file is replaced, at the very end.
        source: where the float weights came from; noted in the manifest.
        executed: the plan that was carried out, for the reasons in the manifest; without it the
            reasons are worked out from the model.

    Raises:
        CheckpointError: nothing in the model is int8, or a tensor cannot be stored.
        ResourceError: the disk is full or not writable.

    Example:
        >>> save(quantize(nn.Sequential(nn.Linear(64, 256))), "model-int8")  # doctest: +SKIP
        PosixPath('model-int8/model.safetensors')
    """
    target = _target(path)
    modules = _module_records(model)
    if not modules:
        raise CheckpointError(
            "the model has no int8 module: call w8a16.quantize(model) before saving; "
            "print(w8a16.plan(model)) says what it can convert"
        )
    state, hidden = _state(model), _hidden_buffers(model)
    refuse_unstorable({**state, **hidden})
    tensors, ties = _stored_once({**state, **hidden})
    manifest = Manifest(
        modules=modules,
        kept_float=_kept_float(model, executed),
        ties=ties,
        non_persistent_buffers=tuple(hidden),
        source=None if source is None else Source(source),
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise as_resource_error(target.parent, error) from error
    write_file(target, tensors, manifest)
    return target


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    return target if target.suffix == ".safetensors" else target / FILE_NAME


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
    if tensor.numel() == 0:
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
