"""The checkpoint as it would be with float weights, so that its model class says what they are.

Each codes tensor stands under the name and the shape of its float weight, in the dtype of the model;
what only describes codes is left out. No value is read from such an entry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from w8a16.checkpoint import Shards, TensorInfo, shown
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError
from w8a16.integrations.foreign_int8.records import Found


def as_float(shards: Shards, found: Found, config: Mapping[str, Any]) -> Shards:
    """The same files, described as if the weights were float.

    Raises:
        CheckpointError: a float weight is stored beside the codes of the same layer.
    """
    dtype = _model_dtype(shards, found, config)
    names = {weight.codes: name for name, weight in found.weights.items()}
    both = [name for name in found.weights if name in shards.tensors and name not in names]
    if both:
        raise CheckpointError(f"{shown(shards.path)}: {shown(both[0])} is stored as float and as codes")
    headers = []
    for header in shards.headers:
        tensors: dict[str, TensorInfo] = {}
        for name, info in header.tensors.items():
            if name in names:
                weight = found.weights[names[name]]
                tensors[names[name]] = replace(info, dtype=dtype, shape=weight.shape)
            elif name not in found.dropped:
                tensors[name] = info
        headers.append(replace(header, tensors=tensors))
    return Shards(shards.path, tuple(headers), shards.index)


def _model_dtype(shards: Shards, found: Found, config: Mapping[str, Any]) -> torch.dtype:
    """What the config says, or what most float tensors are."""
    named = {str(dtype).removeprefix("torch."): dtype for dtype in FLOAT_DTYPES}
    said = named.get(str(config.get("dtype") or config.get("torch_dtype")))
    if said is not None:
        return said
    counted = Counter(
        info.dtype
        for name, info in shards.tensors.items()
        if name not in found.dropped and info.dtype in FLOAT_DTYPES
    )
    return counted.most_common(1)[0][0] if counted else torch.float32
