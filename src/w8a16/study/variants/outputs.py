"""Run a model on one batch of any form, and find the float tensors among what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


def call(model: nn.Module, batch: Any) -> Any:
    """Run the model without gradients: a mapping gives keywords, a tuple or list positional arguments."""
    with torch.no_grad():
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def float_tensors(outputs: Any) -> list[Tensor]:
    """The float tensors in outputs of any nesting, in order."""
    if isinstance(outputs, Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, Mapping):
        parts = list(outputs.values())
    elif isinstance(outputs, (tuple, list)):
        parts = list(outputs)
    elif is_dataclass(outputs):
        parts = [getattr(outputs, field.name) for field in fields(outputs)]
    else:
        return []
    return [tensor for part in parts for tensor in float_tensors(part)]
