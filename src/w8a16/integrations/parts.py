"""What a source is: one model or the parts of a pipeline, and the skeleton of each.

The class of a model is taken from its config where that names one that is installed; where it does not,
names and shapes tell what the tensors are, and the reason is kept for whoever wants to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from w8a16.checkpoint import Shards, open_shards, refuse_quantized, shown
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.errors import CheckpointError, MissingExtraError, UnknownModelError
from w8a16.integrations import diffusers, transformers_folders
from w8a16.integrations.folders import read_config
from w8a16.integrations.pipelines import PIPELINE_INDEX, Component, components, open_component


@dataclass(frozen=True)
class Part:
    """One model of a source."""

    place: Path
    """Where it lies below the source; `Path()` where the source is the model."""
    shards: Shards
    library: str | None
    """"transformers" or "diffusers", where the config says so."""
    why_names: str | None = None
    """Why its class is not known; None where the library is to tell."""


def find_parts(source: Path, *, weights: str | None = None) -> list[Part]:
    """Open every model of a source: a safetensors file, a model folder, or a diffusers pipeline.

    Args:
        source: an existing file or folder.
        weights: the name of the weight file or index, where a folder offers several.

    Raises:
        CheckpointError, ResourceError: what is wrong with the files; nothing but headers has been read.
    """
    if (source / PIPELINE_INDEX).is_file():
        found = components(source)
        if not found:
            raise CheckpointError(f"{shown(source)}: no component of the pipeline has weights")
        return [_component_part(component, weights) for component in found]
    shards = open_shards(source, weights=weights)
    if not source.is_dir():
        refuse_quantized(shards)
        return [Part(Path(), shards, None, "a file by itself has no config")]
    if not (source / "config.json").is_file():
        refuse_quantized(shards)
        return [Part(Path(), shards, None, "there is no config.json")]
    config = read_config(source)
    refuse_quantized(shards, config)
    return [Part(Path(), shards, "diffusers" if "_class_name" in config else "transformers")]


def skeleton_of(part: Part, *, by_name: bool = False) -> tuple[Skeleton, str | None]:
    """The skeleton of a part, and why it is made from names, if it is.

    Args:
        part: from `find_parts`.
        by_name: go by names and shapes even where the class is known.

    Raises:
        CheckpointError: the class and the files do not fit together.
    """
    if by_name:
        return skeleton_from_names(part.shards), "asked for"
    if part.library is None:
        return skeleton_from_names(part.shards), part.why_names
    build = {"transformers": transformers_folders, "diffusers": diffusers}[part.library].streaming_skeleton
    folder = part.shards.path
    try:
        return build(folder, part.shards), None
    except (UnknownModelError, MissingExtraError) as error:
        return skeleton_from_names(part.shards), str(error)


def _component_part(component: Component, weights: str | None) -> Part:
    shards = open_component(component, weights=weights)
    config = {}
    if (component.folder / "config.json").is_file():
        config = read_config(component.folder)
    refuse_quantized(shards, config)
    known = component.library if component.library in ("transformers", "diffusers") else None
    why = None if known else f"{component.class_name} is of {shown(component.library)}"
    return Part(Path(component.name), shards, known, why)
