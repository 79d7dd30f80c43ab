"""transformers model folders: the float model, and skeletons of it.

Nothing is downloaded, no code from the folder is run, and pickle files are never read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from w8a16.checkpoint import Shards, open_shards, refuse_quantized, shown
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.errors import CheckpointError, MissingExtraError, UnknownModelError
from w8a16.integrations.folders import read_config, some
from w8a16.integrations.loaded import skeleton_of_loaded
from w8a16.integrations.meta import parameters_on_meta, state_on_meta
from w8a16.integrations.stored_copies import same_values
from w8a16.integrations.traced import Ledger


def load_float(folder: str | os.PathLike[str]) -> nn.Module:
    """Load the float model of a local folder, in the dtype it is stored in, in evaluation mode.

    Raises:
        ResourceError: no such folder.
        CheckpointError: no config, no safetensors weights, weights already quantized, or weights that
            the model class needs and the folder lacks.
        MissingExtraError: transformers is not installed.
    """
    path = Path(folder)
    config = read_config(path)
    refuse_quantized(open_shards(path), config)
    model_class = _model_class(path, config)
    try:
        model, info = model_class.from_pretrained(
            str(path),
            local_files_only=True,
            use_safetensors=True,
            dtype="auto",
            output_loading_info=True,
        )
    except Exception as error:  # a broken folder makes transformers raise almost anything
        raise CheckpointError(f"{shown(path)}: transformers cannot load it: {shown(str(error))}") from error
    _refuse_misfits(path, model, info)
    result: nn.Module = model.eval()
    return result


def streaming_skeleton(folder: str | os.PathLike[str], shards: Shards) -> Skeleton:
    """Build the model of a folder without its weights, and find what each of its tensors is made of.

    transformers' own loading code runs, on tensors without values: renamed keys, prefixes, old names,
    experts that are stored one by one, ties and tensors that need not be there are all as it has them.
    Weights are read only to compare tied tensors that are stored twice.

    Args:
        folder: the folder with the config.
        shards: its weights, opened.

    Raises:
        ResourceError: no such folder.
        UnknownModelError: the config names no class that is known here.
        CheckpointError: no config, weights already quantized; tensors that the class
            needs and the files lack, or the other way round, or of another shape; or tensors that
            transformers computes from stored ones in a way that is more than putting parts together.
        MissingExtraError: transformers is not installed.
    """
    path = Path(folder)
    refuse_quantized(shards, read_config(path))
    return skeleton_of_tensors(path, shards)


def skeleton_of_tensors(path: Path, shards: Shards) -> Skeleton:
    """As `streaming_skeleton`, for tensors that are taken for what `shards` says they are.

    What the config says of quantization is not looked at.
    """
    model_class = _model_class(path, read_config(path))
    ledger = Ledger(shards.tensors, lambda one, other: same_values(shards, one, other))
    try:
        with quiet():
            model, info = model_class.from_pretrained(
                None,
                config=_unquantized(_config_object(path, model_class)),
                state_dict=ledger.state(),
                dtype="auto",
                ignore_mismatched_sizes=True,  # they are named below, with both shapes
                output_loading_info=True,
            )
    except Exception as error:  # a broken folder makes transformers raise almost anything
        raise CheckpointError(f"{shown(path)}: transformers cannot load it: {shown(str(error))}") from error
    _refuse_misfits(path, model, info)
    return skeleton_of_loaded(path, model.eval(), ledger, model_class.__name__)


def skeleton(folder: str | os.PathLike[str]) -> nn.Module:
    """Build the model of a folder without memory for its weights, in evaluation mode.

    What is in its state dict is on the meta device, other buffers have their values.
    `w8a16.load(skeleton(folder), folder)` is the quantized model.

    Raises:
        ResourceError: no such folder.
        UnknownModelError: the config names no class that is known here.
        CheckpointError: no config, or a config it cannot be built from.
        MissingExtraError: transformers is not installed.
    """
    path = Path(folder)
    model_class = _model_class(path, read_config(path))
    try:
        config = _config_object(path, model_class)
        dtype = getattr(config, "dtype", None)
        with parameters_on_meta(dtype if isinstance(dtype, torch.dtype) else None):
            model: nn.Module = model_class(config)
    except Exception as error:  # a broken config makes transformers raise almost anything
        raise CheckpointError(f"{shown(path)}: transformers cannot build it: {shown(str(error))}") from error
    state_on_meta(model)
    return model.eval()


def _config_object(path: Path, model_class: Any) -> Any:
    return model_class.config_class.from_pretrained(str(path), local_files_only=True)


def _unquantized(config: Any) -> Any:
    """The config without what it says of quantization, for which transformers would change the model."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _refuse_misfits(path: Path, model: nn.Module, info: dict[str, Any]) -> None:
    """Tensors that transformers would fill with random numbers, or leave out, without an error."""
    name = type(model).__name__
    mismatched = sorted(info["mismatched_keys"])
    if mismatched:
        listed = [f"{key} is {list(found)}, expected {list(expected)}" for key, found, expected in mismatched]
        raise CheckpointError(f"{shown(path)}: {name} needs other shapes: {some(listed)}")
    missing = sorted(info["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{shown(path)}: {name} needs {len(missing)} tensors that the folder lacks: {some(missing)}"
        )
    # Old checkpoints hold buffers (position ids) that newer classes compute themselves.
    unused = sorted(set(info["unexpected_keys"]) - {name for name, _ in model.named_buffers()})
    if unused:
        raise CheckpointError(
            f"{shown(path)}: {name} has no place for {len(unused)} tensors of the folder: {some(unused)}"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no table of warnings: the findings become our errors."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _model_class(path: Path, config: dict[str, Any]) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError("transformers", "transformers", f"reading {shown(path)}") from error
    listed = config.get("architectures") or []
    names = [str(name) for name in listed] if isinstance(listed, list) else [str(listed)]
    for name in names:
        found = getattr(transformers, name, None) if name.isidentifier() else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if names:
        raise UnknownModelError(
            f"{shown(path)}: architectures {some(names)}: not a model class of transformers "
            f"{transformers.__version__}; code from the folder is never run"
        )
    raise UnknownModelError(f"{shown(path)}/config.json: no architectures: which model class is it?")
