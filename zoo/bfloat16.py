"""The check in bfloat16, where every activation is rounded to eight bits.

The quantized model and its bfloat16 twin round at different places. Both are draws of the same
rounding noise around the exact result, which the twin in float32 gives. So ours must be about as
close to it as the twin is.

The noise of one row (a token, a line of a picture) is a random number; what is compared is the median
over all rows of several inputs. A router or a threshold that tips over in one of the two models,
because of rounding, changes some rows completely and says nothing about the weights; a wrong weight,
scale or bias changes all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import w8a16
from zoo.entry import SEED, Entry, make_inputs, make_model
from zoo.outputs import Unequal, call, comparable, describe
from zoo.result import NOT_APPLICABLE, OK, Result

FACTOR = 1.5
"""By how much two medians of the same noise may differ: 1.3 was the most seen, for four numbers a draw."""

FLOOR = 2.0**-8
"""Half the distance of two bfloat16 numbers: no model can be held to less."""

DRAWS = 16
"""Inputs per entry, so that outputs of a few numbers have enough rows."""


def check_bfloat16(entry: Entry, result: Result) -> str:
    """In bfloat16 the quantized model is about as close to the exact result as its twin is."""
    try:
        call(make_model(entry).bfloat16(), make_inputs(entry, torch.bfloat16))
    except Exception as error:
        return f"{NOT_APPLICABLE}: the float model does not run in bfloat16: {describe(error)}"
    quantized = w8a16.quantize(make_model(entry).bfloat16())
    twin = w8a16.dequantize(w8a16.quantize(make_model(entry).bfloat16()))
    # The codes and scales are those of the bfloat16 weights; the arithmetic is float32.
    exact = w8a16.dequantize(w8a16.quantize(make_model(entry).bfloat16()).float())
    expected = [_call(exact, entry, draw, then=torch.float32) for draw in range(DRAWS)]
    try:
        theirs = _median_errors([_call(twin, entry, draw) for draw in range(DRAWS)], expected)
    except Unequal as error:
        return f"{NOT_APPLICABLE}: rounding changes what the bfloat16 twin gives: {error}"
    ours = _median_errors([_call(quantized, entry, draw) for draw in range(DRAWS)], expected)
    pairs = zip(ours, theirs, strict=True)
    error, twin_error = max(pairs, key=lambda pair: pair[0] / max(FACTOR * pair[1], FLOOR))
    result.bfloat16_error, result.bfloat16_twin_error = error, twin_error
    if error <= max(FACTOR * twin_error, FLOOR):
        return OK
    return f"median error {error:.1e}, that of the bfloat16 twin {twin_error:.1e}"


def _call(model: nn.Module, entry: Entry, draw: int, then: torch.dtype | None = None) -> list[Tensor]:
    return call(model, make_inputs(entry, torch.bfloat16, then=then, seed=SEED + draw))


def _median_errors(draws: list[list[Tensor]], expected: list[list[Tensor]]) -> list[float]:
    """For each output, the median over the rows of all draws of the distance from what is expected."""
    if {len(outputs) for outputs in draws} != {len(expected[0])}:
        raise Unequal(f"another number of float outputs, expected {len(expected[0])}")
    medians = []
    for index in range(len(expected[0])):
        rows = [_row_errors(draws[draw][index], expected[draw][index]) for draw in range(len(draws))]
        medians.append(torch.cat(rows).median().item())
    return medians


def _row_errors(output: Tensor, reference: Tensor) -> Tensor:
    """The distance of each row, relative to the size of a row on average."""
    finite = comparable(output, reference)
    output, reference = (_rows(tensor.double().where(finite, 0.0)) for tensor in (output, reference))
    size = reference.norm(dim=1).square().mean().sqrt()
    errors = (output - reference).norm(dim=1)
    return torch.where(errors == 0, 0.0, errors / size)


def _rows(tensor: Tensor) -> Tensor:
    if tensor.dim() < 2:
        return tensor.reshape(1, -1)
    return tensor.flatten(0, -2) if tensor.shape[-1] >= 8 else tensor.flatten(1)
