"""The error of each quantized weight against the float weight it came from, and why it is as large as it is.

The step of a row is set by its largest weight. So what 8 bits cost a row is how far its largest weight
is from its typical one: its tail. Letters: R rows (output channels), K what a row is summed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from w8a16.convert import effective_weight
from w8a16.errors import ModuleError
from w8a16.layers import QuantizedModule
from w8a16.study.metrics.tails import crest_factor, kurtosis

_BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class WeightError:
    """The error of one weight, and the tails of its rows."""

    name: str
    shape: tuple[int, ...]
    sqnr_db: float
    """Of the whole weight, in decibels; 41 to 42 for Gaussian weights with 1,000 to 4,000 inputs."""
    largest_half_steps: float
    """Largest `|w - q s| / (s / 2)`; the law allows `1 + 2**-15`."""
    kurtosis: float
    """`mean(w^4) / mean(w^2)^2` of the median row: 1.8 uniform, 3 Gaussian, more with heavy tails."""
    crest_factor: float
    """`max|w| / rms(w)` of the median row: 1.7 uniform, 3 to 4 Gaussian. Each doubling costs 6 dB."""
    worst_row: int
    """The row with the lowest SQNR: the index of an output channel (experts one after another)."""
    worst_row_sqnr_db: float
    worst_row_crest_factor: float


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
            original = effective_weight(counterpart, name)
            errors.append(weight_error(weight_label(path, name), module, name, original))
    return sorted(errors, key=lambda error: error.sqnr_db)


def weight_label(path: str, name: str) -> str:
    """How a weight is called: by its module alone where it is the plain `weight` of it.

    Example:
        >>> weight_label("encoder.query", "weight"), weight_label("lstm", "weight_ih_l0")
        ('encoder.query', 'lstm.weight_ih_l0')
    """
    return path if name == "weight" else f"{path}.{name}" if path else name


def weight_error(label: str, module: QuantizedModule, name: str, original: Tensor) -> WeightError:
    """The error of one weight of an int8 module, in float64, block by block.

    Raises:
        ModuleError: `original` has another shape than the int8 weight stands for.
    """
    expected = module.layouts[name].float_shape(tuple(module.codes_of(name).shape))
    if tuple(original.shape) != expected:
        raise ModuleError(f"{label}: expected a {name} {list(expected)}, got {list(original.shape)}")
    blocks = [_row_figures(*block) for block in _blocks(module, name, original.detach())]
    rows = torch.cat(blocks) if blocks else torch.zeros((0, 5), dtype=torch.float64)
    signal, noise, steps, tails, crests = rows.unbind(1)
    worst = int((noise / signal).nan_to_num(nan=0.0).argmax()) if len(rows) else 0
    return WeightError(
        name=label,
        shape=expected,
        sqnr_db=_decibels(float(signal.sum()), float(noise.sum())),
        largest_half_steps=float(steps.max()) if len(rows) else 0.0,
        kurtosis=float(tails.nanmedian()) if len(rows) else math.nan,
        crest_factor=float(crests.nanmedian()) if len(rows) else math.nan,
        worst_row=worst,
        worst_row_sqnr_db=_decibels(float(signal[worst]), float(noise[worst])) if len(rows) else math.inf,
        worst_row_crest_factor=float(crests[worst]) if len(rows) else math.nan,
    )


def _blocks(module: QuantizedModule, name: str, original: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """In float64, block by block: weights `[r, K]`, what their codes stand for `[r, K]`, scales `[r, G]`."""
    layout, codes = module.layouts[name], module.codes_of(name)
    rows_layout, outliers = layout.unrefined, module.outliers_of(name)
    rows = math.prod(rows_layout.scales_shape(rows_layout.codes_shape(tuple(original.shape))))
    if codes.numel() == 0:
        return
    floats = rows_layout.codes_of(original).reshape(rows, -1)
    scales = module.scales_of(name).reshape(rows, -1)
    flat = codes.reshape(rows, scales.shape[1], -1)
    count = max(1, _BLOCK_ELEMENTS // floats.shape[1])
    for start in range(0, rows, count):
        part = slice(start, start + count)
        steps = scales[part].double()
        restored = (flat[part].double() * steps.unsqueeze(-1)).flatten(1)
        if outliers is not None:
            restored.scatter_(1, outliers.columns[part].long(), outliers.values[part].double())
        yield floats[part].double(), restored, steps


def _row_figures(weights: Tensor, restored: Tensor, scales: Tensor) -> Tensor:
    """Signal, noise, largest error in half-steps, kurtosis and crest factor of each row: float64 `[r, 5]`."""
    error = weights - restored
    steps = error.abs().reshape(*scales.shape, -1).amax(-1) / (scales / 2)
    figures = (
        weights.square().sum(1),
        error.square().sum(1),
        steps.amax(1),
        kurtosis(weights),
        crest_factor(weights),
    )
    return torch.stack(figures, dim=1)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
