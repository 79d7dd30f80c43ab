"""The checks of one entry, with the public functions of w8a16 only.

The yardstick is the twin: the float model that holds exactly the dequantized weights. The quantized
model and its twin stand for the same numbers, so their outputs may differ by the rounding of float32
arithmetic only; what quantization itself changed is in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

import w8a16
from zoo.bfloat16 import check_bfloat16
from zoo.copies import check_copies, check_round_trip, check_ties
from zoo.entry import Entry, make_inputs, make_model, make_published
from zoo.outputs import call, describe, distance, drift
from zoo.result import NOT_APPLICABLE, OK, Result
from zoo.training import gradients

TOLERANCE = 1e-5
"""Relative to the norm of an output: about a hundred float32 roundings, a thousandth of an int8 step."""

NUDGE = 1e-7
"""By how much the weights of the twin are moved, relatively, to see how steep the model is."""


def check(entry: Entry) -> Result:
    """Quantize the model of `entry` and hold it to everything that the library promises."""
    started = time.perf_counter()
    result = Result(entry.name, entry.family)
    try:
        quantized = w8a16.quantize(make_model(entry))
        twin = make_twin(entry)
        result.runs = _guarded(lambda: _runs(entry, quantized, result))
    except Exception as error:
        result.runs = describe(error)
        result.seconds = time.perf_counter() - started
        return result
    _cover(entry, quantized, result)
    if result.runs == OK:
        result.equals = _guarded(lambda: _equals(entry, quantized, twin, result))
        result.ties = _guarded(lambda: check_ties(entry, quantized, twin))
        result.round_trip = _guarded(lambda: check_round_trip(entry, quantized))
        result.copies = _guarded(lambda: check_copies(entry, quantized))
        result.generate = _guarded(lambda: _generate(entry, quantized, twin))
        result.gradients = _guarded(lambda: _gradients(entry, quantized, twin))
        result.bfloat16 = _guarded(lambda: check_bfloat16(entry, result))
    result.seconds = time.perf_counter() - started
    return result


def make_twin(entry: Entry) -> nn.Module:
    """The float model of `entry` with the dequantized weights; built anew, so nothing is shared."""
    return w8a16.dequantize(w8a16.quantize(make_model(entry)))


def _guarded(run: Callable[[], str]) -> str:
    try:
        with torch.no_grad():
            return run()
    except Exception as error:
        return describe(error)


def _runs(entry: Entry, quantized: nn.Module, result: Result) -> str:
    expected = call(make_model(entry), make_inputs(entry))
    if not any(bool(output.isfinite().any()) and bool(output.any()) for output in expected):
        return "the float model gives nothing to compare"
    result.drift = drift(call(quantized, make_inputs(entry)), expected)
    return OK


def _cover(entry: Entry, quantized: nn.Module, result: Result) -> None:
    plan = w8a16.plan(quantized)
    result.coverage = plan.coverage
    result.remaining = tuple((row.name, row.shape, row.reason) for row in plan.rows if row.verdict == "float")
    if not plan.coverage:
        result.runs = "nothing became int8"
    try:
        published = make_published(entry)
        if published is not None:
            result.published_coverage = w8a16.plan(published).coverage
    except Exception as error:
        result.published_problem = describe(error)


def _equals(entry: Entry, quantized: nn.Module, twin: nn.Module, result: Result) -> str:
    expected = call(twin, make_inputs(entry))
    result.error = distance(call(quantized, make_inputs(entry)), expected)
    allowed = entry.tolerance.relative_error if entry.tolerance else TOLERANCE
    if result.drift is not None and result.drift <= 10 * allowed:
        return f"the outputs hardly depend on what became int8 (drift {result.drift:.1e}): nothing is proven"
    if result.error <= allowed:
        return OK
    _nudge(twin)
    steepness = distance(call(twin, make_inputs(entry)), expected)
    return (
        f"relative error {result.error:.1e}, allowed {allowed:.0e}; "
        f"the twin itself moves by {steepness:.1e} when its weights move by {NUDGE:.0e}"
    )


def _nudge(model: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.mul_(1 + NUDGE * torch.randn_like(parameter))


def _generate(entry: Entry, quantized: nn.Module, twin: nn.Module) -> str:
    if not entry.generate:
        return NOT_APPLICABLE
    made = make_inputs(entry)
    assert isinstance(made, dict)
    prompt = {name: value for name, value in made.items() if not name.startswith("decoder_")}
    tokens = []
    for model in (quantized, twin):
        torch.manual_seed(0)
        tokens.append(model.generate(**prompt, max_new_tokens=8, min_new_tokens=8, do_sample=False))  # type: ignore[operator]
    return (
        OK if torch.equal(*tokens) else f"other tokens: {tokens[0].tolist()}, expected {tokens[1].tolist()}"
    )


def _gradients(entry: Entry, quantized: nn.Module, twin: nn.Module) -> str:
    with torch.enable_grad():
        try:
            expected = gradients(twin, make_inputs(entry))
        except RuntimeError as error:
            return f"{NOT_APPLICABLE}: the twin cannot be differentiated: {describe(error)}"
        if expected is None:
            return f"{NOT_APPLICABLE}: no gradient reaches an input of the twin"
        found = gradients(quantized, make_inputs(entry))
    if found is None:
        return "no gradient reaches the input that it reaches in the twin"
    error = distance([found], [expected])
    allowed = entry.tolerance.relative_error if entry.tolerance else TOLERANCE
    return OK if error <= allowed else f"relative error {error:.1e}, allowed {allowed:.0e}"
