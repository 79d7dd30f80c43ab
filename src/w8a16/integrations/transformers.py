"""transformers model folders: the float model, and the skeleton that a quantized file is loaded into.

Nothing is downloaded, no code from the folder is run, and pickle files are never read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from w8a16.checkpoint import METADATA_KEY, as_resource_error, read_header, shown
from w8a16.errors import CheckpointError, MissingExtraError, ResourceError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def load_float(folder: str | os.PathLike[str]) -> nn.Module:
    """Load the float model of a local folder, in the dtype it is stored in, in evaluation mode.

    Raises:
        ResourceError: no such folder.
        CheckpointError: no config, no safetensors weights, weights already quantized, or weights that
            the model class needs and the folder lacks.
        MissingExtraError: transformers is not installed.
    """
    path = Path(folder)
    config = _read_config(path)
    _refuse_unsuitable(path, config)
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
    missing = sorted(info["missing_keys"])
    if missing:
        # transformers would fill them with random numbers.
        raise CheckpointError(
            f"{shown(path)}: {model_class.__name__} needs {len(missing)} tensors that the folder lacks: "
            f"{_some(missing)}"
        )
    # Old checkpoints hold buffers (position ids) that newer classes compute themselves.
    unused = sorted(set(info["unexpected_keys"]) - {name for name, _ in model.named_buffers()})
    if unused:
        raise CheckpointError(
            f"{shown(path)}: {model_class.__name__} has no place for {len(unused)} tensors of the folder: "
            f"{_some(unused)}"
        )
    result: nn.Module = model.eval()
    return result


def skeleton(folder: str | os.PathLike[str]) -> nn.Module:
    """Build the model of a folder on the meta device (no memory, no weights), in evaluation mode.

    `w8a16.load(skeleton(folder), folder)` is the quantized model.
    """
    path = Path(folder)
    model_class = _model_class(path, _read_config(path))
    try:
        config = model_class.config_class.from_pretrained(str(path), local_files_only=True)
        with torch.device("meta"):
            model: nn.Module = model_class(config)
    except Exception as error:  # a broken config makes transformers raise almost anything
        raise CheckpointError(f"{shown(path)}: transformers cannot build it: {shown(str(error))}") from error
    return model.eval()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise ResourceError(f"{shown(path)}: {what}; expected a transformers model folder")
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{shown(path)}: no config.json; expected a transformers model folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown(file)}: not JSON ({error})") from error
    except OSError as error:
        raise ResourceError(f"{shown(file)}: {error.strerror or error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{shown(file)}: expected a JSON object")
    return config


def _refuse_unsuitable(path: Path, config: dict[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise CheckpointError(
            f"{shown(path)}: already quantized ({shown(str(method or 'unknown method'))}); "
            "expected float weights"
        )
    _check_weight_files(path)


def _check_weight_files(path: Path) -> None:
    """The weight files are there, complete and float; nothing has been loaded yet."""
    weights, index = path / _WEIGHTS, path / _INDEX
    if weights.exists() and index.exists():
        raise CheckpointError(f"{shown(path)}: holds both {_WEIGHTS} and {_INDEX}; remove one of them")
    if not weights.exists() and not index.exists():
        pickles = sorted(file.name for file in path.glob("*.bin"))
        hint = f" (found {_some(pickles)}: pickle is never read)" if pickles else ""
        raise CheckpointError(f"{shown(path)}: no {_WEIGHTS} and no {_INDEX}{hint}")
    for file in [weights] if weights.exists() else _shards(index):
        if METADATA_KEY in read_header(file).metadata:
            raise CheckpointError(f"{shown(file)}: already quantized by w8a16; expected float weights")


def _shards(index: Path) -> list[Path]:
    """The files that an index names; every one must be a plain name beside the index, and exist."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        unsafe = [name for name in names if Path(name).name != name or "\\" in name or ":" in name]
    except OSError as error:
        raise as_resource_error(index, error) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{shown(index)}: expected a weight_map of tensor names to files: {error!r}"
        ) from error
    if unsafe:
        raise CheckpointError(f"{shown(index)}: unsafe shard name: {_some(unsafe)}")
    foreign = [name for name in names if not name.endswith(".safetensors")]
    if foreign:
        raise CheckpointError(f"{shown(index)}: shard names must end with .safetensors: {_some(foreign)}")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise CheckpointError(f"{shown(index)}: missing shards: {', '.join(map(shown, missing))}")
    return [index.parent / name for name in names]


def _some(names: list[str]) -> str:
    """Up to ten names, fit to be printed."""
    return ", ".join(shown(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")


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
        raise CheckpointError(
            f"{shown(path)}: architectures {_some(names)}: not a model class of transformers "
            f"{transformers.__version__}; code from the folder is never run"
        )
    raise CheckpointError(f"{shown(path)}/config.json: no architectures: which model class is it?")
