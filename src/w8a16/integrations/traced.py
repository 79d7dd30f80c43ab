"""Tensors without values that remember which stored tensors they were made of.

A library that loads a checkpoint renames, stacks, joins, splits and turns tensors. Given these tensors
in place of real ones, its own loading code says where every value would have come from, whatever its
rules are, and reads none. What cannot be followed (arithmetic, a scattered order) is remembered as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from w8a16.checkpoint.container.header import TensorInfo
from w8a16.checkpoint.skeleton import Piece
from w8a16.integrations import boxes as geometry
from w8a16.integrations.boxes import Boxes, NotFollowed

_ATEN = torch.ops.aten
_CPU = torch.device("cpu")


class Ledger:
    """What is common to the tensors of one checkpoint."""

    def __init__(
        self, tensors: dict[str, TensorInfo], same_values: Callable[[str, str], bool] | None = None
    ) -> None:
        self.tensors = tensors
        self.used: set[str] = set()
        """Stored tensors that something was done with."""
        self.copies: dict[str, str] = {}
        """Stored tensors found equal to another one, with the name of that."""
        self._same_values = same_values

    def state(self) -> dict[str, Tensor]:
        """A tensor for every stored one."""
        return {
            name: Traced.made(torch.empty(info.shape, dtype=info.dtype, device="meta"), self, whole)
            for name, info in self.tensors.items()
            for whole in [geometry.whole(name, info.shape)]
        }

    def pieces(self, tensor: Traced) -> tuple[Piece, ...]:
        """What a tensor was made of.

        Raises:
            NotFollowed: in a way that pieces do not express; the text says how.
        """
        if tensor.why is not None:
            raise NotFollowed(tensor.why)
        if len({self.tensors[box.tensor].dtype for box in tensor.boxes}) > 1:
            raise NotFollowed("tensors of several dtypes")
        made = tuple(tensor.shape)
        try:
            return tuple(geometry.piece_of(box, self.tensors[box.tensor].shape, made) for box in tensor.boxes)
        except NotFollowed as error:
            raise NotFollowed("parts of stored tensors that are not whole rows") from error

    def are_equal(self, one: Tensor, other: Tensor) -> bool:
        """Whether two tensors have the same values: whole stored ones only, which are read for it."""
        names = [_stored_as(tensor) for tensor in (one, other)]
        first, second = names
        if first is None or second is None or self._same_values is None:
            return False
        equal = first == second or self._same_values(first, second)
        if equal and first != second:
            self.copies[second] = first
        return equal


class Traced(Tensor):
    """A tensor without values, made of `boxes`; or, where that is not known, by an operation `why`."""

    boxes: Boxes
    why: str | None
    ledger: Ledger

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def made(cls, like: Tensor, ledger: Ledger, boxes: Boxes = (), why: str | None = None) -> Traced:
        """One with the shape and the dtype of `like`."""
        # It says that it lies on the CPU, so that nobody moves it there or thinks that it was not loaded.
        made: Traced = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=_CPU)
        made.ledger, made.boxes, made.why = ledger, boxes, why
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do an operation to the boxes."""
        traced = [tensor for arg in args for tensor in _listed(arg) if isinstance(tensor, cls)]
        ledger = traced[0].ledger
        if func is _ATEN.equal.default:
            return ledger.are_equal(args[0], args[1])
        for tensor in traced:
            ledger.used.update(box.tensor for box in tensor.boxes)
        if func._schema.is_mutable:
            for tensor in traced:
                tensor.boxes, tensor.why = (), _name(func)
            return args[0]
        results = _on_meta(func, args, kwargs or {})
        outputs = list(results) if isinstance(results, (list, tuple)) else [results]
        why = next((tensor.why for tensor in traced if tensor.why is not None), None)
        origins = None if why is not None else _follow(func, args, outputs)
        if origins is None:
            made = [cls.made(output, ledger, (), why or _name(func)) for output in outputs]
        else:
            made = [cls.made(output, ledger, boxes) for output, boxes in zip(outputs, origins, strict=True)]
        return made if isinstance(results, (list, tuple)) else made[0]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Traced({list(self.shape)}, {self.why or self.boxes})"


def _stored_as(tensor: Tensor) -> str | None:
    """The stored tensor that this one is, as a whole."""
    if not isinstance(tensor, Traced) or len(tensor.boxes) != 1:
        return None
    box = tensor.boxes[0]
    return (
        box.tensor if (box,) == geometry.whole(box.tensor, tensor.ledger.tensors[box.tensor].shape) else None
    )


def _listed(argument: Any) -> list[Any]:
    return list(argument) if isinstance(argument, (list, tuple)) else [argument]


def _name(func: Any) -> str:
    return str(func.overloadpacket).rpartition(".")[2]


def _on_meta(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same operation on tensors without values, for the shapes of its results."""
    kwargs = {**kwargs, "device": "meta"} if "device" in kwargs else kwargs
    empty = tree_map_only(
        Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device="meta"), (args, kwargs)
    )
    return func(*empty[0], **empty[1])


def _follow(func: Any, args: tuple[Any, ...], outputs: list[Any]) -> list[Boxes] | None:
    rule = _RULES.get(_name(func))
    if rule is None or not all(isinstance(output, Tensor) for output in outputs):
        return None
    try:
        return rule(args, outputs)
    except NotFollowed:
        return None


def _same(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    return [args[0].boxes]


def _viewed(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    return [geometry.view(args[0].boxes, tuple(args[0].shape), tuple(outputs[0].shape))]


def _joined(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    parts = [(_boxes(tensor), tuple(tensor.shape)) for tensor in args[0]]
    return [geometry.join(parts, _dimension(args, 1, outputs[0].dim()))]


def _stacked(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    dimension = _dimension(args, 1, outputs[0].dim())
    parts = [
        (
            geometry.insert(_boxes(tensor), dimension),
            (*tensor.shape[:dimension], 1, *tensor.shape[dimension:]),
        )
        for tensor in args[0]
    ]
    return [geometry.join(parts, dimension)]


def _split(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    dimension = _dimension(args, 2, args[0].dim())
    found, begin = [], 0
    for output in outputs:
        end = begin + output.shape[dimension]
        found.append(geometry.cut(args[0].boxes, dimension, begin, end))
        begin = end
    return found


def _sliced(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    tensor, dimension = args[0], _dimension(args, 1, args[0].dim())
    begin, _, step = slice(*args[2:5]).indices(tensor.shape[dimension])
    if step != 1:
        raise NotFollowed
    return [geometry.cut(tensor.boxes, dimension, begin, begin + outputs[0].shape[dimension])]


def _selected(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    tensor, dimension = args[0], _dimension(args, 1, args[0].dim())
    index = args[2] % tensor.shape[dimension]
    return [geometry.drop(geometry.cut(tensor.boxes, dimension, index, index + 1), dimension)]


def _unbound(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    tensor, dimension = args[0], _dimension(args, 1, args[0].dim())
    cuts = [geometry.cut(tensor.boxes, dimension, i, i + 1) for i in range(len(outputs))]
    return [geometry.drop(cut, dimension) for cut in cuts]


def _transposed(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    order = list(range(args[0].dim()))
    first, second = (args[1] % len(order), args[2] % len(order)) if len(args) > 1 else (0, len(order) - 1)
    order[first], order[second] = order[second], order[first]
    return [geometry.permute(args[0].boxes, order)]


def _permuted(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    return [geometry.permute(args[0].boxes, [dimension % args[0].dim() for dimension in args[1]])]


def _squeezed(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    tensor = args[0]
    asked = args[1] if len(args) > 1 else list(range(tensor.dim()))
    dimensions = {dimension % tensor.dim() for dimension in _listed(asked)}
    gone = [dimension for dimension in dimensions if tensor.shape[dimension] == 1]
    try:
        return _viewed(args, outputs)
    except NotFollowed:
        boxes = tensor.boxes
        for dimension in sorted(gone, reverse=True):
            boxes = geometry.drop(boxes, dimension)
        return [boxes]


def _unsqueezed(args: tuple[Any, ...], outputs: list[Tensor]) -> list[Boxes]:
    return [geometry.insert(args[0].boxes, _dimension(args, 1, outputs[0].dim()))]


def _boxes(tensor: Any) -> Boxes:
    if not isinstance(tensor, Traced):
        raise NotFollowed  # values from elsewhere
    return tensor.boxes


def _dimension(args: tuple[Any, ...], position: int, dimensions: int) -> int:
    dimension: int = args[position] if len(args) > position else 0
    return dimension % dimensions


_RULES: dict[str, Callable[[tuple[Any, ...], list[Tensor]], list[Boxes]]] = {
    **dict.fromkeys(("alias", "detach", "clone", "_to_copy", "contiguous", "lift_fresh"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias"), _viewed),
    "cat": _joined,
    "stack": _stacked,
    **dict.fromkeys(("split", "split_with_sizes", "split_copy", "split_with_sizes_copy"), _split),
    "slice": _sliced,
    "select": _selected,
    "unbind": _unbound,
    **dict.fromkeys(("transpose", "t"), _transposed),
    "permute": _permuted,
    "squeeze": _squeezed,
    "unsqueeze": _unsqueezed,
}
"""For each operation of torch, what becomes of the boxes."""
