"""The error of each quantized weight against the float weight it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from w8a16.convert import effective_weight
from w8a16.core import dequantize_weight, error_in_half_steps
from w8a16.errors import ModuleError
from w8a16.layers import QuantizedModule
from w8a16.study.metrics import sqnr_db


@dataclass(frozen=True)
class WeightError:
    """The error of one weight."""

    name: str
    shape: tuple[int, ...]
    sqnr_db: float
    """Of the whole weight, in decibels; 41 to 42 for Gaussian weights with 1,000 to 4,000 inputs."""
    largest_half_steps: float
    """Largest `|w - q s| / (s / 2)`; the law allows `1 + 2**-15`."""


def weight_errors(reference: nn.Module, quantized: nn.Module) -> list[WeightError]:
    """Compare every int8 weight with its float weight; the worst SQNR first.

    Args:
        reference: the float model.
        quantized: the same model, quantized.

    Raises:
        ModuleError: a quantized module has no counterpart with a weight of the same shape.
    """
    counterparts = dict(reference.named_modules(remove_duplicate=False))
    errors = []
    for path, module in quantized.named_modules():
        for name in module.layouts if isinstance(module, QuantizedModule) else ():
            counterpart = counterparts.get(path)
            if counterpart is None or not isinstance(getattr(counterpart, name, None), Tensor):
                raise ModuleError(f"{path}: no counterpart with a {name} in the reference")
            shown = path if name == "weight" else f"{path}.{name}" if path else name
            errors.append(_error(shown, module, name, effective_weight(counterpart, name).detach()))
    return sorted(errors, key=lambda error: error.sqnr_db)


def _error(path: str, module: QuantizedModule, name: str, original: Tensor) -> WeightError:
    layout, codes = module.layouts[name], module.codes_of(name)
    expected = layout.float_shape(tuple(codes.shape))
    if tuple(original.shape) != expected:
        raise ModuleError(f"{path}: expected a {name} {list(expected)}, got {list(original.shape)}")
    rows = math.prod(layout.scales_shape(tuple(codes.shape)))
    flat, scales = codes.reshape(rows, -1) if codes.numel() else codes.flatten(1), module.scales_of(name)
    floats = layout.codes_of(original).reshape(flat.shape)
    restored = dequantize_weight(flat, scales.reshape(-1))
    steps = error_in_half_steps(floats, flat, scales.reshape(-1))
    largest = float(steps.max()) if steps.numel() else 0.0
    return WeightError(path, expected, sqnr_db(floats, restored), largest)
