"""Simulated quantizers on float models: what other recipes than this library's would do to a model."""

from w8a16.study.variants.float_rows import FloatRows, float_rows
from w8a16.study.variants.tails import Tails, inject_tails
from w8a16.study.variants.variants import VARIANTS, Variant, apply_variant, flip_rate, variant_bytes

__all__ = [
    "VARIANTS",
    "FloatRows",
    "Tails",
    "Variant",
    "apply_variant",
    "flip_rate",
    "float_rows",
    "inject_tails",
    "variant_bytes",
]
