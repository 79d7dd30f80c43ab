"""The mean square of every input feature of the linear layers, seen on the way through the float model.

An error in a weight counts by the size of the input that it multiplies. Two features of a layer may
differ by orders of magnitude there, and then so does the worth of their weights' exactness.

Letters: K input features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.compare.running import evaluating, run, without_fast_path
from w8a16.study.variants import FloatRows

_KINDS = ("linear", "transposed_linear")


def input_power(model: nn.Module, weights: Sequence[FloatRows], batches: Sequence[Any]) -> dict[str, Tensor]:
    """Run the float model over the batches; float64 `[K]` by the weight's name.

    Weights whose layer was not called, or is not a linear one, are missing.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    handles = [
        weight.module.register_forward_pre_hook(_adder(weight, sums, counts), with_kwargs=True)
        for weight in weights
        if weight.kind in _KINDS
    ]
    try:
        with evaluating(model), without_fast_path():
            for number, batch in enumerate(batches):
                run(model, batch, "float", number)
    finally:
        for handle in handles:
            handle.remove()
    return {name: sums[name] / count for name, count in counts.items() if count}


def _adder(weight: FloatRows, sums: dict[str, Tensor], counts: dict[str, int]) -> Any:
    columns = weight.shape[1]

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(given, Tensor) and given.dim() and given.shape[-1] == columns and not given.is_nested:
            rows = given.detach().reshape(-1, columns)
            squares = torch.zeros(columns, dtype=torch.float64, device=rows.device)
            for block in rows.split(max(1, (1 << 20) // columns)):
                squares += block.double().square_().sum(0)
            sums[weight.name] = sums[weight.name] + squares if weight.name in sums else squares
            counts[weight.name] = counts.get(weight.name, 0) + len(rows)

    return add
