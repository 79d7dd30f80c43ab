"""What each tensor of a checkpoint is, told by its name and shape alone, where no class is known.

The tensors become the parameters of a tree of plain modules, and the ordinary plan judges them. What
decides is how a weight is cut into rows that share a scale:

    name                                      shape           becomes          a scale for each
    X.weight, X like an embedding             [V, D]          nn.Embedding     row
    X.weight                                  [N, K]          nn.Linear        row
    X.weight, the last size a kernel's        [N, C, k]       nn.Conv1d        first index
    X.weight                                  [N, C, h, w]    nn.Conv2d        first index
    X.weight                                  [N, C, t, h, w] nn.Conv3d        first index
    X.weight of experts, or no kernel's size  [E, N, K]       a parameter      row of each matrix
    another name, of two dimensions or more   [..., K]        a parameter      row along the last one
    a buffer by its name; not floating-point  any             a buffer         (stays as it is)
    part of a reparametrized weight           any             a buffer         (stays as it is)
    anything else                             [D], []         a parameter      (stays float)

A wrong guess costs little: rows of an embedding and of a linear layer are the same, and every guess
keeps each value within half a step of its row's scale. Loading takes the kind of the model's own
module where its codes lie in the same way. Names are data, and may be hostile: a tensor that cannot be
placed in a tree of modules is copied as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.skeleton import Piece, Skeleton
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError
from w8a16.layers.tensor_names import codes_name, scales_name

_DEEPEST = 64  # parts of a name; torch walks module trees recursively
_WIDEST_KERNEL = 128
_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}

# Searched for, never matched as a whole with `.*` around: a name may have a million letters.
_EMBEDDING = re.compile(r"(^|_)(embd|emb|wte|wpe|shared|relative_attention_bias)(_|$)|embed")
_EXPERTS = re.compile(r"(^|_)(experts?|moe)(_|$)")
_BUFFER = re.compile(
    r"(^|_)(inv_freq|position_ids|token_type_ids|mask)$"
    r"|^(running_mean|running_var|masked_bias|(cos|sin)(_cached)?|freqs(_cis)?)$"
)
_REPARAMETRIZED = re.compile(r"_(g|v|orig|u)$")
"""`weight_g` and `weight_v` of weight_norm, `weight_orig` and `weight_u` of spectral_norm."""
_PARTNERS = {"g": "v", "v": "g", "orig": "u", "u": "orig"}


@dataclass
class _Node:
    """A module to be: its tensors and its children by name."""

    leaves: dict[str, str] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)


def skeleton_from_names(shards: Shards) -> Skeleton:
    """Build a tree of modules on the meta device for the tensors of a checkpoint.

    Returns:
        A skeleton in which every tensor is its own single piece, under its own name; what its name
        keeps from being in a module is in `copied`.

    Raises:
        CheckpointError: a weight would be written under a name that another tensor has.
    """
    tensors = shards.tensors
    _refuse_collisions(tensors)
    root, copied = _tree(tensors)
    model = nn.Module()
    _fill(model, root, tensors, copied, "")
    sources: dict[str, tuple[Piece, ...]] = {name: (Piece(name),) for name in tensors if name not in copied}
    return Skeleton(model.eval(), sources, (), "names", "tensor names", copied)


def _refuse_collisions(tensors: dict[str, TensorInfo]) -> None:
    problems = []
    for name, info in tensors.items():
        path, dot, leaf = name.rpartition(".")
        if len(info.shape) < 2 or info.dtype not in FLOAT_DTYPES:
            continue
        for made in (codes_name(leaf), scales_name(leaf)):
            if f"{path}{dot}{made}" in tensors:
                problems.append(f"{shown(name)} would be written as {shown(f'{path}{dot}{made}')}")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise CheckpointError(
            f"tensors of the source have the names that int8 weights get; is it quantized already?\n{listed}"
        )


def _tree(tensors: dict[str, TensorInfo]) -> tuple[_Node, dict[str, str]]:
    """Sort tensors into modules by the dots in their names."""
    root, copied = _Node(), {}
    for name in tensors:
        *path, leaf = name.split(".")
        reason = _why_unplaced(path, leaf)
        if reason is not None:
            copied[name] = reason
            continue
        node = root
        for part in path:
            node = node.children.setdefault(part, _Node())
        node.leaves[leaf] = name
    return root, copied


def _why_unplaced(path: list[str], leaf: str) -> str | None:
    if len(path) >= _DEEPEST:
        return f"the name has {len(path) + 1} parts; up to {_DEEPEST} are read as modules"
    if "" in path or not leaf:
        return "the name has an empty part"
    taken = next((part for part in (*path, leaf) if part in _TAKEN), None)
    return None if taken is None else f"a module cannot hold anything named {shown(taken)}"


def _fill(
    module: nn.Module, node: _Node, tensors: dict[str, TensorInfo], copied: dict[str, str], own_name: str
) -> None:
    """Give a module its tensors and its children."""
    for leaf, name in node.leaves.items():
        if leaf in node.children:
            copied[name] = "other tensors lie below its name"
            continue
        info = tensors[name]
        made = module._parameters.get(leaf)
        if made is not None and made.dtype == info.dtype:
            continue  # of the shape that its module was made for
        empty = torch.empty(info.shape, dtype=info.dtype, device="meta")
        if _is_parameter(leaf, info, node):
            module._parameters[leaf] = nn.Parameter(empty, requires_grad=False)
        else:
            module.register_buffer(leaf, empty)
    for part, child in node.children.items():
        inner = part if not part.isdigit() else own_name  # experts.3 is one of experts
        below = _module_for(child, tensors, inner)
        module._modules[part] = below
        _fill(below, child, tensors, copied, inner)


def _is_parameter(leaf: str, info: TensorInfo, node: _Node) -> bool:
    if info.dtype not in FLOAT_DTYPES or _BUFFER.search(leaf):
        return False
    stem, _, part = leaf.rpartition("_")
    return not (_REPARAMETRIZED.search(leaf) and f"{stem}_{_PARTNERS[part]}" in node.leaves)


def _module_for(node: _Node, tensors: dict[str, TensorInfo], name: str) -> nn.Module:
    """The module that the tensors of a node look like."""
    if node.children or "weight" not in node.leaves or not node.leaves.keys() <= {"weight", "bias"}:
        return nn.Module()
    weight = tensors[node.leaves["weight"]]
    sizes = weight.shape
    if weight.dtype not in FLOAT_DTYPES or len(sizes) not in (2, 3, 4, 5) or 0 in sizes:
        return nn.Module()
    bias = tensors[node.leaves["bias"]].shape if "bias" in node.leaves else None
    if bias not in (None, sizes[:1]):
        return nn.Module()
    if len(sizes) == 2:
        if bias is None and _EMBEDDING.search(name):
            return _make(nn.Embedding, weight.dtype, *sizes)
        return _make(nn.Linear, weight.dtype, sizes[1], sizes[0], bias=bias is not None)
    if len(sizes) == 3 and (_EXPERTS.search(name) or sizes[2] > _WIDEST_KERNEL):
        return nn.Module()
    convolution = _CONVOLUTIONS[len(sizes)]
    return _make(convolution, weight.dtype, sizes[1], sizes[0], sizes[2:], bias=bias is not None)


def _make(cls: type[nn.Module], dtype: torch.dtype, *arguments: Any, **options: Any) -> nn.Module:
    """A module on meta; its initialization would take most of the time, for no values."""
    module: nn.Module = _UNINITIALIZED[cls](*arguments, **options, device="meta", dtype=dtype)
    module.__class__ = cls
    return module


_UNINITIALIZED: dict[type[nn.Module], type[nn.Module]] = {
    cls: type(cls.__name__, (cls,), {"reset_parameters": lambda self: None})
    for cls in (nn.Embedding, nn.Linear, *_CONVOLUTIONS.values())
}
_TAKEN = frozenset({*dir(nn.Module()), *vars(nn.Module())})
"""Attributes of every module, which no parameter or child can be named like."""
