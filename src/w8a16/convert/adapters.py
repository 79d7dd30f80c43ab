"""Which parameters belong to an adapter: they are there to be trained, and int8 weights are not."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def adapter_part(name: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The part of an adapter that the parameter `name` belongs to ("lora_A"), or None.

    peft's layers say in `adapter_layer_names` which of their attributes are the adapter's.

    Args:
        name: the full name of a parameter.
        modules: all modules of the model by their paths.
    """
    parts = name.split(".")
    for end, part in enumerate(parts):
        names = getattr(modules.get(".".join(parts[:end])), "adapter_layer_names", ())
        if isinstance(names, tuple) and part in names:
            return part
    return None
