"""Tiny configurations that many entries share."""

from __future__ import annotations

VIT = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
}
"""A vision transformer: 16 patches, two layers."""
