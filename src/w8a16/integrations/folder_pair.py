"""A float model folder and the int8 folder made from it, opened so that both fit in the memory of one.

The int8 model is loaded; the float weights stay in their files and are read one at a time. What both
have in common (biases, norms, weights kept float) is in memory once, and `pair_check` compares it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from w8a16.checkpoint import METADATA_KEY, Checkpoint, Shards, load, open_shards, shown, understand
from w8a16.checkpoint.opened import below
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.checkpoint.verification import Original
from w8a16.errors import CheckpointError, UnknownModelError, UsageError
from w8a16.integrations.float_source import FloatSource
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.pipelines import PIPELINE_INDEX
from w8a16.integrations.transformers_folders import load_float, skeleton, streaming_skeleton

_VOLATILE = {
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "_commit_hash",
    "architectures",
    "quantization_config",
}
"""Fields of a config that do not change what a model computes."""
_IN_PYTHON = "in Python, w8a16.compare(reference, quantized, inputs) takes any module"


@dataclass(frozen=True)
class FolderPair:
    """Both folders, opened and found to be of one architecture; no weight has been read."""

    float_folder: Path
    int8_folder: Path
    config: dict[str, Any]
    """The config.json of the float folder."""
    skeleton: nn.Module
    """The float model on the meta device (with weights in memory only where `notes` says so)."""
    weights: FloatSource
    checkpoint: Checkpoint
    """The int8 folder."""
    original: Original
    """The float folder."""
    notes: tuple[str, ...]
    """What has been noticed, in whole sentences."""

    @property
    def total_bytes(self) -> int:
        """Of all tensors in both folders."""
        both = (self.checkpoint.shards, self.original.shards)
        return sum(info.size for shards in both for info in shards.tensors.values())

    @property
    def float_bytes(self) -> int:
        """Of all tensors in the float folder."""
        return sum(info.size for info in self.original.shards.tensors.values())

    @property
    def output_bytes(self) -> int:
        """About how many bytes all int8 layers together put out for one token."""
        total = 0
        for record in self.checkpoint.manifest.modules.values():
            for weight in record.weights.values():
                table = "embedding" in record.kind
                channels = weight.shape[-1] if table else math.prod(weight.shape[: weight.layout.lead])
                total += channels * record.weight_dtype.itemsize
        return total

    def load(self) -> nn.Module:
        """Load the int8 model, in evaluation mode.

        Raises:
            CheckpointError: its files do not fit its class.
            ResourceError: a file cannot be read.
        """
        described = (self.int8_folder / "config.json").is_file()
        folder = self.int8_folder if described else self.float_folder
        return load(skeleton(folder), self.int8_folder)


def open_pair(float_folder: Path, int8_folder: Path) -> FolderPair:
    """Open both folders; only headers and configs are read.

    Args:
        float_folder: a transformers folder with float weights.
        int8_folder: what `w8a16 quantize` made of it, or `w8a16.save` of its model.

    Raises:
        UsageError: they are the same, swapped, or both float or both int8.
        CheckpointError: not transformers folders, or of different architectures or shapes.
        ResourceError: one does not exist, or cannot be read.
        MissingExtraError: transformers is not installed.
    """
    floats, codes = _opened(float_folder, "FLOAT"), _opened(int8_folder, "QUANTIZED")
    _refuse_wrong_order(floats, codes)
    config = read_config(float_folder)
    if "_class_name" in config:
        raise CheckpointError(
            f"{shown(float_folder)}: a diffusers model; expected a transformers folder; {_IN_PYTHON}"
        )
    notes = _config_notes(float_folder, config, int8_folder)
    checkpoint = understand(codes)
    made, why_loaded = _float_skeleton(float_folder, floats)
    weights = FloatSource(made, floats)
    _refuse_misfits(float_folder, weights, int8_folder, checkpoint)
    by_name = checkpoint.manifest.origin == "names" or why_loaded
    return FolderPair(
        float_folder=float_folder,
        int8_folder=int8_folder,
        config=config,
        skeleton=made.model,
        weights=weights,
        checkpoint=checkpoint,
        original=Original(floats, {} if by_name else made.sources),
        notes=(*notes, *((why_loaded,) if why_loaded else ())),
    )


def _opened(folder: Path, argument: str) -> Shards:
    if (folder / PIPELINE_INDEX).is_file():
        raise CheckpointError(
            f"{argument} {shown(folder)}: a diffusers pipeline; expected a transformers folder; {_IN_PYTHON}"
        )
    if folder.is_file():
        raise CheckpointError(f"{argument} {shown(folder)}: a file; expected the folder with its config.json")
    return open_shards(folder)


def _refuse_wrong_order(floats: Shards, codes: Shards) -> None:
    first, second = _is_int8(floats), _is_int8(codes)
    paths = f"{shown(floats.path)} and {shown(codes.path)}"
    if first and second:
        raise UsageError(f"{paths}: both are int8; expected first the float folder that one was made from")
    if first:
        raise UsageError(
            f"{shown(floats.path)} is the int8 folder: expected FLOAT first, then QUANTIZED; swap the two"
        )
    if not second:
        raise UsageError(
            f"{paths}: neither is int8; `w8a16 quantize {shown(floats.path)} DST` makes the folder to compare"
        )


def _is_int8(shards: Shards) -> bool:
    return any(METADATA_KEY in header.metadata for header in shards.headers)


def _config_notes(float_folder: Path, config: dict[str, Any], int8_folder: Path) -> list[str]:
    """Refuse different architectures; name other fields that differ."""
    if not (int8_folder / "config.json").is_file():
        return []
    other = read_config(int8_folder)
    classes = [str(each.get("architectures")) for each in (config, other)]
    if classes[0] != classes[1]:
        raise CheckpointError(
            f"{shown(int8_folder)} holds {shown(classes[1])}, {shown(float_folder)} holds "
            f"{shown(classes[0])}: they do not belong together"
        )
    differing = sorted(key for key in {*config, *other} - _VOLATILE if config.get(key) != other.get(key))
    if not differing:
        return []
    return [f"The configs differ in {some(differing)}; both models run with that of QUANTIZED."]


def _float_skeleton(folder: Path, shards: Shards) -> tuple[Skeleton, str | None]:
    """The skeleton; or, where its tensors cannot be streamed, the loaded model, and a sentence about it."""
    try:
        return streaming_skeleton(folder, shards), None
    except UnknownModelError as error:
        raise error.followed_by(_IN_PYTHON) from error
    except CheckpointError:
        model = load_float(folder)  # which says what is wrong, if it is more than that
    why = f"{type(model).__name__} computes weights when it is loaded, so the float model was held in memory."
    return Skeleton(model, {}, (), "classes", type(model).__name__), why


def _refuse_misfits(
    float_folder: Path, weights: FloatSource, int8_folder: Path, checkpoint: Checkpoint
) -> None:
    """Every int8 weight must have a float one of its shape."""
    problems = []
    for path, record in checkpoint.manifest.modules.items():
        for own_name, weight in record.weights.items():
            name, expected = below(path, own_name), weight.layout.float_shape(weight.shape)
            found = weights.shape(name)
            if found is None:
                problems.append(f"{name} (FLOAT has no such weight)")
            elif found != expected:
                problems.append(f"{name} is {list(found)}, in QUANTIZED {list(expected)}")
    if problems:
        hint = ""
        if checkpoint.manifest.origin == "names":
            hint = "; it was quantized by the names of tensors: quantize it again by its class"
        raise CheckpointError(
            f"{shown(float_folder)} and {shown(int8_folder)} do not belong together: {some(problems)}{hint}"
        )
