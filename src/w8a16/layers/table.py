"""The one table of layer kinds: which float class becomes which quantized class.

To add a kind, write one small file with a `QuantizedModule` and add a row here;
docs/adding-a-layer-kind.md shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from w8a16.layers.base import QuantizedModule
from w8a16.layers.linear import W8A16LinearLayer


@dataclass(frozen=True)
class LayerKind:
    """One row: a float class and how its weights are held in int8."""

    name: str
    float_type: type[nn.Module]
    quantized_type: type[QuantizedModule]
    tier: str
    """"compute": a kernel uses the int8 codes directly; "storage": dequantized on use."""


KINDS: tuple[LayerKind, ...] = (LayerKind("linear", nn.Linear, W8A16LinearLayer, "compute"),)

_BY_FLOAT_TYPE = {kind.float_type: kind for kind in KINDS}
_BY_NAME = {kind.name: kind for kind in KINDS}
_BY_QUANTIZED_TYPE: dict[type[nn.Module], LayerKind] = {kind.quantized_type: kind for kind in KINDS}


def kind_of_float(float_type: type[nn.Module]) -> LayerKind | None:
    """The kind that converts exactly this class; a subclass may compute something else."""
    return _BY_FLOAT_TYPE.get(float_type)


def kind_of_quantized(module: nn.Module) -> LayerKind | None:
    """The kind of a module that is already quantized."""
    return _BY_QUANTIZED_TYPE.get(type(module))


def kind_named(name: str) -> LayerKind | None:
    """The kind with this name, as manifests record it."""
    return _BY_NAME.get(name)
