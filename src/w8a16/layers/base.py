"""What every quantized layer has in common, whatever its kind.

A quantized layer is a subclass of the float layer it stands for. For each weight it holds plain
tensors: int8 codes and float32 scales, registered as buffers, so safetensors, deepcopy, pickle,
pinning, `.to(device)` and `torch.compile` work as for any module. Its layout says how the codes lie.

The conversion changes the class of the module object in place. The object stays the same one, so a
layer that is shared, listed in a plain Python list, hooked, or the root of the model is converted
everywhere at once, with its hooks, attributes and training flag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.core import Outliers, QuantizedWeight
from w8a16.errors import DtypeError, ModuleError, ShapeError
from w8a16.kernels import quantize_weight
from w8a16.layers.float_weight import FloatWeight
from w8a16.layers.layout import ROWS, Layout
from w8a16.layers.loading import check_entries
from w8a16.layers.quantizing import HeldWeight, dequantize_with_layout, quantize_with_layout
from w8a16.layers.tensor_names import codes_name, scales_name, tensor_names

PROBE = "dtype_probe"
"""An empty parameter, see `QuantizedModule.keep_probe`."""


class QuantizedModule(nn.Module):
    """Base of all quantized layers: storage, dtype and device moves, loading, and the way back."""

    float_type: ClassVar[type[nn.Module]]
    """The class that a converted module had, and gets back from `restore`."""
    weight_names: ClassVar[tuple[str, ...]] = ("weight",)
    """The float weights that this class can hold in int8; each becomes a property."""
    bias_is_buffer: ClassVar[bool] = False
    """Whether `bias` is a buffer, as the specification has it for linear layers, or stays what it was."""

    layouts: dict[str, Layout]
    """The weights that are int8, by name, and how their codes lie."""
    weight_dtype: torch.dtype
    """The dtype of the float weights that were quantized; follows `.half()`, `.to(dtype)` and the like."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls.weight_names:
            if not isinstance(getattr(cls, name, None), property):
                setattr(cls, name, _weight_property(name))

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """The weights of the float `module` that this kind holds in int8, and how their codes will lie."""
        return dict.fromkeys(cls.weight_names, ROWS)

    @classmethod
    def why_not(cls, module: nn.Module) -> str | None:
        """Why this kind cannot hold the weights of a float `module`, or None where it can."""
        return None

    @classmethod
    def anchor(cls, float_type: type[nn.Module]) -> type[nn.Module]:
        """For kinds recognised by structure: the class, or one it inherits from, that this kind is for."""
        return float_type

    # --- the weights --------------------------------------------------------------------------

    def codes_of(self, name: str = "weight") -> Tensor:
        """The int8 codes of a weight, in the shape that its layout gives them."""
        return self.held(codes_name(name))

    def scales_of(self, name: str = "weight") -> Tensor:
        """The float32 scales of a weight."""
        return self.held(scales_name(name))

    def outliers_of(self, name: str = "weight") -> Outliers | None:
        """The weights that are kept as floats, or None where the layout has none."""
        if not self.layouts[name].outliers:
            return None
        columns, values = (self.held(key) for key in tensor_names(name, self.layouts[name])[2:])
        return Outliers(columns, values)

    def held(self, key: str) -> Tensor:
        """A tensor of a weight by its name, whether it is a buffer or a frozen Parameter (`frozen.py`)."""
        tensor = self._buffers.get(key)
        if tensor is None:
            tensor = self._parameters[key]
        assert tensor is not None
        return tensor

    def hold(self, key: str, tensor: Tensor) -> None:
        """Hold another tensor under the name `key`, as what is held there now: buffer or Parameter."""
        if key in self._buffers:
            self._buffers[key] = tensor
        else:
            self._parameters[key] = (
                tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
            )

    def dequantized(self, name: str = "weight", dtype: torch.dtype | None = None) -> Tensor:
        """A float weight, `codes * scales` rounded once to `dtype` (default: `weight_dtype`)."""
        codes, scales, layout = self.codes_of(name), self.scales_of(name), self.layouts[name]
        return dequantize_with_layout(
            codes, scales, layout, dtype or self.weight_dtype, self.outliers_of(name)
        )

    def float_weight(self, name: str) -> Any:
        """What `layer.<name>` is: dequantized when its values are asked for, see `FloatWeight`."""
        if name not in self.layouts:
            return self._parameters.get(name)
        codes, scales = self.codes_of(name), self.scales_of(name)
        if (
            torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
            or type(codes) not in (Tensor, nn.Parameter)
        ):
            return self.dequantized(name)
        layout, outliers = self.layouts[name], self.outliers_of(name)
        return FloatWeight(codes, scales, layout, self.weight_dtype, self, name, outliers)

    def write_weight(self, name: str, value: Tensor) -> None:
        """Quantize `value` into a weight, in place: layers that share the int8 tensors see it too.

        Another shape is taken as well, as `parameter.data = value` takes it.
        """
        quantized = quantize_with_layout(value.detach(), self.layouts[name])
        with torch.no_grad():
            for key, new in _tensors(name, self.layouts[name], quantized).items():
                mine = self.held(key)
                if mine.shape == new.shape:
                    mine.copy_(new)
                else:
                    mine.data = new.to(mine.device)

    def scale_weight(self, name: str, factor: float) -> None:
        """Multiply a weight by a positive number: only its scales change, and its outliers."""
        with torch.no_grad():
            self.scales_of(name).mul_(factor)
            outliers = self.outliers_of(name)
            if outliers is not None:
                outliers.values.mul_(factor)

    def share_weight(self, name: str, other: FloatWeight) -> None:
        """Hold the int8 tensors of another layer's weight: what assigning a parameter does, tying them."""
        if other._layout != self.layouts[name]:
            raise ModuleError(
                f"{type(self).__name__}.{name}: cannot share a weight whose codes lie in another way "
                f"({other._layout}, expected {self.layouts[name]})"
            )
        theirs = (other._codes, other._scales, *(other._outliers or ()))
        for key, tensor in zip(tensor_names(name, self.layouts[name]), theirs, strict=True):
            self.hold(key, tensor)

    def quantize(self, weights: Tensor) -> Any:
        """Fill the codes and scales of `weight` from a float weight; returns the layer.

        Args:
            weights: float16, bfloat16, float32 or float64, in the shape of the float layer's weight
                (`[out_features, in_features]` for a linear layer). The `weight` property takes its dtype.

        Raises:
            ShapeError: another shape.
            DtypeError: not a dense float tensor, or one of weight and layer is on the meta device.
            WeightValueError: NaN or Inf, with the count and the first position.
        """
        (name,) = self.layouts
        layout, codes = self.layouts[name], self.codes_of(name)
        flat = layout == ROWS and codes.dim() == 2
        quantized = quantize_weight(weights) if flat else quantize_with_layout(weights, layout)
        if quantized.int8_weights.shape != codes.shape:
            raise ShapeError(
                f"weights: expected {self._shape_words()}{list(layout.float_shape(tuple(codes.shape)))}, "
                f"got {list(weights.shape)}"
            )
        if weights.is_meta != codes.is_meta:
            raise DtypeError(
                f"weights: expected a tensor on {codes.device} for this layer, got one on "
                f"{weights.device}; call layer.to_empty(device=...) to leave the meta device"
            )
        for key, new in _tensors(name, layout, quantized).items():
            self.held(key).copy_(new)
        self.weight_dtype = weights.dtype
        return self

    def _shape_words(self) -> str:
        return ""

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter; a weight that is int8 can only be tied to another int8 weight."""
        weight: Any = param
        if name in self.__dict__.get("layouts", ()):
            if not isinstance(weight, FloatWeight):
                raise ModuleError(self._weight_is_read_only(name))
            self.share_weight(name, weight)
        else:
            super().register_parameter(name, param)

    def _weight_is_read_only(self, name: str = "weight") -> str:
        return (
            f"the {name} of a {type(self).__name__} is read-only: it is computed from {codes_name(name)} and "
            f"{scales_name(name)}; call layer.quantize(new_weight), or w8a16.dequantize(model) to get float "
            "weights back"
        )

    def keep_probe(self) -> None:
        """Hold an empty float parameter, for code that asks parameters for dtype and device.

        It follows `.to()` like any parameter, is never trainable, and is in no state dict.
        """
        codes = next(self.codes_of(name) for name in self.layouts)
        with torch.inference_mode(False):
            empty = torch.empty(0, dtype=self.weight_dtype, device=codes.device)
        self._parameters[PROBE] = nn.Parameter(empty, requires_grad=False)

    # --- conversion ---------------------------------------------------------------------------

    @classmethod
    def adopt(
        cls,
        module: nn.Module,
        weights: Mapping[str, QuantizedWeight | HeldWeight],
        dtype: torch.dtype,
        layouts: Mapping[str, Layout] | None = None,
    ) -> None:
        """Turn the float `module` into this class in place, dropping the float weights that are given.

        The caller has made `module` a plain instance of `float_type` (no parametrization), and has
        turned `bias` into a buffer where `bias_is_buffer` asks for it.
        """
        layouts = cls.find_layouts(module) if layouts is None else layouts
        for name in weights:
            module.__dict__.pop(name, None)
            module._parameters.pop(name, None)
        old_forward = cls.float_type.forward
        module.__class__ = cls
        assert isinstance(module, QuantizedModule)
        module.weight_dtype = dtype
        module.layouts = {name: layouts[name] for name in weights}
        for name, quantized in weights.items():
            for key, tensor in _tensors(name, module.layouts[name], quantized).items():
                module.register_buffer(key, tensor)
        rebind_methods(module, old_forward, cls.forward)

    def restore(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Turn this module back into `float_type` in place, with the given float parameters."""
        quantized_forward, float_type = type(self).forward, self.float_type
        for name, layout in self.layouts.items():
            for key in tensor_names(name, layout):
                self._buffers.pop(key, None)
                self._parameters.pop(key, None)
        self._parameters.pop(PROBE, None)
        del self.__dict__["weight_dtype"], self.__dict__["layouts"]
        self.__class__ = float_type  # type: ignore[assignment]
        others = dict(self._parameters)
        self._parameters.clear()
        self._parameters.update({**weights, **others})  # weights first, as constructors have it
        rebind_methods(self, quantized_forward, float_type.forward)

    # --- nn.Module protocol -------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move codes and scales, but never change their dtype: `.half()` and `.type()` are for the rest.

        Tensors are changed in place (as torch does for parameters), so that tied layers still share
        them afterwards.
        """
        names = [key for name, layout in self.layouts.items() for key in tensor_names(name, layout)]
        protected = {id(self.held(name)) for name in names}

        def guarded(tensor: Tensor) -> Tensor:
            if id(tensor) in protected:
                return _set_data(tensor, _keep_dtype(tensor, fn(tensor)))
            return _set_data(tensor, fn(tensor)) if tensor is self._buffers.get("bias") else fn(tensor)

        device = self.held(names[0]).device
        super()._apply(guarded, recurse)  # type: ignore[no-untyped-call]
        if device.type != "meta" and not self.held(names[0]).is_meta:
            # An empty tensor tells which dtype fn gives to float weights such as the one we stand for.
            probe = torch.empty(0, dtype=self.weight_dtype, device=device)
            self.weight_dtype = fn(probe).dtype
        else:
            self.weight_dtype = _dtype_on_meta(fn, self.weight_dtype)
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.pop(prefix + PROBE, None)

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
        problems = []
        for name, layout in self.layouts.items():
            expected = {key: self.held(key) for key in tensor_names(name, layout)}
            problems += check_entries(type(self).__name__, name, expected, state_dict, prefix)
        if problems:
            error_msgs.extend(problems)
            return
        has_probe = self._parameters.pop(PROBE, None) is not None
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if has_probe:
            self.keep_probe()  # on the device that the codes have now


def _tensors(name: str, layout: Layout, weight: QuantizedWeight | HeldWeight) -> dict[str, Tensor]:
    """The tensors of a weight by the names of their buffers."""
    outliers = weight.outliers if isinstance(weight, HeldWeight) else None
    tensors = (weight.int8_weights, weight.scales, *(outliers or ()))
    return dict(zip(tensor_names(name, layout), tensors, strict=True))


def rebind_methods(module: nn.Module, old: Any, new: Any) -> None:
    """Point instance attributes that hold the bound old `forward` at the new one.

    accelerate, for one, keeps `module._old_forward = module.forward` and calls that.
    """
    for name, value in list(module.__dict__.items()):
        if getattr(value, "__self__", None) is module and getattr(value, "__func__", None) is old:
            module.__dict__[name] = new.__get__(module)


def _weight_property(name: str) -> property:
    def read(self: QuantizedModule) -> Any:
        return self.float_weight(name)

    def write(self: QuantizedModule, value: Any) -> None:
        if name in self.layouts:
            raise ModuleError(self._weight_is_read_only(name))
        self._parameters[name] = value

    return property(read, write, doc=f"The float `{name}`, computed from its codes and scales.")


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
