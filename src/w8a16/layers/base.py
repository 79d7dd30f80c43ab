"""What every quantized layer has in common, whatever its kind.

A quantized layer is a subclass of the float layer it stands for. It holds plain tensors:
`int8_weights` (int8 `[N, K]`) and `scales` (float32 `[N]`), registered as buffers, so safetensors,
deepcopy, pickle, pinning, `.to(device)` and `torch.compile` work as for any module.

The conversion changes the class of the module object in place. The object stays the same one, so a
layer that is shared, listed in a plain Python list, hooked, or the root of the model is converted
everywhere at once, with its hooks, attributes and training flag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.core import QuantizedWeight, dequantize_weight
from w8a16.errors import ModuleError
from w8a16.layers.loading import check_entries

CODES, SCALES = "int8_weights", "scales"


class QuantizedModule(nn.Module):
    """Base of all quantized layers: storage, dtype and device moves, loading, and the way back."""

    float_type: ClassVar[type[nn.Module]]
    """The class that a converted module had, and gets back from `restore`."""

    int8_weights: Tensor
    scales: Tensor
    bias: Tensor | None
    weight_dtype: torch.dtype
    """The dtype of the float weight that was quantized; follows `.half()`, `.to(dtype)` and the like."""

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, `[N, K]` in `weight_dtype`, made anew at every access and read-only.

        Model code that looks at `layer.weight`, its dtype or its device keeps working. Writing into
        the returned tensor changes nothing; to change the layer, call `quantize`.
        """
        return dequantize_weight(self.int8_weights, self.scales, self.weight_dtype)

    @weight.setter
    def weight(self, value: Any) -> None:
        raise ModuleError(self._weight_is_read_only())

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; `weight` is taken by the read-only property."""
        if name == "weight":
            raise ModuleError(self._weight_is_read_only())
        super().register_parameter(name, param)

    def _weight_is_read_only(self) -> str:
        return (
            f"the weight of a {type(self).__name__} is read-only: it is computed from int8_weights and "
            "scales; call layer.quantize(new_weight), or w8a16.dequantize(model) to get float weights back"
        )

    @staticmethod
    def stored_tensors(shape: tuple[int, int]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Names, dtypes and shapes of the int8 tensors for a weight `[N, K]`, as files hold them."""
        return {CODES: (torch.int8, shape), SCALES: (torch.float32, shape[:1])}

    # --- conversion ---------------------------------------------------------------------------

    @classmethod
    def adopt(
        cls, module: nn.Module, quantized: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype
    ) -> None:
        """Turn the float `module` into this class in place, dropping its float weight.

        The caller has made `module` a plain instance of `float_type` (no parametrization). `bias` is
        passed so that tied biases can share one tensor; a Parameter (tied to one elsewhere) stays one.
        """
        for name in ("weight", "bias"):
            module._parameters.pop(name, None)
            module.__dict__.pop(name, None)
        old_forward = cls.float_type.forward
        module.__class__ = cls
        assert isinstance(module, QuantizedModule)
        module.weight_dtype = dtype
        module.register_buffer(CODES, quantized.int8_weights)
        module.register_buffer(SCALES, quantized.scales)
        if isinstance(bias, nn.Parameter):
            module.register_parameter("bias", bias)
        else:
            module.register_buffer("bias", bias)
        _rebind_methods(module, old_forward, cls.forward)

    def restore(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        """Turn this module back into `float_type` in place, with the given float parameters."""
        quantized_forward, float_type = type(self).forward, self.float_type
        for name in (CODES, SCALES, "bias"):
            self._buffers.pop(name, None)
        self._parameters.pop("bias", None)  # a caller may have made it trainable
        del self.__dict__["weight_dtype"]
        self.__class__ = float_type  # type: ignore[assignment]
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)
        _rebind_methods(self, quantized_forward, float_type.forward)

    # --- nn.Module protocol -------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move codes and scales, but never change their dtype: `.half()` and `.type()` are for the rest.

        Tensors are changed in place (as torch does for parameters), so that tied layers still share
        them afterwards.
        """
        protected = (id(self.int8_weights), id(self.scales))

        def guarded(tensor: Tensor) -> Tensor:
            if id(tensor) in protected:
                return _set_data(tensor, _keep_dtype(tensor, fn(tensor)))
            return _set_data(tensor, fn(tensor)) if tensor is self._buffers.get("bias") else fn(tensor)

        device = self.int8_weights.device
        super()._apply(guarded, recurse)  # type: ignore[no-untyped-call]
        if device.type != "meta" and not self.int8_weights.is_meta:
            # An empty tensor tells which dtype fn gives to float weights such as the one we stand for.
            probe = torch.empty(0, dtype=self.weight_dtype, device=device)
            self.weight_dtype = fn(probe).dtype
        else:
            self.weight_dtype = _dtype_on_meta(fn, self.weight_dtype)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load after checking dtype, shape and values: torch alone would cast floats into int8 codes."""
        expected = {CODES: self.int8_weights, SCALES: self.scales}
        problems = check_entries(type(self).__name__, expected, state_dict, prefix)
        if problems:
            error_msgs.extend(problems)
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _keep_dtype(before: Tensor, after: Tensor) -> Tensor:
    """`after` where only the device changed; else `before`, exact to the bit, on the device of `after`."""
    return after if after.dtype == before.dtype else before.to(after.device)


def _set_data(tensor: Tensor, value: Tensor) -> Tensor:
    """Put `value` into `tensor` and return it; return `value` itself where torch cannot do that."""
    if value is tensor or not torch._has_compatible_shallow_copy_type(tensor, value):
        return value
    tensor.data = value
    return tensor


def _dtype_on_meta(fn: Callable[[Tensor], Tensor], dtype: torch.dtype) -> torch.dtype:
    """The dtype that `fn` gives to a float tensor, asked of the meta device."""
    try:
        return fn(torch.empty(0, dtype=dtype, device="meta")).dtype
    except NotImplementedError:  # "Cannot copy out of meta tensor": a move, which keeps the dtype
        return dtype


def _rebind_methods(module: nn.Module, old: Any, new: Any) -> None:
    """Point instance attributes that hold the bound old `forward` at the new one.

    accelerate, for one, keeps `module._old_forward = module.forward` and calls that.
    """
    for name, value in list(module.__dict__.items()):
        if getattr(value, "__self__", None) is module and getattr(value, "__func__", None) is old:
            module.__dict__[name] = new.__get__(module)
