"""Tuner layers that merge with one rounding, and unmerge to the codes that were there before.

peft's own merge would do its arithmetic in the dtype of the model and round after each adapter; its unmerge
computes the way back and rounds again, which leaves other codes than before. Here peft's code runs on the
float layer (`float_base.py`), whatever the method, and only the outcome is rounded. While an adapter is
merged, the codes from before are kept beside it: one byte an element.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.checkpoint.tensors import bytes_of
from w8a16.errors import ModuleError
from w8a16.integrations.peft.float_base import as_float, values_of
from w8a16.integrations.peft.losses import forget_losses, note_losses
from w8a16.kernels.checksum import crc32
from w8a16.layers import QuantizedModule
from w8a16.layers.tensor_names import tensor_names


@dataclass
class Kept:
    """The int8 tensors and the bias of a layer from before its first merge, and a checksum from after it."""

    tensors: dict[str, Tensor]
    bias: Tensor | None
    checksum: int = 0

    @staticmethod
    def of(base: QuantizedModule) -> Kept:
        """What `base` holds: the int8 tensors themselves, and a copy of the bias."""
        bias = getattr(base, "bias", None)
        return Kept(
            {key: base.held(key) for key in _keys(base)}, None if bias is None else bias.detach().clone()
        )

    def put_back(self, base: QuantizedModule) -> None:
        """Let `base` hold all that again: a weight that was tied is tied again."""
        for key, tensor in self.tensors.items():
            device = base.held(key).device
            base.hold(key, tensor if tensor.device == device else tensor.to(device))
        if self.bias is not None:
            bias: Any = base.bias
            bias.data = self.bias.to(bias.device, copy=True)


class KeepsCodes:
    """What `merge` and `unmerge` of every tuner layer become on an int8 base layer."""

    merged_adapters: list[str]
    get_base_layer: Any
    _kept: Kept | None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Merge adapters into the int8 weight: all of them, or none where one fails.

        Raises:
            WeightValueError: the sum has NaN or Inf.
            ModuleError: the base layer is offloaded or sharded.
            ValueError: peft's own, with `safe_merge`.

        Warns:
            W8A16Warning: rounding changes a weight more than the adapter does.
        """
        base = self.get_base_layer()
        if not isinstance(base, QuantizedModule):  # peft merges and unmerges within a merge
            super().merge(safe_merge, adapter_names)  # type: ignore[misc]
            return
        _refuse_elsewhere(base)
        now, names = Kept.of(base), list(self.merged_adapters)
        first = self._codes_from_before(base) if names else now
        before = values_of(base)
        try:
            with as_float(base) as floats:
                super().merge(safe_merge, adapter_names)  # type: ignore[misc]
                exact = {name: getattr(base, name).detach() for name in floats}
            if self.merged_adapters == names:
                return
            _write(base, exact)
        except BaseException:
            self.merged_adapters[:] = names
            now.put_back(base)
            raise
        if now.bias is not None:
            bias: Any = base.bias
            bias.data = bias.data.to(now.bias.dtype)
        self._kept = first
        if first is not None:
            first.checksum = _checksum(base)
        note_losses(base, before, exact, values_of(base))

    def unmerge(self) -> None:
        """Take all merged adapters out again: the codes, scales and bias are those from before, to the bit.

        Raises:
            ModuleError: something else has changed the codes since.
        """
        base = self.get_base_layer()
        if not isinstance(base, QuantizedModule) or not self.merged_adapters:
            super().unmerge()  # type: ignore[misc]
            return
        kept = self._codes_from_before(base)
        if kept is None:
            raise ModuleError(
                f"{type(base).__name__}: cannot unmerge {', '.join(self.merged_adapters)}: the codes have "
                "changed since the merge (weights were loaded, or another method was merged), so those from "
                "before it would be wrong; load the base model again"
            )
        with as_float(base):
            super().unmerge()  # type: ignore[misc]  # for what peft keeps in mind; the weights are dropped
        kept.put_back(base)
        self._kept = None
        forget_losses(base)

    def _codes_from_before(self, base: QuantizedModule) -> Kept | None:
        """What the first merge kept, or None where others have changed the codes since the last one."""
        kept: Kept | None = self.__dict__.get("_kept")
        return kept if kept is not None and kept.checksum == _checksum(base) else None


def keep_codes(layer: Any) -> None:
    """Make a tuner layer of peft one that keeps codes, in place, if what it adapts is int8."""
    if not isinstance(layer, KeepsCodes) and isinstance(layer.get_base_layer(), QuantizedModule):
        cls: Any = type(layer)
        layer.__class__ = _keeping(cls)


@cache
def _keeping(cls: Any) -> Any:
    """`KeepsCodes` in front of a class, under its name: peft compares names."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (KeepsCodes, cls), {**names, "__reduce_ex__": _reduce, "_float_tuner": cls})


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle as usual, but by the class that this one was made from."""
    _, _, *rest = super(type(self), self).__reduce_ex__(max(int(protocol), 2))
    return (_new_instance, (type(self)._float_tuner,), *rest)


def _new_instance(cls: Any) -> Any:
    keeping = _keeping(cls)
    return keeping.__new__(keeping)


def _write(base: QuantizedModule, exact: dict[str, Tensor]) -> None:
    """Into tensors of its own: a tied layer keeps the codes that it has."""
    with torch.inference_mode(False), torch.no_grad():  # adapters can be trained on top afterwards
        for key in _keys(base):
            base.hold(key, base.held(key).detach().clone())
        for name, value in exact.items():
            base.write_weight(name, value)


def _keys(base: QuantizedModule) -> list[str]:
    return [key for name, layout in base.layouts.items() for key in tensor_names(name, layout)]


def _checksum(base: QuantizedModule) -> int:
    result = 0
    for key in _keys(base):
        result = crc32(bytes_of(base.held(key).detach().cpu().contiguous()), result)
    return result


def _refuse_elsewhere(base: QuantizedModule) -> None:
    """Where the layer does not have its tensors itself, what is written into them would be lost."""
    codes = base.codes_of(next(iter(base.layouts)))
    if getattr(getattr(base, "_hf_hook", None), "offload", False) or codes.is_meta:
        where = "offloaded"
    elif type(codes) not in (Tensor, nn.Parameter):
        where = f"sharded ({type(codes).__name__})"
    else:
        return
    raise ModuleError(
        f"{type(base).__name__}: its tensors are {where}, so a merge would be lost; load the model on one "
        "device to merge"
    )
