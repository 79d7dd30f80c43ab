"""The float side and the int8 side of a comparison: two models, or one model that plays both parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn

from w8a16.study.compare.float_mode import FloatMode, WeightSource, float_mode, int8_modules
from w8a16.study.compare.running import same_randomness
from w8a16.study.compare.units import Unit, weights_of


class Sides(Protocol):
    """What a comparison needs of the two sides."""

    quantized: nn.Module
    weights: WeightSource

    def float_side(self) -> Any:
        """A context in which the module that it gives computes in float, and `own_output` may be called."""

    def own_output(self, unit: Unit, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """What the site of `unit` gives out for these inputs if only the weights of `unit` are int8."""


class TwoModels:
    """A float model in memory beside the int8 one."""

    def __init__(self, reference: nn.Module, quantized: nn.Module) -> None:
        self.reference, self.quantized = reference, quantized
        self.weights = weights_of(reference)
        self._paths = tuple(int8_modules(quantized))

    @contextmanager
    def float_side(self) -> Iterator[nn.Module]:
        """The float model."""
        yield self.reference

    def own_output(self, unit: Unit, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Calls the int8 module; int8 modules inside it compute in float meanwhile."""
        prefix = f"{unit.site}." if unit.site else ""
        below = [path for path in self._paths if path.startswith(prefix) or path == unit.site]
        others = [path for path in below if self.quantized.get_submodule(path) is not unit.module]
        in_float = float_mode(self.quantized, self.weights, others) if others else nullcontext()
        with in_float, same_randomness():
            return self.quantized.get_submodule(unit.site).forward(*arguments, **options)


class OneModel:
    """An int8 model, and the float weights one layer at a time."""

    def __init__(self, quantized: nn.Module, weights: WeightSource) -> None:
        self.quantized, self.weights = quantized, weights
        self._mode: FloatMode | None = None

    @contextmanager
    def float_side(self) -> Iterator[nn.Module]:
        """The int8 model in float mode."""
        with float_mode(self.quantized, self.weights) as mode:
            self._mode = mode
            try:
                yield self.quantized
            finally:
                self._mode = None

    def own_output(self, unit: Unit, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Calls the same module with the weights of `unit` int8 for this once."""
        assert self._mode is not None
        with self._mode.paused(unit.module), same_randomness():
            return self.quantized.get_submodule(unit.site).forward(*arguments, **options)
