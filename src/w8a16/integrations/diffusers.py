"""diffusers folders: pipelines with their components, and skeletons of single models.

Nothing is downloaded, no code from the folder is run, and pickle files are never read.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from w8a16.checkpoint import Shards, refuse_quantized, shown
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.errors import CheckpointError, MissingExtraError, UnknownModelError
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.meta import parameters_on_meta, retype, state_on_meta


def streaming_skeleton(folder: str | os.PathLike[str], shards: Shards) -> Skeleton:
    """Build the diffusers model of a folder without its weights, and find where its tensors are stored.

    Args:
        folder: the folder with the `config.json` that names the class.
        shards: its weights, opened.

    Raises:
        ResourceError: no such folder.
        UnknownModelError: the config names no class that is known here.
        CheckpointError: no config, weights already quantized; tensors that the class
            needs and the files lack, or the other way round, or of another shape.
        MissingExtraError: diffusers is not installed.
    """
    path = Path(folder)
    config = read_config(path)
    refuse_quantized(shards, config)
    model_class = _model_class(path, config)
    model: Any = _build(path, model_class, config, _usual_dtype(shards))
    stored_as = {name: name for name in shards.tensors}
    if hasattr(model, "_fix_state_dict_keys_on_load"):  # names of attention blocks before 2023
        model._fix_state_dict_keys_on_load(stored_as)
    state = model.state_dict(keep_vars=True)
    unexpected = [key for key in stored_as if key not in state]
    patterns = getattr(model_class, "_keys_to_ignore_on_load_unexpected", None) or ()
    ignored = [key for key in unexpected if any(re.search(pattern, key) for pattern in patterns)]
    _refuse_misfits(path, model, state, stored_as, shards, sorted(set(unexpected) - set(ignored)))
    sources: dict[str, tuple[Piece, ...]] = {
        key: (Piece(stored_as[key]),) for key in state if key in stored_as
    }
    retype(model, {key: shards.tensors[name].dtype for key, name in stored_as.items() if key in state})
    return Skeleton(model, sources, tuple(stored_as[key] for key in ignored), "classes", type(model).__name__)


def skeleton(folder: str | os.PathLike[str]) -> nn.Module:
    """Build the diffusers model of a folder without memory for its weights, in evaluation mode.

    What is in its state dict is on the meta device, other buffers have their values.
    `w8a16.load(skeleton(folder), folder)` is the quantized model.

    Raises:
        ResourceError: no such folder.
        UnknownModelError: the config names no class that is known here.
        CheckpointError: no config, or a config it cannot be built from.
        MissingExtraError: diffusers is not installed.
    """
    path = Path(folder)
    config = read_config(path)
    return _build(path, _model_class(path, config), config, None)


def _build(path: Path, model_class: Any, config: dict[str, Any], dtype: torch.dtype | None) -> nn.Module:
    try:
        with parameters_on_meta(dtype):
            model: nn.Module = model_class.from_config(config)
    except Exception as error:  # a broken config makes diffusers raise almost anything
        raise CheckpointError(f"{shown(path)}: diffusers cannot build it: {shown(str(error))}") from error
    state_on_meta(model)
    return model.eval()


def _model_class(path: Path, config: dict[str, Any]) -> Any:
    try:
        import diffusers
        from diffusers.models import modeling_utils
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusers", f"reading {shown(path)}") from error
    name = str(config.get("_class_name"))
    found = getattr(diffusers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise UnknownModelError(
            f"{shown(path)}: _class_name {shown(name)}: not a model class of diffusers "
            f"{diffusers.__version__}; code from the folder is never run"
        )
    legacy = getattr(modeling_utils, "LegacyModelMixin", None)
    if legacy is not None and issubclass(found, legacy):  # one class for what are several today
        from diffusers.models import model_loading_utils

        remapped: Any = model_loading_utils
        return remapped._fetch_remapped_cls_from_config(config, found)
    return found


def _usual_dtype(shards: Shards) -> torch.dtype | None:
    """The floating-point dtype of most bytes: the one to load the model in, which buffers may follow."""
    sizes: Counter[torch.dtype] = Counter()
    for info in shards.tensors.values():
        if info.dtype.is_floating_point and info.dtype.itemsize >= 2:
            sizes[info.dtype] += info.size
    return max(sizes, key=lambda dtype: sizes[dtype]) if sizes else None


def _refuse_misfits(
    path: Path,
    model: nn.Module,
    state: dict[str, torch.Tensor],
    stored_as: dict[str, str],
    shards: Shards,
    unused: list[str],
) -> None:
    name = type(model).__name__
    held = {id(state[key]) for key in stored_as if key in state}
    missing = sorted(key for key, tensor in state.items() if id(tensor) not in held)
    if missing:
        raise CheckpointError(
            f"{shown(path)}: {name} needs {len(missing)} tensors that the folder lacks: {some(missing)}"
        )
    if unused:
        raise CheckpointError(
            f"{shown(path)}: {name} has no place for {len(unused)} tensors of the folder: {some(unused)}"
        )
    mismatched = [
        f"{key} is {list(shards.tensors[stored].shape)}, expected {list(state[key].shape)}"
        for key, stored in stored_as.items()
        if key in state and shards.tensors[stored].shape != tuple(state[key].shape)
    ]
    if mismatched:
        raise CheckpointError(f"{shown(path)}: {name} needs other shapes: {some(mismatched)}")
