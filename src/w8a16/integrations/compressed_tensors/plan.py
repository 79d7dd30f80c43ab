"""What an int8 folder becomes as `pack-quantized`: every file, every tensor, and the config."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from w8a16.checkpoint import METADATA_KEY, Checkpoint, open_shards, shown, understand
from w8a16.checkpoint.container.header import Header
from w8a16.checkpoint.restoring import Restored, RestoredFile, plan_restoring
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors.check import check_loading
from w8a16.integrations.compressed_tensors.choose import Choice, choose, head_of, linear_layers
from w8a16.integrations.compressed_tensors.config import quantization_config
from w8a16.integrations.compressed_tensors.layout import PACKED, SCALE, SHAPE, words_in
from w8a16.integrations.compressed_tensors.names import published_names
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.transformers_folders import skeleton

Described = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Matrix:
    """A weight that is packed: `[N, K]` with `scales` scales a row."""

    layer: str
    """The published name of the layer."""
    codes: int
    """Where its codes begin in the file."""
    scales: int
    """Where its scales begin."""
    shape: tuple[int, int]
    scales_a_row: int
    float_dtype: torch.dtype
    """The dtype of the model."""
    scale_dtype: torch.dtype
    """The dtype of the scales that are written; float32 for those that are stored."""
    key: str
    """The key of the weight, or of the stack that it is a part of, in the state dict."""
    first: int
    """The first of its rows in that."""

    @property
    def tensors(self) -> Described:
        """What is written for it."""
        n, k = self.shape
        return {
            f"{self.layer}.{PACKED}": (torch.int32, (n, words_in(k))),
            f"{self.layer}.{SCALE}": (self.scale_dtype, (n, self.scales_a_row)),
            f"{self.layer}.{SHAPE}": (torch.int64, (2,)),
        }


@dataclass(frozen=True)
class PlannedFile:
    """One file to be written, from the one with the same name."""

    header: Header
    matrices: tuple[Matrix, ...]
    floats: tuple[Restored, ...]
    """Weights that are dequantized, under their published names."""
    copies: dict[str, str]
    """Tensors that keep their values: the stored name of each published one."""

    @property
    def tensors(self) -> Described:
        """What is written."""
        stored = self.header.tensors
        described: Described = {
            key: (stored[own].dtype, stored[own].shape) for key, own in self.copies.items()
        }
        described |= {weight.key: (weight.dtype, weight.shape) for weight in self.floats}
        for matrix in self.matrices:
            described |= matrix.tensors
        return described


@dataclass(frozen=True)
class ExportPlan:
    """Everything that an export writes, and why."""

    checkpoint: Checkpoint
    files: tuple[PlannedFile, ...]
    config: dict[str, Any]
    """The `config.json` to be written."""
    choices: tuple[Choice, ...]
    """What becomes of each int8 weight."""
    checked: bool
    """Whether transformers was asked, with success, to load it."""

    @property
    def has_rounded_scales(self) -> bool:
        """Whether scales are rounded to the dtype of the model, for codes that are made anew."""
        return any(m.scale_dtype != torch.float32 for file in self.files for m in file.matrices)

    @property
    def dequantized(self) -> list[Choice]:
        """The weights that become float, each with a reason."""
        return [choice for choice in self.choices if not choice.parts]


def plan_export(
    folder: str | os.PathLike[str], *, pack_head: bool = False, model_scales: bool = False, check: bool = True
) -> ExportPlan:
    """Plan from the headers and the config of a folder; no tensor is read.

    Args:
        folder: what `w8a16 quantize` made of a transformers folder.
        pack_head: keep the layer that gives the logits int8, too; SGLang reads such a folder wrongly.
        model_scales: have scales in the dtype of the model, for codes that are made for them anew.
        check: refuse what transformers would not load, where compressed-tensors is installed.

    Raises:
        CheckpointError: not such a folder, no weight of it can stay int8, or transformers could not load it.
        UnknownModelError: its config names no class of transformers.
        MissingExtraError: transformers is not installed.
        ResourceError: a file cannot be read.
    """
    path = Path(folder)
    config = read_config(path)
    checkpoint = _open(path)
    model = skeleton(path)
    restored = plan_restoring(checkpoint)
    _refuse_computed(path, model, [weight.key for file in restored for weight in file.weights])
    keys = [key for file in restored for key in (*file.copies, *(weight.key for weight in file.weights))]
    names = published_names(model, keys)
    choices = choose(model, checkpoint.manifest, names, pack_head)
    if not any(choice.parts for choice in choices):
        reasons = "; ".join(sorted({choice.reason for choice in choices}))
        raise CheckpointError(f"{shown(path)}: no weight could stay int8 ({reasons})")
    by_key = {choice.key: choice for choice in choices}
    files = tuple(_planned(file, by_key, names, model_scales) for file in restored)
    described = _described(model, choices, files, names)
    checked = False
    if check:
        described, checked = _checked(path, model, files, described)
    whole = {**config, "quantization_config": described}
    return ExportPlan(checkpoint, files, whole, tuple(choices), checked)


def _open(path: Path) -> Checkpoint:
    shards = open_shards(path)
    if not any(METADATA_KEY in header.metadata for header in shards.headers):
        raise CheckpointError(
            f"{shown(path)}: holds no int8 weights of w8a16; quantize it first, with w8a16 quantize"
        )
    checkpoint = understand(shards)
    if checkpoint.manifest.origin == "names":
        raise CheckpointError(
            f"{shown(path)}: was quantized by the names of its tensors, so that its layers are not known; "
            "quantize the float folder again, with transformers installed and without --by-name"
        )
    return checkpoint


def _refuse_computed(path: Path, model: nn.Module, weights: list[str]) -> None:
    """Weights that the class computes from parameters that int8 has replaced have no name in files."""
    state = model.state_dict(keep_vars=True)
    computed = [key for key in weights if key not in state]
    if computed:
        raise CheckpointError(
            f"{shown(path)}: {type(model).__name__} computes {len(computed)} weights from parameters that "
            f"int8 has replaced (weight normalization): {some(computed)}; quantize again and exclude them"
        )


def _checked(
    path: Path, model: nn.Module, files: tuple[PlannedFile, ...], said: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """The description with which transformers loads it, and whether that was checked."""
    tensors: Described = {}
    for file in files:
        tensors |= file.tensors
    shapes = {matrix.layer: matrix.shape for file in files for matrix in file.matrices}
    try:
        return said, check_loading(path, model, tensors, shapes, said)
    except CheckpointError:
        packed = {key: value for key, value in said.items() if key != "dequantize"}
        if packed == said:
            raise
        with suppress(CheckpointError):
            return packed, check_loading(path, model, tensors, shapes, packed)
        raise


def _planned(
    file: RestoredFile, choices: Mapping[str, Choice], names: Mapping[str, str], model_scales: bool
) -> PlannedFile:
    matrices = tuple(m for w in file.weights for m in _matrices(w, choices[w.key], model_scales))
    floats = tuple(
        replace(weight, key=names.get(weight.key, weight.key))
        for weight in file.weights
        if not choices[weight.key].parts
    )
    return PlannedFile(file.header, matrices, floats, {names.get(key, key): key for key in file.copies})


def _matrices(weight: Restored, choice: Choice, model_scales: bool) -> list[Matrix]:
    """The packed parts of one weight; rows of codes and scales follow each other in the file."""
    layout, shape = weight.record.layout, weight.record.shape
    experts = 1 if layout.group else layout.lead  # of a stack
    k = math.prod(shape[1:]) if layout.group else math.prod(shape[experts:])
    scales = shape[1] if layout.group else 1
    itemsize = torch.float32.itemsize
    return [
        Matrix(
            part.name.removesuffix(".weight"),
            weight.codes.start + part.first * k,
            weight.scales.start + part.first * scales * itemsize,
            (part.count, k),
            scales,
            weight.dtype,
            weight.dtype if model_scales and weight.dtype.itemsize < itemsize else torch.float32,
            weight.key,
            part.first,
        )
        for part in choice.parts
    ]


def _described(
    model: nn.Module, choices: list[Choice], files: tuple[PlannedFile, ...], names: Mapping[str, str]
) -> dict[str, Any]:
    groups: dict[int, list[str]] = {}
    for choice in choices:
        for part in choice.parts:
            groups.setdefault(choice.group, []).append(part.name.removesuffix(".weight"))
    packed = {name for layers in groups.values() for name in layers}
    # Readers know a layer by its published name or by that of its module.
    own = {layer: path for path, layer in linear_layers(model, names).items()}
    ignore = {name for layer, path in own.items() if layer not in packed for name in (layer, path)}
    # What is a parameter in transformers, such as a router, may be a Linear layer elsewhere.
    ignore |= {
        name.removesuffix(".weight")
        for file in files
        for name, (dtype, shape) in file.tensors.items()
        if name.endswith(".weight") and len(shape) == 2 and dtype.is_floating_point
    }
    both = {
        size: [*layers, *(own[layer] for layer in layers if own.get(layer, layer) != layer)]
        for size, layers in groups.items()
    }
    head = head_of(model)
    heads = [layer for layer, path in own.items() if layer in packed and model.get_submodule(path) is head]
    return quantization_config(both, sorted(ignore), heads)
