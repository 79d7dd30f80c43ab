"""Is a checkpoint quantized already? By w8a16 or another method, told by its config and its tensors.

Quantizing it once more would give a wrong model without an error: packed codes look like any integers,
and fp8 weights lack the scales that lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from w8a16.checkpoint.container.header import Header, TensorInfo
from w8a16.checkpoint.container.printable import shown
from w8a16.checkpoint.container.shards import Shards
from w8a16.checkpoint.manifest import METADATA_KEY
from w8a16.errors import CheckpointError

_FP8 = frozenset(
    {
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.float8_e8m0fnu,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
    }
)
_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint32})


@dataclass(frozen=True)
class _Mark:
    """Tensors that only one method writes: a name's ending, its dtypes, and what lies beside it."""

    method: str
    ending: str
    dtypes: frozenset[torch.dtype]
    beside: tuple[str, ...] = ()
    """Endings with which the same name exists as well."""


# The first that fits names the method, so what is most particular comes first.
_MARKS = (
    _Mark("w8a16", "int8_weights", frozenset({torch.int8}), ("scales",)),
    _Mark("bitsandbytes", ".weight", _INTEGERS, (".weight.absmax",)),
    _Mark("bitsandbytes", ".weight", _INTEGERS, (".SCB",)),
    _Mark("GPTQ", ".qweight", _INTEGERS, (".qzeros", ".g_idx")),
    _Mark("SVDQuant", ".qweight", _INTEGERS, (".wscales",)),
    _Mark("AWQ", ".qweight", _INTEGERS, (".qzeros", ".scales")),
    _Mark("GPTQ", ".qweight", _INTEGERS, (".scales",)),
    _Mark("AQLM", ".codes", _INTEGERS, (".codebooks",)),
    _Mark("EXL2", ".q_weight", _INTEGERS, (".q_scale",)),
    _Mark("EXL3", ".trellis", _INTEGERS, (".suh",)),
    _Mark("HQQ", ".W_q", _INTEGERS),
    _Mark("quanto", ".weight._data", _INTEGERS | _FP8, (".weight._scale",)),
    _Mark("torchao", "._weight_qdata", _INTEGERS | _FP8, ("._weight_scale",)),
    _Mark("compressed-tensors", ".weight_packed", _INTEGERS, (".weight_scale",)),
    _Mark("mxfp4", "_blocks", _INTEGERS, ("_scales",)),
    _Mark("MLX", ".weight", frozenset({torch.uint32}), (".scales",)),
    _Mark("nvfp4", ".weight", frozenset({torch.uint8}), (".weight_scale", ".weight_scale_2")),
    _Mark("an integer format", ".weight", _INTEGERS, (".weight_scale",)),
    _Mark("an integer format", ".weight", _INTEGERS, (".scales",)),
    _Mark("fp8", "", _FP8),
)


def refuse_quantized(shards: Shards, config: Mapping[str, Any] | None = None) -> None:
    """Raise unless the weights are float ones.

    Args:
        shards: the files.
        config: the model's config.json, where there is one.

    Raises:
        CheckpointError: quantized already; names the method, and a tensor that shows it.
    """
    for header in shards.headers:
        if METADATA_KEY in header.metadata:
            raise CheckpointError(f"{shown(header.path)}: already quantized by w8a16; expected float weights")
    method = _configured_method(config or {})
    if method is not None:
        raise CheckpointError(
            f"{shown(shards.path)}: already quantized ({shown(method)}); expected float weights"
        )
    for header in shards.headers:
        _refuse_tensors(header, shards.tensors)


def _configured_method(config: Mapping[str, Any]) -> str | None:
    """What a config says: transformers and diffusers have it under `quantization_config`, MLX has not."""
    mlx = config.get("quantization")
    if isinstance(mlx, dict) and {"bits", "group_size"} <= mlx.keys():
        return "MLX"
    said = config.get("quantization_config")
    if said is None:
        return None
    named = said if isinstance(said, dict) else {}
    if named.get("load_in_8bit") or named.get("load_in_4bit"):
        return "bitsandbytes"
    return str(named.get("quant_method") or named.get("quant_algo") or "unknown method")


def _refuse_tensors(header: Header, everywhere: Mapping[str, TensorInfo]) -> None:
    for mark in _MARKS:
        found = [name for name, info in header.tensors.items() if _fits(mark, name, info, everywhere)]
        if found:
            raise CheckpointError(
                f"{shown(header.path)}: already quantized ({mark.method}: {len(found)} tensors such as "
                f"{shown(found[0])}); expected float weights"
            )


def _fits(mark: _Mark, name: str, info: TensorInfo, everywhere: Mapping[str, TensorInfo]) -> bool:
    if info.dtype not in mark.dtypes or len(info.shape) < 2 or not name.endswith(mark.ending):
        return False
    stem = name[: len(name) - len(mark.ending)]
    return all(stem + ending in everywhere for ending in mark.beside)
