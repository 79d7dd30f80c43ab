"""diffusers pipelines: a folder of models, with a `model_index.json` that says which they are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from w8a16.checkpoint import Shards, as_resource_error, open_shards, shown
from w8a16.checkpoint.container.index import is_safe_name
from w8a16.errors import CheckpointError
from w8a16.integrations.folders import read_config

PIPELINE_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_USUAL = re.compile(r"(model|diffusion_pytorch_model)\.safetensors(\.index\.json)?")
_VARIANT = re.compile(
    r"(model|diffusion_pytorch_model)(\.[^.]+\.safetensors|\.safetensors\.index\.[^.]+\.json)"
)


@dataclass(frozen=True)
class Component:
    """One model of a pipeline."""

    name: str
    """Its name in the pipeline, which is that of its folder."""
    folder: Path
    library: str
    """"diffusers", "transformers", or a module of a pipeline."""
    class_name: str


def components(folder: str | os.PathLike[str]) -> tuple[Component, ...]:
    """List the models of a pipeline folder: the components that have weights.

    Raises:
        ResourceError: no such folder.
        CheckpointError: no `model_index.json`, one that cannot be understood, or a component whose
            folder is missing or has an unsafe name.
    """
    path = Path(folder)
    index = read_config(path, PIPELINE_INDEX)
    found, missing = [], []
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue  # settings of the pipeline
        if len(value) != 2 or not all(item is None or isinstance(item, str) for item in value):
            raise CheckpointError(
                f"{shown(path / PIPELINE_INDEX)}: {shown(name)}: expected [library, class], "
                f"found {shown(str(value))[:80]}"
            )
        library, class_name = value
        if library is None or class_name is None:
            continue  # left out by whoever saved the pipeline
        if not is_safe_name(name):
            raise CheckpointError(f"{shown(path / PIPELINE_INDEX)}: unsafe component name: {name!r}")
        if not (path / name).is_dir():
            missing.append(name)
        elif _has_weights(path / name):
            found.append(Component(name, path / name, library, class_name))
    if missing:
        listed = ", ".join(map(shown, missing))
        raise CheckpointError(f"{shown(path / PIPELINE_INDEX)}: names components without a folder: {listed}")
    return tuple(found)


def open_component(component: Component, *, weights: str | None = None) -> Shards:
    """Open the weights of a component; a variant (`model.fp16.safetensors`) only where `weights` names it.

    Raises:
        CheckpointError: no weights, several, or a variant only; a broken file or index.
        ResourceError: a file cannot be read.
        UsageError: `weights` is not the name of a file in the folder.
    """
    if weights is None:
        names = _names(component.folder)
        variants = [name for name in names if _VARIANT.fullmatch(name)]
        if variants and not any(_USUAL.fullmatch(name) for name in names):
            raise CheckpointError(
                f"{shown(component.folder)}: holds variants only ({', '.join(map(shown, variants))}): choose "
                "one with weights=NAME (--weights NAME)"
            )
    return open_shards(component.folder, weights=weights)


def _has_weights(folder: Path) -> bool:
    return any(name.endswith(_WEIGHTS) for name in _names(folder))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise as_resource_error(folder, error) from error
