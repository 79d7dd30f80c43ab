"""What the `config.json` of an exported folder says: which layers are int8, and which stay float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

METHOD = "compressed-tensors"
PACKED_FORMAT = "pack-quantized"


def quantization_config(groups: Mapping[int, Sequence[str]], ignore: Sequence[str]) -> dict[str, Any]:
    """The `quantization_config` for layers that are held in int8, as compressed-tensors defines it.

    Args:
        groups: names of layers by the elements that share a scale; 0 stands for a whole row. The one with
            the most layers targets every `Linear`, so that names of fused layers match it, too; the others
            name their layers, which readers prefer to a class.
        ignore: names of the `Linear` layers that are float.
    """
    by_count = sorted(groups, key=lambda size: (-len(groups[size]), size))
    described = {}
    for number, size in enumerate(by_count):
        targets = ["Linear"] if number == 0 else sorted(groups[size])
        described[f"group_{number}"] = {"targets": targets, "weights": _weights(size)}
    return {
        "quant_method": METHOD,
        "format": PACKED_FORMAT,
        "quantization_status": "compressed",
        "config_groups": described,
        "ignore": sorted(set(ignore)),
    }


def _weights(group_size: int) -> dict[str, Any]:
    return {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "group" if group_size else "channel",
        "group_size": group_size or None,
        "dynamic": False,
    }
