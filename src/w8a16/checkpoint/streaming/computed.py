"""Weights that a module computes from other parameters: those are read, so that the weight has values.

Weight normalization and the like are few and small; what they compute is quantized in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w8a16.checkpoint.container.disk import discard, read_at
from w8a16.checkpoint.container.header import open_again
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.skeleton import Skeleton
from w8a16.checkpoint.tensors import bytes_of
from w8a16.convert.source import computed_names
from w8a16.errors import CheckpointError


def read_computed(skeleton: Skeleton, shards: Shards) -> list[str]:
    """Give real values to the parameters of modules that compute a weight; returns their stored names.

    Raises:
        CheckpointError: such a parameter is put together from several stored tensors.
    """
    read = []
    for path, module in skeleton.model.named_modules():
        if "parametrizations" not in path.split(".") and computed_names(module):
            read += _read_module(path, module, skeleton, shards)
    return read


def _read_module(path: str, module: nn.Module, skeleton: Skeleton, shards: Shards) -> list[str]:
    prefix = f"{path}." if path else ""
    read = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        own = "." not in name or name.startswith("parametrizations.")
        pieces = skeleton.sources.get(prefix + name, ())
        if not own or not tensor.is_meta or not pieces:
            continue
        if len(pieces) > 1 or pieces[0].start or pieces[0].transposed or pieces[0].rows:
            raise CheckpointError(
                f"{shown(prefix + name)}: the module computes its weight from it, and the files hold it in "
                f"{len(pieces)} parts; load the model and quantize it in memory"
            )
        _set(module, name, _read(shards, pieces[0].tensor))
        read.append(pieces[0].tensor)
    return read


def _read(shards: Shards, name: str) -> Tensor:
    header, info = shards.header_of(name), shards.tensors[name]
    tensor = torch.empty(info.shape, dtype=info.dtype, device="cpu")
    fd = open_again(header)
    try:
        read_at(fd, bytes_of(tensor), info.start, header.path)
    finally:
        discard(fd)
    return tensor


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, own_name = name.rpartition(".")
    owner = module.get_submodule(path)
    parameter = owner._parameters.get(own_name)
    if parameter is not None:
        owner._parameters[own_name] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    else:
        owner._buffers[own_name] = value
