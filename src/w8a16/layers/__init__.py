"""Quantized layers: one small file for each kind, and the table that names them all."""

from w8a16.layers.base import QuantizedModule
from w8a16.layers.linear import W8A16LinearLayer
from w8a16.layers.loading import entry_problem, scale_problem
from w8a16.layers.table import KINDS, LayerKind, kind_named, kind_of_float, kind_of_quantized

__all__ = [
    "KINDS",
    "LayerKind",
    "QuantizedModule",
    "W8A16LinearLayer",
    "entry_problem",
    "kind_named",
    "kind_of_float",
    "kind_of_quantized",
    "scale_problem",
]
