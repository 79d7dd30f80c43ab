"""Which layer a report shows the weights of: the one whose weight lost most."""

from __future__ import annotations

from torch import nn

from w8a16.layers import QuantizedModule
from w8a16.study.compare import Comparison, WeightSource
from w8a16.study.compare.units import weights_of
from w8a16.study.metrics import weight_label
from w8a16.study.report.histogram import WorstLayer, worst_layer


def worst_layer_of(
    comparison: Comparison, quantized: nn.Module, weights: WeightSource | nn.Module
) -> WorstLayer | None:
    """Count the weights and codes of the layer whose weight has the lowest SQNR.

    Args:
        comparison: of `quantized` with its float model.
        quantized: the int8 model.
        weights: the float model, or full names of float weights to their values; one is asked for.

    Returns:
        None where the comparison has no errors of weights, or none of this model.

    Example:
        >>> import copy, torch, w8a16
        >>> from w8a16.study.compare import compare
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
        >>> quantized = w8a16.quantize(copy.deepcopy(model))
        >>> found = worst_layer_of(compare(model, quantized, [torch.randn(5, 64)]), quantized, model)
        >>> found.name in ("0", "2")
        True
    """
    source = weights_of(weights) if isinstance(weights, nn.Module) else weights
    errors = [module.weight for module in comparison.modules if module.weight is not None]
    for error in sorted(errors, key=lambda error: error.sqnr_db):
        found = _find(quantized, error.name)
        if found is not None:
            path, module, name = found
            values = source(f"{path}.{name}" if path else name)
            return worst_layer(error.name, values, module.codes_of(name))
    return None


def _find(model: nn.Module, label: str) -> tuple[str, QuantizedModule, str] | None:
    for path, module in model.named_modules(remove_duplicate=False):
        for name in module.layouts if isinstance(module, QuantizedModule) else ():
            if weight_label(path, name) == label:
                return path, module, name
    return None
