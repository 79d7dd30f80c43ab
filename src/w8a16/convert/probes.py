"""Modules that would be left without any parameter keep an empty one, of the right dtype and device.

Model code asks `next(self.parameters()).dtype` to learn in what dtype and where a part of it computes.
Where every weight of that part became int8, and so a buffer, the question would raise StopIteration,
and the dtype of a buffer would be a wrong answer. One quantized layer inside such a part then carries
an empty float parameter (`QuantizedModule.keep_probe`), which follows `.to()` and is in no state dict.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from w8a16.layers import QuantizedModule


@contextmanager
def keeping_parameters(model: nn.Module) -> Iterator[None]:
    """Convert inside the block; afterwards every container that had parameters still has one."""
    containers = [module for module in model.modules() if _has_children(module)]
    had = [module for module in containers if next(module.parameters(), None) is not None]
    yield
    for module in reversed(had):  # inner parts first: what they keep serves the outer ones too
        if next(module.parameters(), None) is None:
            layer = next(m for m in module.modules() if isinstance(m, QuantizedModule))
            layer.keep_probe()


def _has_children(module: nn.Module) -> bool:
    """Whether there are parts other than the machinery of parametrizations, which goes."""
    return any(name != "parametrizations" for name, _ in module.named_children())
