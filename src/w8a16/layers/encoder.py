"""`nn.TransformerEncoder` around int8 layers: zeros in padded positions, as around float layers.

In evaluation, torch's encoder turns padded sequences into nested tensors for its fused kernels, and the
result has zeros where the padding was. It does so only where all weights of the first layer are plain
tensors. A model that sums or averages over positions relies on those zeros. So with int8 layers, which
work on padded tensors and a mask, the zeros are written where torch would have made them.

The encoder has no weights of its own, so it is no `QuantizedModule`: it is adapted after its layers were
converted, and restored before they are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.layers.base import QuantizedModule, rebind_methods
from w8a16.layers.derived import derived_class


class W8A16TransformerEncoder(nn.TransformerEncoder):
    """An encoder whose layers hold int8 weights."""

    adapted_from: ClassVar[type[nn.Module]] = nn.TransformerEncoder

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """As `nn.TransformerEncoder`."""
        padding = src_key_padding_mask
        if padding is None or mask is not None or not self._would_nest(src, padding):
            return super().forward(src, mask, src_key_padding_mask, is_causal)
        output = src
        for layer in self.layers:
            output = layer(output, is_causal=bool(is_causal), src_key_padding_mask=padding)
        output = output.masked_fill(padding.bool().unsqueeze(-1), 0.0)
        return output if self.norm is None else self.norm(output)

    def _would_nest(self, src: Tensor, padding: Tensor) -> bool:
        """Whether torch would make nested tensors if the first layer's weights were float tensors."""
        first = self.layers[0]
        if src.dim() != 3 or src.is_nested or first.training or not getattr(self, "use_nested_tensor", False):
            return False
        if not torch.backends.mha.get_fastpath_enabled() or torch.is_autocast_enabled():
            return False
        if not any(isinstance(module, QuantizedModule) for module in first.modules()):
            return False  # then torch does it
        if torch.is_grad_enabled() and (
            src.requires_grad or any(parameter.requires_grad for parameter in first.parameters())
        ):
            return False
        if not getattr(self, "mask_check", True):
            return True
        if torch.compiler.is_compiling():
            return False
        aligned: bool = torch._nested_tensor_from_mask_left_aligned(src, padding.logical_not())
        return aligned


def adapt_encoders(model: nn.Module) -> None:
    """Give every encoder of `model` that has int8 layers its int8 class, in place."""
    for module in model.modules():
        is_float = isinstance(module, nn.TransformerEncoder) and not isinstance(
            module, W8A16TransformerEncoder
        )
        if is_float and any(isinstance(part, QuantizedModule) for part in module.modules()):
            _set_class(module, _adapted_class(type(module)))


def restore_encoders(model: nn.Module) -> None:
    """Give every encoder the class back that it had, in place; to be done before its parts are restored."""
    for module in model.modules():
        if isinstance(module, W8A16TransformerEncoder):
            _set_class(module, module.adapted_from)


def _set_class(module: nn.Module, cls: type[nn.Module]) -> None:
    old: Any = type(module).forward
    module.__class__ = cls
    rebind_methods(module, old, cls.forward)


# --- subclasses, and encoders with int8 weights of their own ----------------------------------------


def _adapted_class(cls: type[nn.Module]) -> type[nn.Module]:
    """`cls` with the int8 forward below it, where its own `super().forward` finds it."""
    if cls is nn.TransformerEncoder:
        return W8A16TransformerEncoder
    if cls not in _ADAPTED:
        namespace = {
            "adapted_from": cls,
            "__module__": cls.__module__,
            "__doc__": f"{cls.__qualname__} around int8 layers.",
            "__reduce_ex__": _reduce,
        }
        name = cls.__name__ if issubclass(cls, QuantizedModule) else f"W8A16{cls.__name__}"
        metaclass: Any = type(cls)
        _ADAPTED[cls] = metaclass(name, (cls, W8A16TransformerEncoder), namespace)
    return _ADAPTED[cls]


_ADAPTED: dict[type[nn.Module], type[nn.Module]] = {}


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle as usual, but name what the class was made from, which may be such a class itself."""
    reduced: Any = object.__reduce_ex__(self, max(int(protocol), 2))
    before = type(self).adapted_from
    return (_new_instance, (vars(before).get("_derived_from", before),), *reduced[2:])


def _new_instance(before: Any) -> Any:
    cls = _adapted_class(derived_class(*before) if isinstance(before, tuple) else before)
    return cls.__new__(cls)
