"""What could become int8: the weights of every module, each with its kind, its layout and its source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from w8a16.convert.source import (
    WeightSource,
    computed_names,
    effective_weight,
    float_type_of,
    weight_source,
)
from w8a16.layers import (
    PARAMETER,
    LayerKind,
    Layout,
    QuantizedModule,
    held_bytes,
    kind_of_module,
    layout_of,
    tier_of,
)

_RUNS_COMPILED_CODE = (torch.jit.ScriptModule, torch.fx.GraphModule)


@dataclass(frozen=True)
class Candidate:
    """One weight of one module, and how it would be held."""

    module: nn.Module
    name: str
    """The name of the float weight in its module."""
    kind: LayerKind
    layout: Layout
    source: WeightSource

    @property
    def tier(self) -> str:
        """ "compute" or "storage"."""
        return tier_of(float_type_of(self.module), self.kind)


def candidates_of(model: nn.Module) -> list[Candidate]:
    """Every weight of `model` that some kind can hold, each module once."""
    found = []
    for path, module in model.named_modules():
        if "parametrizations" not in path.split("."):
            found += _of_module(module)
    return found


def cannot_change(module: nn.Module) -> str | None:
    """Why no weight of a module can be replaced, whatever its kind: its code does not read attributes."""
    if isinstance(module, _RUNS_COMPILED_CODE):
        return type(module).__name__
    return None


def int8_bytes(shape: tuple[int, ...], layout: Layout) -> int:
    """Bytes of the codes, scales and outliers of a weight with this float shape."""
    return held_bytes(layout, layout.codes_shape(shape))


def _of_module(module: nn.Module) -> list[Candidate]:
    if isinstance(module, (QuantizedModule, *_RUNS_COMPILED_CODE, parametrize.ParametrizationList)):
        return []
    kind = kind_of_module(module)
    layouts = {} if kind is None else kind.quantized_type.find_layouts(module)
    found = []
    for name, layout in layouts.items():
        source = weight_source(module, name)
        if source is not None:
            assert kind is not None
            found.append(Candidate(module, name, kind, layout, source))
    computed = computed_names(module)
    parts = {f"{name}_{part}" for name in computed for part in ("g", "v", "orig")}
    for name in dict.fromkeys([*module._parameters, *computed]):
        if name in parts or name in layouts:
            continue
        source = weight_source(module, name)
        rows = None if source is None else layout_of(effective_weight(module, name))
        if source is not None and rows is not None:
            found.append(Candidate(module, name, PARAMETER, rows, source))
    return found
