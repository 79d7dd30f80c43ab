"""int8 codes that lie as they are: bitsandbytes (LLM.int8), optimum-quanto (qint8), torchao (weight-only).

bitsandbytes   P.weight int8 [N, K]           P.SCB float32 [N]: the largest magnitude, scale times 127
quanto         P.weight._data int8 [N, K]     P.weight._scale [N, 1]
torchao        P._weight_qdata int8 [N, K]    P._weight_scale [N, 1], P._weight_zero_point all zero
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from w8a16.checkpoint import Shards, shown
from w8a16.errors import CheckpointError
from w8a16.integrations.foreign_int8.records import ForeignWeight, Found, read_small, scales_a_row


@dataclass(frozen=True)
class _Format:
    """The names that one library gives the tensors of a layer P; each follows `P`."""

    method: str
    codes: str
    scales: str
    divisor: int = 1
    zero_points: str | None = None
    beside: tuple[str, ...] = ()
    """Tensors that only say how the layer is run."""
    formats: str | None = None
    """A scalar that has to be 0: row by row."""


_FORMATS = (
    _Format(
        "bitsandbytes", ".weight", ".SCB", divisor=127, beside=(".weight_format",), formats=".weight_format"
    ),
    _Format("quanto", ".weight._data", ".weight._scale", beside=(".input_scale", ".output_scale")),
    _Format("torchao", "._weight_qdata", "._weight_scale", zero_points="._weight_zero_point"),
)


def find(shards: Shards) -> Found | None:
    """The int8 weights, or None where the checkpoint is of none of these.

    Raises:
        CheckpointError: codes in another order than row by row, or scales that do not fit them.
    """
    for form in _FORMATS:
        layers = [name.removesuffix(form.codes) for name in shards.tensors if _is_one(shards, form, name)]
        if layers:
            return _found(shards, form, layers)
    return None


def _is_one(shards: Shards, form: _Format, name: str) -> bool:
    if not name.endswith(form.codes):
        return False
    info, layer = shards.tensors[name], name.removesuffix(form.codes)
    return info.dtype == torch.int8 and len(info.shape) == 2 and f"{layer}{form.scales}" in shards.tensors


def _found(shards: Shards, form: _Format, layers: list[str]) -> Found:
    tensors = shards.tensors
    if form.formats is not None:
        _check_order(shards, [f"{layer}{form.formats}" for layer in layers])
    weights, dropped = {}, set()
    for layer in layers:
        codes, scales = f"{layer}{form.codes}", f"{layer}{form.scales}"
        n, k = tensors[codes].shape
        zero_points = f"{layer}{form.zero_points}" if form.zero_points else ""
        weights[f"{layer}.weight"] = ForeignWeight(
            codes,
            False,
            (n, k),
            scales,
            scales_a_row(shards, scales, (n, k), layer),
            form.divisor,
            zero_points if zero_points in tensors else None,
        )
        dropped |= {scales, zero_points, *(f"{layer}{ending}" for ending in form.beside)}
    activations = [name for name in dropped if name.endswith((".input_scale", ".output_scale"))]
    return Found(form.method, weights, frozenset(dropped & tensors.keys()), _notes(shards, activations))


def _check_order(shards: Shards, names: list[str]) -> None:
    """bitsandbytes once stored codes in the order of its kernels; 0 stands for row by row."""
    for name, value in read_small(shards, [name for name in names if name in shards.tensors]).items():
        if value.numel() != 1 or int(value) != 0:
            raise CheckpointError(
                f"{shown(name)}: codes in the order of a kernel ({value.tolist()}); expected 0, row by row"
            )


def _notes(shards: Shards, names: list[str]) -> tuple[str, ...]:
    """quanto stores a scale of 1 where activations are float."""
    values = read_small(shards, [name for name in names if name in shards.tensors])
    quantized = [name for name, value in values.items() if value.numel() != 1 or float(value) != 1.0]
    return ("activations are quantized in the source; here they stay float",) if quantized else ()
