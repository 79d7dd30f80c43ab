"""What `layer.weight` is on a quantized layer: the float weight, made only when its values are needed.

Model code reads `layer.weight` for many reasons. Most want to know its dtype, device or shape; some
hand it to `F.linear` or `F.embedding`; some compute with the values; a few write into it. A
`FloatWeight` serves each at its price:

* what can be known without values is answered without values;
* `F.linear`, `F.embedding` and the like use the int8 codes (`weight_views.py`: parts, views, products);
* everything else gets the dequantized weight, an ordinary tensor;
* what is written, into it or into a view of it, is quantized and kept. Multiplying or dividing by a
  number only touches the scales, so it is exact.

It lives as long as the expression that asked for it; the layer itself stores plain tensors. Under
`torch.compile`, export and tracing there is no such object, only the dequantized tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from w8a16.core import Outliers
from w8a16.errors import ModuleError
from w8a16.kernels import apply_embedding, apply_linear, apply_refined_linear
from w8a16.layers.layout import ROWS, Layout
from w8a16.layers.memory_format import memory_format_of
from w8a16.layers.quantizing import dequantize_with_layout
from w8a16.layers.refined import refined_rows
from w8a16.layers.weight_values import watched

if TYPE_CHECKING:
    from w8a16.layers.base import QuantizedModule

_METADATA: set[Any] = {
    *(getattr(Tensor, name).__get__ for name in ("dtype", "device", "shape", "ndim", "requires_grad")),
    *(getattr(Tensor, name).__get__ for name in ("layout", "is_meta", "is_cuda", "is_cpu", "is_sparse")),
    *(getattr(Tensor, name).__get__ for name in ("is_leaf", "grad_fn", "grad", "is_quantized", "is_nested")),
    *(getattr(Tensor, name).__get__ for name in ("itemsize", "nbytes")),
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.element_size, Tensor.is_contiguous),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.get_device, Tensor.__len__, Tensor.__hash__),
    *(torch.is_floating_point, torch.is_complex, torch.numel, Tensor.nelement, Tensor.ndimension),
}
_PLAIN_DATA = Tensor.data.__get__  # type: ignore[attr-defined]
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_SET_REQUIRES_GRAD = Tensor.requires_grad.__set__  # type: ignore[attr-defined]
_INDICES = (torch.int64, torch.int32)
_SCALING = {Tensor.mul_: 1, Tensor.__imul__: 1, Tensor.div_: -1, Tensor.__itruediv__: -1}


class FloatWeight(Tensor):
    """The float weight that `codes * scales` stands for; see the page above."""

    _is_param = True  # `isinstance(weight, nn.Parameter)` holds, as for the weight of the float layer
    _codes: Tensor
    _scales: Tensor
    _layout: Layout
    _outliers: Outliers | None
    _owner: QuantizedModule | None
    _name: str
    _value: Tensor | None
    _version_seen: int
    _base: FloatWeight | None = None
    """For a view: the weight that it is a view of."""
    _view: Callable[[Tensor], Tensor]
    """For a view: how to take it from the values of the base."""
    _is_copy: bool = False
    """Whether what is written stays here, as in a copy of a part."""

    @staticmethod
    def __new__(
        cls,
        codes: Tensor,
        scales: Tensor,
        layout: Layout,
        dtype: torch.dtype,
        owner: QuantizedModule | None = None,
        name: str = "",
        outliers: Outliers | None = None,
    ) -> FloatWeight:
        """Make one for codes and scales; what is written goes to `owner`, under `name`."""
        shape = layout.float_shape(tuple(codes.shape))
        self: FloatWeight = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=codes.device)
        self._codes, self._scales, self._layout = codes, scales, layout
        self._owner, self._name, self._value, self._version_seen = owner, name, None, 0
        self._outliers = outliers
        return self

    def __init__(self, *arguments: Any) -> None:
        """All is done in `__new__`."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer without values, with the codes, or with the dequantized weight."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func in _METADATA:
                return func(*args, **kwargs)
            special = _SPECIAL.get(func)
            if special is not None:
                result = special(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            weights: list[FloatWeight] = []
            result = func(*_with_values(args, weights), **_with_values(kwargs, weights))
            for weight in weights:
                weight._keep_what_was_written()
                result = watched(result, weight)
            # What returns its own argument (`weight.zero_()`, `weight.contiguous()`) returns the weight.
            return next((weight for weight in weights if weight._value is result), result)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """For callers that reach torch's dispatcher directly: the dequantized weight."""
        weights: list[FloatWeight] = []
        result = func(*_with_values(args, weights), **_with_values(kwargs or {}, weights))
        for weight in weights:
            weight._keep_what_was_written()
        return result

    @property
    def _root(self) -> FloatWeight:
        """The weight that holds the values of this one."""
        return self if self._base is None else self._base._root

    @property
    def _is_lazy(self) -> bool:
        """Whether there are only codes yet, which is to say that nothing can have been written."""
        return self._root._value is None

    def _materialize(self) -> Tensor:
        if self._base is not None:
            return self._view(self._base._materialize())
        if self._value is None:
            with torch.inference_mode(False), torch.no_grad():
                values = dequantize_with_layout(
                    self._codes, self._scales, self._layout, self.dtype, self._outliers
                )
                self._value = values.contiguous(memory_format=memory_format_of(self._codes))
            self._version_seen = self._value._version
        return self._value

    def _keep_what_was_written(self) -> None:
        value = self.__dict__.get("_value")
        if value is None or value._version == self._version_seen:
            return
        self._version_seen = value._version
        self._write(value)

    def _write(self, value: Tensor) -> None:
        if self._owner is not None:
            self._owner.write_weight(self._name, value)
        elif not self._is_copy:
            raise ModuleError("a part of an int8 weight cannot be written; write into the whole weight")


def _with_values(values: Any, found: list[FloatWeight]) -> Any:
    """Replace every `FloatWeight` in nested arguments by its values, and list them in `found`."""
    if isinstance(values, FloatWeight):
        found.append(values._root)
        return values._materialize()
    if type(values) in (tuple, list):
        return type(values)(_with_values(value, found) for value in values)
    if isinstance(values, Mapping):
        return {key: _with_values(value, found) for key, value in values.items()}
    return values


# --- what uses the codes, or goes to the layer --------------------------------------------------


def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    if not isinstance(weight, FloatWeight) or type(input) not in (Tensor, torch.nn.Parameter):
        return NotImplemented
    if not input.is_floating_point():
        return NotImplemented
    if isinstance(bias, FloatWeight):
        return NotImplemented
    if weight._layout.refinement is not None and weight._layout.unrefined == ROWS:
        return apply_refined_linear(input, weight._codes, weight._scales, bias, *(weight._outliers or ()))
    if weight._layout != ROWS or weight._codes.dim() != 2:
        return NotImplemented
    return apply_linear(input, weight._codes, weight._scales, bias)


def _embedding(
    input: Any,
    weight: Any,
    padding_idx: Any = None,
    max_norm: Any = None,
    norm_type: Any = 2.0,
    scale_grad_by_freq: Any = False,
    sparse: Any = False,
) -> Any:
    if not isinstance(weight, FloatWeight) or max_norm is not None or input.dtype not in _INDICES:
        return NotImplemented
    if weight._layout.refinement is not None and weight._layout.unrefined == ROWS:
        return refined_rows(
            input, weight._codes, weight._scales, weight._layout, weight.dtype, weight._outliers
        )
    if weight._layout != ROWS or weight._codes.dim() != 2:
        return NotImplemented
    return apply_embedding(input, weight._codes, weight._scales, weight.dtype)


def _scaled(sign: int) -> Callable[..., Any]:
    def scale(weight: Any, factor: Any, **options: Any) -> Any:
        if not isinstance(weight, FloatWeight) or not weight._is_lazy or weight._owner is None:
            return NotImplemented
        if options or isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
            return NotImplemented
        weight._owner.scale_weight(weight._name, float(factor) ** sign)
        return weight

    return scale


def _data(weight: Any, *rest: Any) -> Any:
    return weight if isinstance(weight, FloatWeight) else NotImplemented


def _set_data(weight: Any, value: Any) -> Any:
    if not isinstance(weight, FloatWeight):
        return NotImplemented
    weight._write(value._materialize() if isinstance(value, FloatWeight) else value)
    return None


def _set_requires_grad(weight: Any, value: bool = True) -> Any:
    if value:
        raise ModuleError(
            "int8 weights cannot be trained: dequantize the layer first (w8a16.dequantize), or train an "
            "adapter beside it"
        )
    return weight


def _detach(weight: Any) -> Any:
    return weight if isinstance(weight, FloatWeight) and weight._is_lazy else NotImplemented


_SPECIAL: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    functional.embedding: _embedding,
    _PLAIN_DATA: _data,
    _SET_DATA: _set_data,
    _SET_REQUIRES_GRAD: _set_requires_grad,
    Tensor.requires_grad_: _set_requires_grad,
    Tensor.detach: _detach,
    **{func: _scaled(sign) for func, sign in _SCALING.items()},
}


def serve(special: Callable[..., Any], *funcs: Any) -> None:
    """Let `special` answer calls of these functions; it returns NotImplemented to get the values."""
    _SPECIAL.update(dict.fromkeys(funcs, special))
