"""Inputs and outputs of any nesting: the tensors inside, with their places.

Tensors, tuples, lists, mappings (transformers' outputs are mappings) and dataclasses are looked into;
whatever else is in them, caches and such, is left alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ComparisonError


def tensors_in(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in `value` with its place.

    Example:
        >>> [path for path, _ in tensors_in({"logits": torch.ones(1), "states": (torch.ones(2), None)})]
        ['logits', 'states[0]']
    """
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (tuple, list)):
        for position, item in enumerate(value):
            yield from tensors_in(item, f"{path}[{position}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)


def float_tensors_in(value: Any) -> dict[str, Tensor]:
    """The float tensors in `value` by their places; complex ones as pairs of floats."""
    found = {}
    for path, tensor in tensors_in(value):
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        if tensor.is_nested:
            tensor = torch.nested.to_padded_tensor(tensor, 0.0)
        if tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta:
            found[path] = tensor
    return found


def positions_in_use(batch: Any) -> Tensor | None:
    """Which positions `[B, T]` of a batch are no padding, by its `attention_mask`; None where all count."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2 or bool((mask != 0).all()) or not bool(mask.any()):
        return None
    return mask != 0


def paired_floats(
    reference: Any, quantized: Any, what: str = "outputs", in_use: Tensor | None = None
) -> list[tuple[str, Tensor, Tensor]]:
    """The float tensors of both, place by place; of `[B, T, ...]` the positions that are in use.

    What a model computes for padding is read by nobody and can drift far.

    Raises:
        ComparisonError: places or shapes differ; all of them are named.
    """
    ours, theirs = float_tensors_in(reference), float_tensors_in(quantized)
    problems = [
        f"{path or 'the output'} is missing in the int8 model's" for path in ours if path not in theirs
    ]
    problems += [
        f"{path or 'the output'} is missing in the float model's" for path in theirs if path not in ours
    ]
    for path, tensor in ours.items():
        other = theirs.get(path, tensor)
        if other.shape != tensor.shape:
            shapes = f"{list(tensor.shape)} and {list(other.shape)}"
            problems.append(f"{path or 'the output'} has the shapes {shapes}")
    if problems:
        raise ComparisonError(
            f"{what} of the float and the int8 model cannot be compared: {'; '.join(problems)}; pass two "
            "models of one architecture, set up in the same way"
        )
    return [(path, *_in_use(tensor, theirs[path], in_use)) for path, tensor in ours.items()]


def _in_use(reference: Tensor, quantized: Tensor, in_use: Tensor | None) -> tuple[Tensor, Tensor]:
    if in_use is None or reference.dim() < 3 or reference.shape[:2] != in_use.shape:
        return reference, quantized
    return reference[in_use.to(reference.device)], quantized[in_use.to(quantized.device)]


def signature(batch: Any) -> str:
    """A batch in words: names, dtypes and shapes.

    Example:
        >>> signature({"pixels": torch.zeros(2, 3, 8, 8)})
        'pixels float32 [2, 3, 8, 8]'
    """
    found = [
        f"{path} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}".lstrip()
        for path, tensor in tensors_in(batch)
    ]
    return ", ".join(found) or f"no tensors, {type(batch).__name__}"
