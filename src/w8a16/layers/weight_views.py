"""What model code does with a stack of weights besides choosing one: views and products that stay int8.

Experts, codebooks and the like are written as `x @ w[i]`, `F.linear(x, w.view(E, N, K)[i])`,
`torch.bmm(x, w)` or `torch.bmm(x, w.transpose(1, 2))`. Each of these takes the codes as they lie, where
the scales are on what the product gives out; else the part in question is dequantized, not the stack.

E experts, T rows for each of them, K in, N out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import apply_linear, grouped_linear
from w8a16.layers.float_weight import FloatWeight, serve
from w8a16.layers.layout import COLUMNS, ROWS, Layout


def _is_lazy(weight: Any) -> bool:
    return isinstance(weight, FloatWeight) and weight._is_lazy


def _part(weight: FloatWeight, codes: Tensor, scales: Tensor, layout: Layout) -> FloatWeight:
    part = FloatWeight(codes, scales, layout, weight.dtype)
    part._is_param = False  # as for a float weight: a view or a copy of a parameter is none
    return part


def _view_of(
    weight: FloatWeight, codes: Tensor, scales: Tensor, layout: Layout, view: Callable[[Tensor], Tensor]
) -> FloatWeight:
    """A view: its values, if they are asked for, lie in those of the weight."""
    part = _part(weight, codes, scales, layout)
    part._base, part._view = weight, view
    return part


def _copy_of(weight: FloatWeight, index: Tensor) -> FloatWeight:
    """A selection of experts, which is a copy: what is written into it stays there."""
    part = _part(weight, weight._codes[index], weight._scales[index], weight._layout)
    part._is_copy = True
    return part


# --- views ----------------------------------------------------------------------------------------


def _turned(weight: Any) -> Any:
    """The last two dimensions exchanged: the codes stay, read the other way."""
    layout = weight._layout
    if weight.dim() != layout.lead + 1 or layout.lead > 2 or layout.groups != 1 or layout.refinement:
        return NotImplemented
    other = Layout(layout.lead, not layout.swapped)
    return _view_of(weight, weight._codes, weight._scales, other, lambda value: value.transpose(-1, -2))


def _transpose(weight: Any, dim0: Any, dim1: Any) -> Any:
    if not _is_lazy(weight) or weight.dim() < 2:
        return NotImplemented
    last = {weight.dim() - 1, weight.dim() - 2}
    return _turned(weight) if {dim0 % weight.dim(), dim1 % weight.dim()} == last else NotImplemented


def _t(weight: Any) -> Any:
    return _turned(weight) if _is_lazy(weight) and weight.dim() == 2 else NotImplemented


def _mt(weight: Any) -> Any:
    return _turned(weight) if _is_lazy(weight) and weight.dim() >= 2 else NotImplemented


def _view(weight: Any, *sizes: Any) -> Any:
    """`[E * N, K]` as `[E, N, K]`."""
    shape = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    if not _is_lazy(weight) or weight._layout != ROWS or weight.dim() != 2:
        return NotImplemented
    if len(shape) != 3 or not all(type(size) is int for size in shape) or shape[2] != weight.shape[1]:
        return NotImplemented
    scales = weight._scales.view(shape[:2])
    codes = weight._codes.view(*scales.shape, shape[2])
    return _view_of(weight, codes, scales, Layout(lead=2), lambda value: value.view(codes.shape))


# --- selections -----------------------------------------------------------------------------------


def _item(weight: Any, index: Any) -> Any:
    """`weight[expert]`, or `weight[experts]` for a list of them."""
    if not _is_lazy(weight) or weight._layout.lead != 2 or weight.dim() != 3:
        return NotImplemented
    if isinstance(index, Tensor):
        if index.dtype not in (torch.int64, torch.int32) or index.dim() > 1:
            return NotImplemented
        if index.dim() == 1:
            return _copy_of(weight, index)
    elif not isinstance(index, int) or isinstance(index, bool):
        return NotImplemented
    layout = Layout(swapped=weight._layout.swapped)
    return _part(weight, weight._codes[index], weight._scales[index], layout)


def _index_select(weight: Any, dim: Any, index: Any) -> Any:
    if not _is_lazy(weight) or weight.dim() != 3 or weight._layout.lead != 2 or dim not in (0, -3):
        return NotImplemented
    return _copy_of(weight, index) if isinstance(index, Tensor) and index.dim() == 1 else NotImplemented


# --- products -------------------------------------------------------------------------------------


def _matmul(input: Any, weight: Any) -> Any:
    if not (_is_lazy(weight) and type(input) is Tensor and input.is_floating_point()):
        return NotImplemented
    codes, scales, layout = weight._codes, weight._scales, weight._layout
    if layout == COLUMNS and codes.dim() == 2 and input.dim() >= 1:
        return apply_linear(input, codes, scales, None)
    if layout == Layout(lead=2, swapped=True) and codes.dim() == 3 and input.dim() == 3:
        return _for_each_expert(input, codes, scales)
    return NotImplemented


def _for_each_expert(input: Tensor, codes: Tensor, scales: Tensor) -> Any:
    """`[E, T, K]` to `[E, T, N]`."""
    experts, rows, features = input.shape
    if experts != codes.shape[0] or features != codes.shape[2]:
        return NotImplemented
    offsets = torch.arange(experts + 1, device=input.device) * rows
    output = grouped_linear(input.reshape(experts * rows, features), codes, scales, None, offsets)
    return output.view(experts, rows, codes.shape[1])


serve(_transpose, Tensor.transpose, torch.transpose, Tensor.swapaxes, torch.swapaxes)
serve(_t, Tensor.t, torch.t, Tensor.T.__get__)  # type: ignore[attr-defined]
serve(_mt, Tensor.mT.__get__)  # type: ignore[attr-defined]
serve(_view, Tensor.view, Tensor.reshape, torch.reshape)
serve(_item, Tensor.__getitem__)
serve(_index_select, Tensor.index_select, torch.index_select)
serve(_matmul, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm)
