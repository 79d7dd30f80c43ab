"""Load a quantized checkpoint into a float model, a skeleton on the meta device, or an int8 model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.guesses import resolve_guesses
from w8a16.checkpoint.mapping import map_tensors
from w8a16.checkpoint.match import find_mismatches
from w8a16.checkpoint.opened import Checkpoint, below, open_checkpoint
from w8a16.checkpoint.reading import read_tensors
from w8a16.checkpoint.records import Manifest, ModuleRecord
from w8a16.convert import adopt_empty, biases_shared_beyond, keeping_parameters, remembering_ties
from w8a16.errors import CheckpointError, W8A16Warning
from w8a16.layers import QuantizedModule, adapt_encoders, kind_named, stored_tensors, value_check


def load(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    mmap: bool = False,
) -> nn.Module:
    """Fill `model` from a quantized checkpoint, in place, and return it.

    Modules that the checkpoint holds in int8 are converted first, their float weights dropped unread;
    then every tensor is read once, to its device. Dtypes are those of the checkpoint. Strict: all that
    is missing, unexpected or of another shape is named in one error, before anything is changed.

    Args:
        model: the float model, a skeleton of it on the meta device
            (`with torch.device("meta"): model = Model(config)`), or the quantized model.
        path: a file, or a folder that holds `model.safetensors` or the index of several files.
        device: where the tensors go; default: where the model's tensors are (meta: the CPU).
        mmap: map the files instead of reading them, as the argument of that name of `torch.load`: the
            model is there at once, and processes share its memory; but the files must not be changed
            while it lives (one that is cut kills the process).

    Raises:
        CheckpointError: not a checkpoint of this library, or it does not fit the model.
        ResourceError: the file cannot be read.
    """
    checkpoint = open_checkpoint(path)
    stored = checkpoint.shards.tensors
    manifest = resolve_guesses(model, checkpoint.manifest, stored)
    problems = find_mismatches(model, stored, manifest)
    if problems:
        where = shown(checkpoint.shards.index or checkpoint.shards.headers[0].path)
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CheckpointError(f"{where} does not fit {type(model).__name__}:\n{listed}")
    with torch.inference_mode(False), torch.no_grad():
        state = _read_tensors(model, checkpoint, manifest, device, map_tensors if mmap else read_tensors)
        _fill(model, state, manifest)
    return model


def _fill(model: nn.Module, state: dict[str, Tensor], manifest: Manifest) -> None:
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


def _read_tensors(
    model: nn.Module,
    checkpoint: Checkpoint,
    manifest: Manifest,
    device: torch.device | str | None,
    read: Callable[[Shards, Callable[[str, Tensor], Tensor]], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Read and check everything that is stored, each tensor straight to its device."""
    places = {} if device is not None else _devices(model, manifest)
    checks = {
        below(path, key): check
        for path, record in manifest.modules.items()
        for name, (layout, shape) in record.codes.items()
        for key in stored_tensors({name: (layout, shape)})
        if (check := value_check(key, shape[-1])) is not None
    }

    def take(name: str, tensor: Tensor) -> Tensor:
        check = checks.get(name)
        if check is not None and (problem := check(tensor)):
            where = shown(checkpoint.shards.header_of(name).path)
            raise CheckpointError(f"{where}: {shown(name)}: {problem}")
        return tensor.to(device if device is not None else places.get(name, "cpu"))

    return read(checkpoint.shards, take)


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
            for name in (*stored_tensors(record.codes), "bias"):
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
    adopt_empty(module, kind, record.codes, record.weight_dtype, kept_biases)


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
