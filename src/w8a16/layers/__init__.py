"""Quantized layers: one small file for each kind, and the table that names them all."""

from w8a16.layers import attention_function, weight_views  # imported for what it registers
from w8a16.layers.attention import W8A16MultiheadAttention
from w8a16.layers.base import QuantizedModule
from w8a16.layers.derived import derived_class
from w8a16.layers.embedding import W8A16Embedding, W8A16EmbeddingBag
from w8a16.layers.encoder import adapt_encoders, restore_encoders
from w8a16.layers.experts import W8A16Experts
from w8a16.layers.layout import COLUMNS, ROWS, Layout
from w8a16.layers.linear import W8A16LinearLayer
from w8a16.layers.loading import value_check
from w8a16.layers.memory_format import memory_format_of
from w8a16.layers.parameters import layout_of
from w8a16.layers.quantizing import HeldWeight, quantize_with_layout
from w8a16.layers.table import (
    KINDS,
    PARAMETER,
    LayerKind,
    anchor_of,
    kind_named,
    kind_of_float,
    kind_of_module,
    kind_of_quantized,
    tier_of,
)
from w8a16.layers.tensor_names import held_bytes, int8_names, stored_tensors

__all__ = [
    "COLUMNS",
    "KINDS",
    "PARAMETER",
    "ROWS",
    "HeldWeight",
    "LayerKind",
    "Layout",
    "QuantizedModule",
    "W8A16Embedding",
    "W8A16EmbeddingBag",
    "W8A16Experts",
    "W8A16LinearLayer",
    "W8A16MultiheadAttention",
    "adapt_encoders",
    "anchor_of",
    "attention_function",
    "derived_class",
    "held_bytes",
    "int8_names",
    "kind_named",
    "kind_of_float",
    "kind_of_module",
    "kind_of_quantized",
    "layout_of",
    "memory_format_of",
    "quantize_with_layout",
    "restore_encoders",
    "stored_tensors",
    "tier_of",
    "value_check",
    "weight_views",
]
