"""A checkpoint made from tensor names alone, read with a model at hand: the model knows better.

From names and shapes one can tell how codes lie, but neither which kind of layer they belong to, nor
which tensors a model ties, nor which are buffers outside its state dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from w8a16.checkpoint.opened import below
from w8a16.checkpoint.records import Manifest, ModuleRecord
from w8a16.layers import PARAMETER, QuantizedModule, kind_of_module, kind_of_quantized, stored_tensors


def resolve_guesses(model: nn.Module, manifest: Manifest, stored: Mapping[str, object]) -> Manifest:
    """The manifest with what the model knows in place of what was guessed; of another origin, as it is.

    A module gets the kind that the model's own module has, where codes lie as that kind has them, and
    else the kind "parameter": the values are the same, dequantized on use.

    Args:
        model: what the checkpoint will be loaded into.
        manifest: of the whole checkpoint.
        stored: the tensors of the files, by name.
    """
    if manifest.origin != "names":
        return manifest
    modules = dict(model.named_modules(remove_duplicate=False))
    records = {path: _resolve(modules.get(path), record) for path, record in manifest.modules.items()}
    tied_records, ties = _tied_weights(modules, records)
    state = model.state_dict(keep_vars=True)
    present = {id(tensor): key for key, tensor in state.items() if key in stored}
    for key, tensor in state.items():
        if key not in stored and id(tensor) in present:
            ties.setdefault(key, present[id(tensor)])
    buffers = dict(model.named_buffers(remove_duplicate=False))
    hidden = tuple(name for name in buffers if name in stored and name not in state)
    return replace(
        manifest,
        modules=records | tied_records,
        ties=ties | manifest.ties,
        non_persistent_buffers=hidden,
    )


def _resolve(module: nn.Module | None, record: ModuleRecord) -> ModuleRecord:
    if module is None:
        return record  # a mismatch, reported as such
    if isinstance(module, QuantizedModule):
        kind = kind_of_quantized(module)
        return record if kind is None else replace(record, kind=kind.name)
    kind = kind_of_module(module)
    if kind is not None and kind is not PARAMETER and kind.quantized_type.why_not(module) is None:
        layouts = kind.quantized_type.find_layouts(module)
        own = {name: weight.layout for name, weight in record.weights.items()}
        if kind.refinable:
            own = {name: layout.unrefined for name, layout in own.items()}
        if all(layouts.get(name) == layout for name, layout in own.items()):
            return replace(record, kind=kind.name)
    return replace(record, kind=PARAMETER.name)


def _tied_weights(
    modules: Mapping[str, nn.Module], records: Mapping[str, ModuleRecord]
) -> tuple[dict[str, ModuleRecord], dict[str, str]]:
    """Records and ties of the weights that are the same tensor in the model as one that is stored in int8.

    Files leave out the other names of a tied tensor, so that tensor names do not tell of them.
    """
    owners = {
        id(weight): (path, name)
        for path, record in records.items()
        if path in modules
        for name, weight in _weights(modules[path]).items()
        if name in record.weights
    }
    tied: dict[str, ModuleRecord] = {}
    ties: dict[str, str] = {}
    for path, module in modules.items():
        for name, weight in _weights(module).items():
            if path in records or id(weight) not in owners:
                continue
            owner, owned = owners[id(weight)]
            theirs = replace(records[owner], weights={owned: records[owner].weights[owned]})
            mine = replace(theirs, weights={name: theirs.weights[owned]})
            tied[path] = _resolve(
                module, replace(mine, weights={**tied.get(path, mine).weights, **mine.weights})
            )
            pairs = zip(stored_tensors(mine.codes), stored_tensors(theirs.codes), strict=True)
            ties |= {below(path, alias): below(owner, key) for alias, key in pairs}
    return tied, ties


def _weights(module: nn.Module) -> dict[str, object]:
    """The tensors by which tied weights are known: codes, or float parameters."""
    if isinstance(module, QuantizedModule):
        return {name: module.codes_of(name) for name in module.layouts}
    return dict(module._parameters)
