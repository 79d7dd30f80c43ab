"""Run a model on the inputs of its entry, and measure how far two runs are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entry import SEED, Inputs


class Unequal(Exception):
    """Two runs differ in something other than rounding."""


def describe(error: Exception) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, Unequal) else f"{type(error).__name__}: {text}"


def call(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """Every floating-point tensor in the output, with the same random numbers at each call."""
    torch.manual_seed(SEED)
    output = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    found = float_tensors(output)
    if not found:
        raise Unequal("no floating-point tensor in the output")
    return found


def float_tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors of a nested output, in order; caches and other objects are left out."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in float_tensors(value)]
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in float_tensors(value)]
    return []


def distance(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest distance of an output from what is expected of it, relative to the norm of the latter."""
    if len(outputs) != len(expected):
        raise Unequal(f"{len(outputs)} float outputs, expected {len(expected)}")
    return max(_distance(output, reference) for output, reference in zip(outputs, expected, strict=True))


def drift(outputs: list[Tensor], expected: list[Tensor]) -> float | None:
    """The distance from the float model; None for a model that decides from its weights how long it talks."""
    if [output.shape for output in outputs] == [output.shape for output in expected]:
        return distance(outputs, expected)
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise Unequal("an output is not finite")
    return None


def _distance(output: Tensor, reference: Tensor) -> float:
    finite = comparable(output, reference)
    difference = (output[finite].double() - reference[finite].double()).norm().item()
    if difference == 0:
        return 0.0
    size = reference[finite].double().norm().item()
    return difference / size if size else math.inf


def comparable(output: Tensor, reference: Tensor) -> Tensor:
    """Where both are finite, which must be the same places; raises `Unequal` otherwise."""
    if output.shape != reference.shape:
        raise Unequal(f"an output of shape {list(output.shape)}, expected {list(reference.shape)}")
    finite = reference.isfinite()
    if not torch.equal(output.isfinite(), finite):
        raise Unequal("an output is not finite where the expected one is, or the other way round")
    return finite


def identical(outputs: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether all bits are the same."""
    return len(outputs) == len(expected) and all(
        output.dtype == reference.dtype
        and output.shape == reference.shape
        and torch.equal(output.nan_to_num(), reference.nan_to_num())
        and torch.equal(output.isnan(), reference.isnan())
        for output, reference in zip(outputs, expected, strict=True)
    )
