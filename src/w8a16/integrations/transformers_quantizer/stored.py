"""Load a model that is stored in int8: its modules are converted on meta, and transformers fills them.

While transformers loads, the codes are frozen Parameters, so that it ties and offloads them as it does
weights. The scales are buffers throughout.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.checkpoint import METADATA_KEY, Manifest, ModuleRecord, open_checkpoint, open_shards, shown
from w8a16.checkpoint.guesses import resolve_guesses
from w8a16.checkpoint.match import module_problem
from w8a16.convert import adopt_empty, biases_shared_beyond, keeping_parameters, remembering_ties
from w8a16.convert.inventory import tie_key
from w8a16.errors import CheckpointError
from w8a16.integrations.folders import some
from w8a16.layers import Layout, QuantizedModule, adapt_encoders, kind_named
from w8a16.layers.frozen import hold_as_parameters
from w8a16.layers.loading import scale_problem
from w8a16.layers.tensor_names import scales_name, stored_tensors, tensor_names

LOADED = "_is_hf_initialized"
"""transformers' mark on tensors and modules that need no random values."""


def manifest_of_files(files: Iterable[str] | None, model: nn.Module) -> Manifest | None:
    """What the headers of safetensors files say of a model, or None where they are not of this library.

    Raises:
        CheckpointError: the files are of this library and broken.
    """
    paths = [Path(file) for file in files or () if str(file).endswith(".safetensors")]
    if not paths:
        return None
    shards = open_shards(paths[0]) if len(paths) == 1 else open_shards(paths[0].parent)
    if not all(METADATA_KEY in header.metadata for header in shards.headers):
        return None
    checkpoint = open_checkpoint(shards.path)
    return resolve_guesses(model, checkpoint.manifest, checkpoint.shards.tensors)


@dataclass
class Stored:
    """The int8 modules of one model that is being loaded."""

    model: nn.Module
    modules: dict[str, QuantizedModule]
    """By their path in the model."""
    ties: dict[str, str]
    """The other names of int8 tensors, each with the name that is stored."""

    @staticmethod
    def prepare(model: nn.Module, manifest: Manifest, dtypes: dict[str, torch.dtype]) -> Stored:
        """Convert the modules of a model on the meta device as the manifest says.

        Args:
            model: built by transformers, in the dtype that was asked for.
            manifest: of the stored model; that may be the whole of which `model` is the base, or its base.
            dtypes: patterns of weights that transformers keeps in another dtype.

        Raises:
            CheckpointError: a module of the model is not what the manifest says.
        """
        paths = _paths_in(model, manifest.modules)
        records = {path: manifest.modules[stored] for path, stored in paths.items()}
        _refuse_misfits(model, records, manifest)
        floats = {path: model.get_submodule(path) for path in records}
        taking = (floats[path] for path, record in records.items() if _takes_bias(record))
        kept_biases = biases_shared_beyond(model, taking) | _tied_biases(model, paths, manifest)
        with remembering_ties(model), keeping_parameters(model):
            _convert_all(model, records, dtypes, kept_biases)
        adapt_encoders(model)
        hold_as_parameters(model, floats=False)
        modules = {path: m for path in records if isinstance(m := model.get_submodule(path), QuantizedModule)}
        stored = Stored(model, modules, _ties_in(modules, paths, manifest))
        stored._announce()
        return stored

    def _announce(self) -> None:
        """Tell transformers which tensors need no random values, and which are tied."""
        for module in self.modules.values():
            setattr(module, LOADED, True)
            for tensor in _own_tensors(module).values():
                setattr(tensor, LOADED, True)
        model: Any = self.model
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        tied = dict(getattr(model, "all_tied_weights_keys", {}))
        self._tied_before = dict(tied)
        for target in list(tied):
            if target not in parameters:
                del tied[target]
        tied |= {alias: name for alias, name in self.ties.items() if alias in parameters}
        model.all_tied_weights_keys = tied

    def finish(self, missing: set[str] | None) -> None:
        """Tie the scales too, and check that everything has come and is usable.

        Raises:
            CheckpointError: int8 tensors that the files lack, or scales that are not positive numbers.
        """
        model: Any = self.model
        model.all_tied_weights_keys = self._tied_before
        for alias, name in self.ties.items():
            (owner, own), (source, theirs) = self._owner(alias), self._owner(name)
            if owner is not None and source is not None:
                owner.hold(own, source.held(theirs))
                if missing is not None:
                    missing.discard(alias)
        lost, broken = [], self._undo_casts()
        for path, module in self.modules.items():
            scales = {scales_name(name) for name in module.layouts}
            for key, tensor in _own_tensors(module).items():
                name = f"{path}.{key}" if path else key
                if not tensor.is_meta and not getattr(tensor, LOADED, False):
                    lost.append(name)
                elif tensor.dtype == torch.int8 and tensor._version > 0:  # by the model's _init_weights
                    broken.append(f"{name}: the model's code wrote into it while it was loaded")
                elif key in scales and not tensor.is_meta and (problem := scale_problem(tensor)):
                    broken.append(f"{name}: {problem}")
        if lost:
            raise CheckpointError(
                f"{len(lost)} tensors of int8 modules are not in the files: {some(sorted(lost))}; the folder "
                "is incomplete, or its config.json belongs to other weights"
            )
        if broken:
            raise CheckpointError(f"int8 weights that cannot be used: {some(broken)}")

    def _undo_casts(self) -> list[str]:
        """Give codes that came as floats their dtype back, and name what was rounded.

        Where a class keeps some weights in float32 (`_keep_in_fp32_modules`), older transformers cast
        all that is named like them; integers of 8 bits survive that.
        """
        rounded = []
        for path, module in self.modules.items():
            for name, (dtype, _) in stored_tensors(_codes(module)).items():
                tensor = module.held(name)
                if tensor.dtype == dtype:
                    continue
                if dtype == torch.int8 and tensor.dtype.is_floating_point:
                    back = nn.Parameter(tensor.detach().to(dtype), requires_grad=False)
                    setattr(back, LOADED, getattr(tensor, LOADED, False))
                    module.hold(name, back)
                else:
                    rounded.append(f"{_below(path, name)}: expected {dtype}, got {tensor.dtype}")
        return rounded

    def _owner(self, name: str) -> tuple[QuantizedModule | None, str]:
        path, _, key = name.rpartition(".")
        return self.modules.get(path), key


def _convert_all(
    model: nn.Module, records: dict[str, ModuleRecord], dtypes: dict[str, torch.dtype], kept_biases: Any
) -> None:
    for path, record in records.items():
        module = model.get_submodule(path)
        kind = kind_named(record.kind)
        assert kind is not None  # the manifest has been checked
        if isinstance(module, QuantizedModule):
            continue  # one module under two paths
        own = [p.dtype for name, p in module._parameters.items() if name in record.weights and p is not None]
        dtype = next(
            (dtype for pattern, dtype in dtypes.items() if re.search(pattern.replace("*", ".*"), f"{path}.")),
            own[0] if own else record.weight_dtype,
        )
        adopt_empty(module, kind, record.codes, dtype, kept_biases)


def _paths_in(model: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """The path in this model of each stored one: a base model may stand alone, or inside another."""
    modules = {path for path, _ in model.named_modules(remove_duplicate=False)}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found = {}
    for path in stored:
        for candidate in (path, path.removeprefix(prefix), f"{prefix}{path}"):
            if candidate in modules:
                found[candidate] = path
                break
    return found


def _refuse_misfits(model: nn.Module, records: dict[str, ModuleRecord], manifest: Manifest) -> None:
    if manifest.origin == "names" and len(records) < len(manifest.modules):
        raise CheckpointError(
            f"the weights were quantized under the names in the files, and {type(model).__name__} has other "
            "names for some; quantize the float model again, with transformers installed"
        )
    if not records:
        raise CheckpointError(
            f"none of the int8 modules of the checkpoint is in {type(model).__name__}: another model's?"
        )
    problems = []
    for path, record in records.items():
        problem = module_problem(model.get_submodule(path), record)
        if problem:
            problems.append(f"{shown(path) or 'the root'}: {problem}")
    if problems:
        raise CheckpointError(f"the int8 modules do not fit {type(model).__name__}: {some(problems)}")


def _ties_in(
    modules: dict[str, QuantizedModule], paths: dict[str, str], manifest: Manifest
) -> dict[str, str]:
    """The ties of int8 tensors, in the names of this model."""
    here = {stored: path for path, stored in paths.items()}
    ties = {}
    for alias, name in manifest.ties.items():
        (path, _, own), (source, _, theirs) = alias.rpartition("."), name.rpartition(".")
        if here.get(path) in modules and here.get(source) in modules:
            ties[_below(here[path], own)] = _below(here[source], theirs)
    return {alias: name for alias, name in ties.items() if _is_held(modules, alias)}


def _tied_biases(model: nn.Module, paths: dict[str, str], manifest: Manifest) -> set[Hashable]:
    """Keys of the biases that the stored model shares with what is no int8 module: BERT's, of its head.

    transformers ties them after loading, and only as parameters.
    """
    int8 = set(paths.values())
    shared = set()
    for alias, name in manifest.ties.items():
        (path, _, own), (source, _, theirs) = alias.rpartition("."), name.rpartition(".")
        if (path in int8) != (source in int8):
            shared |= {stored for stored, key in ((path, own), (source, theirs)) if key == "bias"}
    biases = (model.get_submodule(path)._parameters.get("bias") for path in paths if paths[path] in shared)
    return {tie_key(bias) for bias in biases if bias is not None}


def _is_held(modules: dict[str, QuantizedModule], name: str) -> bool:
    path, _, key = name.rpartition(".")
    return key in _int8_keys(modules[path])


def _codes(module: QuantizedModule) -> dict[str, tuple[Layout, tuple[int, ...]]]:
    return {name: (layout, tuple(module.codes_of(name).shape)) for name, layout in module.layouts.items()}


def _int8_keys(module: QuantizedModule) -> list[str]:
    return [key for name, layout in module.layouts.items() for key in tensor_names(name, layout)]


def _own_tensors(module: QuantizedModule) -> dict[str, Tensor]:
    """All tensors of the module itself that a state dict has."""
    own: dict[str, Tensor] = {}
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and name not in module._non_persistent_buffers_set:
            own[name] = tensor
    return own


def _takes_bias(record: ModuleRecord) -> bool:
    kind = kind_named(record.kind)
    return kind is not None and kind.quantized_type.bias_is_buffer


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
