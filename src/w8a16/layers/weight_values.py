"""Views of a weight's dequantized values, through which model code may write into the weight.

`layer.weight[1:]` is a view of values that were dequantized for it. Into a float layer's weight one can
write through it, and through a view of it, at any time; so each of them looks, after all that is done
with it, whether the values changed, and has them quantized if they did.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from w8a16.layers.float_weight import FloatWeight


class WeightValues(Tensor):
    """A view of a weight's values; what is written into it is kept at once. A copy is an ordinary tensor."""

    _weight: FloatWeight

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do as an ordinary tensor does, then look whether it was written into."""
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            for view in tree_leaves((args, kwargs)):
                if isinstance(view, WeightValues):
                    view._weight._keep_what_was_written()
                    result = watched(result, view._weight)
            return result

    def _plain(self) -> Tensor:
        """The same memory as an ordinary tensor; a Parameter where somebody made one of the view."""
        with torch._C.DisableTorchFunctionSubclass():
            plain = self.detach().as_subclass(Tensor)
            return nn.Parameter(plain, self.requires_grad) if isinstance(self, nn.Parameter) else plain

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._plain().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Tensor:
        copied: Tensor = copy.deepcopy(self._plain(), memo)
        return copied

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return repr(self._plain())


def watched(result: Any, weight: FloatWeight) -> Any:
    """`result`, with every view of the weight's values in it as one that is watched."""
    if type(result) in (tuple, list):
        return type(result)(watched(part, weight) for part in result)
    value = weight._value
    if type(result) is Tensor and result is not value and value is not None and _same_memory(result, value):
        view = result.as_subclass(WeightValues)
        view._weight = weight
        return view
    return result


def _same_memory(tensor: Tensor, other: Tensor) -> bool:
    try:
        return tensor.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, fake and functional tensors have none
        return False
