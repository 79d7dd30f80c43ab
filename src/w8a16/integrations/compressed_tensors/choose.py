"""Which int8 weights of a checkpoint `pack-quantized` can hold, and why the others become float.

Readers of the format know int8 for the weight of a `Linear` layer. Embeddings, and heads that share
their tensor, convolutions, transposed linear layers and the rest are dequantized, each with a reason.
So is every head, unless asked otherwise: SGLang takes a packed one without an error, and computes with
memory that nothing was loaded into (its issue 35358); vLLM refuses it before its pull request 37291.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from torch import nn

from w8a16.checkpoint import Manifest
from w8a16.checkpoint.opened import below
from w8a16.checkpoint.records import ModuleRecord, WeightRecord
from w8a16.checkpoint.streaming.manifests import codes_key
from w8a16.integrations.compressed_tensors.names import Part, published_parts

FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Layers that vLLM and SGLang put into one, which has to be int8 or float as a whole."""


@dataclass(frozen=True)
class Choice:
    """What becomes of one int8 weight."""

    key: str
    """Its key in the state dict of the float model."""
    parts: tuple[Part, ...]
    """The matrices that are packed, by published name of the weight; empty: it becomes float."""
    group: int
    """Elements of a row that share a scale; 0: all."""
    reason: str
    """Why it becomes float; empty where it is packed."""


def choose(
    model: nn.Module, manifest: Manifest, names: Mapping[str, str], pack_head: bool = False
) -> list[Choice]:
    """Decide for every weight that is stored in int8.

    Args:
        model: the float model on the meta device.
        manifest: of the whole checkpoint.
        names: the published name of each key of the state dict.
        pack_head: keep the layer that gives the logits int8, too.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    tied = {*manifest.ties, *manifest.ties.values()}
    head = None if pack_head else head_of(model)
    choices, stacks = [], {}
    for path, record in manifest.modules.items():
        for name, weight in record.weights.items():
            key = below(path, name)
            if codes_key(path, name) in manifest.ties:
                continue  # another name of a stored weight
            reason = _why_float(modules.get(path), record, name, weight, codes_key(path, name) in tied)
            if not reason and head is not None and modules.get(path) is head:
                reason = "head: some servers read a packed one without an error, and wrongly; --pack-head"
            if not reason and record.kind == "experts":
                stacks[key] = (weight.shape[0], weight.shape[1])
            published = () if reason else (Part(names.get(key, key), 0, weight.shape[0]),)
            choices.append(Choice(key, published, weight.layout.group, reason))
    parts = published_parts(model, stacks)
    unknown = "experts: transformers knows no names for the matrices of this stack"
    choices = [
        Choice(each.key, parts.get(each.key, ()), 0, "" if each.key in parts else unknown)
        if each.key in stacks
        else each
        for each in choices
    ]
    return _all_or_none(choices, linear_layers(model, names).values())


def _why_float(
    module: nn.Module | None, record: ModuleRecord, name: str, weight: WeightRecord, tied: bool
) -> str:
    """Why a weight cannot be packed; empty where it can."""
    if tied:
        return "tied: shares its values with another layer, such as an embedding"
    if weight.layout.outliers:
        return "outliers: the format has no place for them"
    if record.kind == "experts":
        return "experts: stored with input and output exchanged" if weight.layout.swapped else ""
    if record.kind != "linear" or name != "weight":
        return f"{record.kind}: only the weight of a Linear layer is int8 in this format"
    if not isinstance(module, nn.Linear):
        return f"{type(module).__name__}: not a Linear layer"
    return ""


def head_of(model: nn.Module) -> nn.Module | None:
    """The layer that gives the logits, where transformers knows one."""
    find = getattr(model, "get_output_embeddings", None)
    try:
        found = find() if callable(find) else None
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Module) else None


def linear_layers(model: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """The published name of each `Linear` layer by its path."""
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear):
            key = below(path, "weight")
            found[path] = names.get(key, key).removesuffix(".weight")
    return found


def _all_or_none(choices: list[Choice], layers: Collection[str]) -> list[Choice]:
    """Make float what would be fused with a float layer, or with one that has other groups."""
    packed = {part.name.removesuffix(".weight"): each for each in choices for part in each.parts}
    held = {name: packed[name].group if name in packed else None for name in (*layers, *packed)}
    reasons: dict[str, str] = {}
    for layer, choice in packed.items():
        parent, _, own = layer.rpartition(".")
        together = [below(parent, name) for names in FUSED if own in names for name in names]
        other = next((name for name in together if name in held and held[name] != choice.group), None)
        if other is not None:
            how = "float" if other not in packed else "in other groups"
            reasons[choice.key] = f"fused: servers join it with {other.rpartition('.')[2]}, which is {how}"
    return [
        replace(each, parts=(), group=0, reason=reasons[each.key]) if each.key in reasons else each
        for each in choices
    ]
