"""What the `config.json` of an exported folder says: which layers are int8, and which stay float."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

METHOD = "compressed-tensors"
PACKED_FORMAT = "pack-quantized"

_ONE_EXPERT = r".*\.experts\.\d+\."
_EXPERTS = r".*\.experts($|\.\d+\.)"
"""One expert, or all of them as the single layer that servers make of them."""


def quantization_config(
    groups: Mapping[int, Sequence[str]], ignore: Sequence[str], named: Sequence[str] = ()
) -> dict[str, Any]:
    """The `quantization_config` for layers that are held in int8, as compressed-tensors defines it.

    Args:
        groups: names of layers by the elements that share a scale; 0 stands for a whole row.
        ignore: names of the layers that are float.
        named: of the layers those that no reader takes for a `Linear`, such as a head.
    """
    # transformers takes the first group for experts, which are never in groups of elements.
    sizes = sorted(groups)
    described = {}
    for number, size in enumerate(sizes):
        targets = ["Linear", *named] if len(sizes) == 1 else _by_name(groups[size])
        described[f"group_{number}"] = {"targets": targets, "weights": _weights(size)}
    return {
        "quant_method": METHOD,
        "format": PACKED_FORMAT,
        "quantization_status": "compressed",
        "config_groups": described,
        "ignore": sorted(set(ignore)),
        # For transformers: the weights become float while it loads. Else it keeps them packed until the
        # first forward, and the code of many classes asks for `weight` before. It can do so for one group.
        **({"dequantize": True} if len(sizes) == 1 else {}),
    }


def _by_name(layers: Sequence[str]) -> list[str]:
    """Targets without a class: vLLM would prefer that to the names of the layers that it joins."""
    experts = [layer for layer in layers if re.match(_ONE_EXPERT, layer)]
    names = sorted(set(layers) - set(experts))
    return [*names, f"re:{_EXPERTS}"] if experts else names


def _weights(group_size: int) -> dict[str, Any]:
    return {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "group" if group_size else "channel",
        "group_size": group_size or None,
        "dynamic": False,
    }
