"""The way back: int8 modules become the float modules they were, with the dequantized weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from w8a16.convert.tied_names import forget_ties
from w8a16.errors import UsageError
from w8a16.layers import QuantizedModule, memory_format_of, restore_encoders


def dequantize(model: nn.Module) -> nn.Module:
    """Give every int8 module of `model` its float class back, in place.

    The weights are the dequantized ones, `q * s` in the original dtype, not the original weights:
    what rounding lost stays lost. Weights and biases become trainable parameters; tied ones are tied
    again.

    Returns:
        The model itself.

    Example:
        >>> from w8a16.convert import quantize
        >>> dequantize(quantize(nn.Linear(8, 4)))
        Linear(in_features=8, out_features=4, bias=True)
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    # Parameters made in inference mode could never be trained.
    with torch.inference_mode(False), torch.no_grad():
        _restore_all(model)
    forget_ties(model)
    return model


def _restore_all(model: nn.Module) -> None:
    weights: dict[tuple[int, object], tuple[Tensor, nn.Parameter]] = {}
    biases: dict[int, tuple[Tensor, nn.Parameter]] = {}
    restore_encoders(model)
    for module in list(model.modules()):
        if not isinstance(module, QuantizedModule):
            continue
        floats = {}
        for name in module.layouts:
            codes, key = module.codes_of(name), (id(module.codes_of(name)), module.weight_dtype)
            if key not in weights:
                # The int8 tensor is kept with the result: while it lives, its id is unique.
                weight = module.dequantized(name).contiguous(memory_format=memory_format_of(codes))
                weights[key] = (codes, nn.Parameter(weight))
            floats[name] = weights[key][1]
        bias = module._buffers.get("bias") if module.bias_is_buffer else None
        if bias is not None:
            _, parameter = biases.setdefault(id(bias), (bias, nn.Parameter(bias.detach())))
            del module._buffers["bias"]
            module._parameters["bias"] = parameter
        elif module.bias_is_buffer and "bias" in module._buffers:
            del module._buffers["bias"]
            module._parameters["bias"] = None
        module.restore(floats)
