"""The error of each quantized weight against the float weight it came from."""

from __future__ import annotations

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
    shape: tuple[int, int]
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
        if not isinstance(module, QuantizedModule):
            continue
        counterpart = counterparts.get(path)
        if counterpart is None or not isinstance(getattr(counterpart, "weight", None), Tensor):
            raise ModuleError(f"{path}: no counterpart with a weight in the reference")
        original = effective_weight(counterpart)
        rows, columns = module.int8_weights.shape
        if original.shape != module.int8_weights.shape:
            raise ModuleError(f"{path}: expected a weight [{rows}, {columns}], got {list(original.shape)}")
        restored = dequantize_weight(module.int8_weights, module.scales)
        steps = error_in_half_steps(original, module.int8_weights, module.scales)
        largest = float(steps.max()) if steps.numel() else 0.0
        errors.append(WeightError(path, (rows, columns), sqnr_db(original, restored), largest))
    return sorted(errors, key=lambda error: error.sqnr_db)
