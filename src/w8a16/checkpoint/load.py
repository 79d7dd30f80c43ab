"""Load a quantized checkpoint into a float model, a skeleton on the meta device, or an int8 model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable
from pathlib import Path

import torch
from torch import Tensor, nn

from w8a16.checkpoint.header import Header, as_resource_error, read_header, shown
from w8a16.checkpoint.manifest import Manifest, ModuleRecord, read_manifest
from w8a16.checkpoint.match import find_mismatches
from w8a16.checkpoint.save import FILE_NAME
from w8a16.checkpoint.tensors import read_tensor
from w8a16.convert import adopt_empty, biases_shared_beyond, keeping_parameters, remembering_ties
from w8a16.errors import CheckpointError, ResourceError, W8A16Warning
from w8a16.layers import QuantizedModule, adapt_encoders, kind_named, scale_problem, stored_tensors


def load(
    model: nn.Module, path: str | os.PathLike[str], *, device: torch.device | str | None = None
) -> nn.Module:
    """Fill `model` from a checkpoint written by `save`, in place, and return it.

    Modules that the checkpoint holds in int8 are converted first, their float weights dropped unread;
    then every tensor is read once, to its device. Dtypes are those of the checkpoint. Strict: all that
    is missing, unexpected or of another shape is named in one error, before anything is changed.

    Args:
        model: the float model, a skeleton of it on the meta device
            (`with torch.device("meta"): model = Model(config)`), or the quantized model.
        path: the file, or the folder that holds `model.safetensors`.
        device: where the tensors go; default: where the model's tensors are (meta: the CPU).

    Raises:
        CheckpointError: not a checkpoint of this library, or it does not fit the model.
        ResourceError: the file cannot be read.
    """
    header, manifest = open_checkpoint(path)
    problems = find_mismatches(model, header, manifest)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CheckpointError(f"{shown(header.path)} does not fit {type(model).__name__}:\n{listed}")
    with torch.inference_mode(False), torch.no_grad():
        _fill(model, header, manifest, device)
    return model


def _fill(model: nn.Module, header: Header, manifest: Manifest, device: torch.device | str | None) -> None:
    state = _read_tensors(model, header, manifest, device)
    for alias, name in manifest.ties.items():
        state[alias] = state[name]
    hidden = {name: state.pop(name) for name in manifest.non_persistent_buffers}
    was_skeleton = any(parameter.is_meta for parameter in model.parameters())
    modules = {name: model.get_submodule(name) for name in manifest.modules}
    kept_biases = biases_shared_beyond(
        model, (module for name, module in modules.items() if _takes_bias(manifest.modules[name]))
    )
    with remembering_ties(model), keeping_parameters(model):
        for name, record in manifest.modules.items():
            _convert(modules[name], record, kept_biases)
    adapt_encoders(model)
    model.load_state_dict(state, strict=True, assign=True)
    _tie(model, manifest)
    _fill_meta_buffers(model, hidden)
    if was_skeleton:
        _warn_of_lost_attributes(model)


def open_checkpoint(path: str | os.PathLike[str]) -> tuple[Header, Manifest]:
    """Read the header and the manifest of a checkpoint file or folder."""
    header = read_header(checkpoint_file(path))
    return header, read_manifest(header)


def checkpoint_file(path: str | os.PathLike[str]) -> Path:
    """The safetensors file that a path to a file or a folder means."""
    file = Path(path)
    try:
        if not file.is_dir():
            return file
        if (file / FILE_NAME).exists():
            return file / FILE_NAME
    except OSError as error:
        raise as_resource_error(path, error) from error
    raise ResourceError(f"{shown(path)}: the folder has no {FILE_NAME}")


def _read_tensors(
    model: nn.Module, header: Header, manifest: Manifest, device: torch.device | str | None
) -> dict[str, Tensor]:
    """Read and check everything that is stored, each tensor straight to its device."""
    places = {} if device is not None else _devices(model, manifest)
    scales = {
        f"{path}.{name}" if path else name
        for path, record in manifest.modules.items()
        for name, (dtype, _) in stored_tensors(record.weights).items()
        if dtype.is_floating_point
    }
    state = {}
    try:
        with header.path.open("rb") as file:
            for name, info in header.tensors.items():
                tensor = read_tensor(file, name, info)
                if name in scales and (problem := scale_problem(tensor)):
                    raise CheckpointError(f"{shown(header.path)}: {shown(name)}: {problem}")
                state[name] = tensor.to(device if device is not None else places.get(name, "cpu"))
    except OSError as error:
        raise as_resource_error(header.path, error) from error
    return state


def _devices(model: nn.Module, manifest: Manifest) -> dict[str, torch.device]:
    """Where each stored tensor belongs: beside the tensor it replaces."""
    places = {}
    for name, tensor in [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]:
        places[name] = torch.device("cpu") if tensor.is_meta else tensor.device
    for path, record in manifest.modules.items():
        prefix = f"{path}." if path else ""
        near = next((places[name] for name in places if name.startswith(prefix)), None)
        if near is not None:
            for name in (*stored_tensors(record.weights), "bias"):
                places.setdefault(f"{prefix}{name}", near)
    return places


def _takes_bias(record: ModuleRecord) -> bool:
    kind = kind_named(record.kind)
    return kind is not None and kind.quantized_type.bias_is_buffer


def _convert(module: nn.Module, record: ModuleRecord, kept_biases: set[Hashable]) -> None:
    if isinstance(module, QuantizedModule):
        module.weight_dtype = record.weight_dtype
        return
    kind = kind_named(record.kind)
    assert kind is not None  # read_manifest has checked it
    adopt_empty(module, kind, record.weights, record.weight_dtype, kept_biases)


def _tie(model: nn.Module, manifest: Manifest) -> None:
    """Parameters under several names become one object again (assigning made one for each name)."""
    for alias, name in manifest.ties.items():
        owner, own_name = _owner(model, alias)
        stored, stored_name = _owner(model, name)
        if own_name in owner._parameters and stored_name in stored._parameters:
            owner._parameters[own_name] = stored._parameters[stored_name]


def _fill_meta_buffers(model: nn.Module, hidden: dict[str, Tensor]) -> None:
    for name, tensor in hidden.items():
        path, _, own_name = name.rpartition(".")
        try:
            owner = model.get_submodule(path)
        except AttributeError:
            continue  # this version of the model has no use for it
        buffer = owner._buffers.get(own_name)
        if buffer is not None and buffer.is_meta:
            owner._buffers[own_name] = tensor


def _warn_of_lost_attributes(model: nn.Module) -> None:
    """Tensors in plain attributes are in no state dict: a skeleton has lost their values for good."""
    lost = [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and value.is_meta
    ]
    if lost:
        warnings.warn(
            f"{', '.join(lost)}: plain tensor attributes without values, because the skeleton was built on "
            "the meta device; load into a model with real tensors if its forward uses them",
            W8A16Warning,
            stacklevel=4,
        )


def _owner(model: nn.Module, key: str) -> tuple[nn.Module, str]:
    path, _, name = key.rpartition(".")
    return model.get_submodule(path), name
