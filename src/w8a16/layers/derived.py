"""Classes made on the fly: a quantized class for a subclass of a known layer, or for any module.

For a subclass of a known layer the quantized class is put *below* it in the order of inheritance:

    W8A16ScaledEmbedding -> ScaledEmbedding -> W8A16Embedding -> nn.Embedding

so the subclass's own forward runs, and where it calls `super().forward`, that is the int8 one. A module
of a class that is not known keeps its forward, with int8 parameters (`parameters.py`).

The classes are pickled by what they were made from.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from w8a16.layers.base import QuantizedModule
from w8a16.layers.parameters import W8A16Parameters

_DERIVED: dict[Any, type[QuantizedModule]] = {}


def derived_class(
    base: type[QuantizedModule],
    anchor: type[nn.Module],
    float_type: type[nn.Module],
    names: tuple[str, ...],
) -> type[QuantizedModule]:
    """The quantized class for modules of exactly `float_type`, with the float weights `names` in int8.

    Args:
        base: the quantized class of the kind.
        anchor: the class that the kind is for: `float_type` itself, or one that it inherits from.
        float_type: the class of the modules.
        names: the parameters that are int8.

    Raises:
        TypeError: the class does not allow to be inherited from.
    """
    if float_type is base.float_type and set(names) <= set(base.weight_names):
        return base
    return _derive(base, anchor, float_type, tuple(sorted(names)))


def _derive(
    base: type[QuantizedModule],
    anchor: type[nn.Module],
    float_type: type[nn.Module],
    names: tuple[str, ...],
) -> type[QuantizedModule]:
    made_from = (base, anchor, float_type, names)
    if made_from not in _DERIVED:
        _DERIVED[made_from] = _make(*made_from)
    return _DERIVED[made_from]


def _make(
    base: type[QuantizedModule],
    anchor: type[nn.Module],
    float_type: type[nn.Module],
    names: tuple[str, ...],
) -> type[QuantizedModule]:
    bases: tuple[type, ...]
    if issubclass(base, float_type):
        bases = (base,)
    elif float_type is anchor or base is W8A16Parameters:
        bases = (base, float_type)
    else:
        bases = (float_type, derived_class(base, anchor, anchor, ()))
    namespace = {
        "float_type": float_type,
        "weight_names": names,
        "__module__": float_type.__module__,
        "__doc__": f"{float_type.__qualname__} with int8 weights.",
        "__reduce_ex__": _reduce,
        "_derived_from": (base, anchor, float_type, names),
    }
    metaclass: Any = type(float_type)
    return cast(type[QuantizedModule], metaclass(f"W8A16{float_type.__name__}", bases, namespace))


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle as usual, but name the ingredients of the class instead of the class."""
    # A class made from another made class has this function twice in its line.
    own = (vars(cls).get("__reduce_ex__", _reduce) for cls in type(self).__mro__)
    reduce = next(function for function in own if function is not _reduce)
    _, _, *rest = reduce(self, max(int(protocol), 2))
    return (_new_instance, type(self)._derived_from, *rest)


def _new_instance(
    base: type[QuantizedModule],
    anchor: type[nn.Module],
    float_type: type[nn.Module],
    names: tuple[str, ...],
) -> QuantizedModule:
    cls = _derive(base, anchor, float_type, names)
    return cls.__new__(cls)
