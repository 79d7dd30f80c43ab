"""Inputs from a file of named arrays: safetensors, NumPy's .npz, or JSON with nested lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.checkpoint import as_resource_error, open_shards, shown
from w8a16.checkpoint.reading import read_tensors
from w8a16.errors import CheckpointError, ComparisonError, MissingExtraError
from w8a16.integrations.folders import some
from w8a16.integrations.model_tasks import MODALITIES, accepted_inputs
from w8a16.integrations.text_inputs import vocabulary_size

SUFFIXES = (".safetensors", ".npz", ".json")


def read_arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of a file by their names.

    Raises:
        CheckpointError: another kind of file, or a broken one.
        ResourceError: it cannot be read.
        MissingExtraError: NumPy is not installed, for an .npz file.
    """
    if file.suffix == ".safetensors":
        return read_tensors(open_shards(file), lambda name, tensor: tensor)
    if file.suffix not in SUFFIXES:
        raise CheckpointError(
            f"{shown(file)}: expected named arrays in a file that ends in {', '.join(SUFFIXES)}; text goes "
            "to --text"
        )
    try:
        arrays = _read_npz(file) if file.suffix == ".npz" else _read_json(file)
    except OSError as error:
        raise as_resource_error(file, error) from error
    if not arrays:
        raise CheckpointError(f"{shown(file)}: holds no arrays")
    return arrays


def array_batches(
    file: Path, arrays: dict[str, Tensor], model: nn.Module, rows: int, count: int
) -> list[dict[str, Tensor]]:
    """Cut arrays into batches along their first dimension.

    Args:
        file: for errors.
        arrays: by the names of the model's inputs.
        model: on the meta device, too.
        rows: samples in a batch.
        count: how many batches at the most.

    Raises:
        ComparisonError: names that the model does not take, its main input missing, arrays that are
            empty or of different lengths, or token ids that it does not know.
    """
    _check_names(file, arrays, model)
    lengths = {name: len(array) if array.dim() else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or not all(array.numel() for array in arrays.values()):
        listed = ", ".join(f"{shown(name)} {list(array.shape)}" for name, array in arrays.items())
        raise ComparisonError(
            f"{shown(file)}: expected at least one sample, as many in each array; got {listed}"
        )
    for name, array in arrays.items():
        _check_values(file, name, array, model)
    total = min(next(iter(lengths.values())), rows * count)
    return [
        {name: array[first : min(first + rows, total)] for name, array in arrays.items()}
        for first in range(0, total, rows)
    ]


def _check_names(file: Path, arrays: dict[str, Tensor], model: nn.Module) -> None:
    accepted, name = accepted_inputs(model), type(model).__name__
    main = str(getattr(model, "main_input_name", "input_ids"))
    unknown = [each for each in arrays if each not in accepted]
    if unknown:
        kinds = {MODALITIES[each] for each in unknown if each in MODALITIES}
        what = f" ({' and '.join(sorted(kinds))})" if kinds else ""
        raise ComparisonError(
            f"{shown(file)}: {name} does not take {some(unknown)}{what}; it takes {', '.join(accepted)}"
        )
    if main in accepted and main not in arrays and "inputs_embeds" not in arrays:
        raise ComparisonError(f"{shown(file)}: {name} needs {main}; the file holds {some(list(arrays))}")


def _check_values(file: Path, name: str, array: Tensor, model: nn.Module) -> None:
    ids = name.endswith("_ids")
    if ids and (array.is_floating_point() or array.is_complex()):
        raise ComparisonError(f"{shown(file)}: {name}: expected integers, got {array.dtype}")
    if array.is_floating_point() and not bool(array.isfinite().all()):
        raise ComparisonError(f"{shown(file)}: {name}: NaN or Inf among its values")
    rows = vocabulary_size(model) if name == "input_ids" else None
    if rows is not None and not 0 <= int(array.min()) <= int(array.max()) < rows:
        raise ComparisonError(
            f"{shown(file)}: {name}: expected token ids from 0 to {rows - 1}, got {int(array.min())} to "
            f"{int(array.max())}"
        )


def _read_npz(file: Path) -> dict[str, Tensor]:
    try:
        import numpy
    except ImportError as error:
        raise MissingExtraError("numpy", "study", f"reading {shown(file)}") from error
    arrays = {}
    try:
        with numpy.load(file, allow_pickle=False) as opened:
            for name in opened.files:
                arrays[name] = torch.from_numpy(opened[name])
    except (ValueError, TypeError, EOFError, KeyError) as error:
        raise CheckpointError(f"{shown(file)}: not an .npz file of numbers ({error})") from error
    except OSError:
        raise
    except Exception as error:  # zipfile has errors of its own
        raise CheckpointError(f"{shown(file)}: not an .npz file ({error})") from error
    return arrays


def _read_json(file: Path) -> dict[str, Tensor]:
    try:
        data: Any = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown(file)}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise CheckpointError(
            f"{shown(file)}: expected an object of nested lists by input name, such as "
            '{"input_ids": [[1, 2]]}'
        )
    arrays = {}
    for name, values in data.items():
        try:
            array = torch.tensor(values)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise CheckpointError(
                f"{shown(file)}: {shown(name)}: expected nested lists of numbers, equally long ({error})"
            ) from error
        arrays[name] = array
    return arrays
