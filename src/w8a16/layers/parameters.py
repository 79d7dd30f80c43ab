"""Parameters of modules that no other kind knows: position tables, projections, experts.

The module keeps its class's forward. Where that reads the parameter, it gets the float weight that the
codes stand for (`float_weight.py`), dequantized when its values are needed.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import Layout, rows_of_last_dimension


class W8A16Parameters(QuantizedModule):
    """A module of any class, some of whose parameters are held in int8."""

    float_type: ClassVar[type[nn.Module]] = nn.Module
    weight_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """Every parameter of two or more dimensions, with a scale for each row of its last one."""
        return {
            name: layout for name, p in module._parameters.items() if (layout := layout_of(p)) is not None
        }


def layout_of(parameter: Tensor | None) -> Layout | None:
    """A scale for each row along the last dimension; None for what has no rows."""
    if parameter is None or is_lazy(parameter) or parameter.dim() < 2:
        return None
    return rows_of_last_dimension(parameter.dim())
