"""A float copy of the model in which each weight has the values that one of its options would give it.

A trial is the swap of a few weights and a run over the inputs. The copy is the only one: it is let go of
before the real int8 model is made for the last word, and made anew if the search has to go on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from w8a16.convert import Recipe, quantize
from w8a16.convert.select import Pattern, Patterns
from w8a16.study.repair.options import Option, held_values
from w8a16.study.repair.yardstick import Reading, Yardstick
from w8a16.study.variants import FloatRows, float_rows

Config = tuple[int, ...]
"""For each weight the number of its option; -1: as it is in the float model."""
FLOAT = -1


@dataclass(frozen=True)
class Trial:
    """A measurement of one configuration."""

    config: Config
    reading: Reading
    bytes_added: int
    real: bool
    """Of the real int8 model, not of the float copy with its values."""


class Workbench:
    """Tries configurations and remembers what they gave."""

    def __init__(
        self,
        model: nn.Module,
        start: Recipe,
        yardstick: Yardstick,
        weights: Sequence[FloatRows],
        options: Sequence[Sequence[Option]],
        tried: Callable[[], None],
    ) -> None:
        self._model, self._start, self._yardstick = model, start, yardstick
        self._weights, self._options = weights, options
        self._tried = tried
        self._copy: nn.Module | None = None
        self._copies: list[FloatRows] = []
        self._state: list[int] = []
        self.trials: dict[Config, Trial] = {}
        """Every configuration that was measured on the copy."""
        self.verified: list[Trial] = []
        """Every configuration that was measured on the real int8 model."""

    def measure(self, config: Config) -> Trial:
        """Measure a configuration on the float copy."""
        if config not in self.trials:
            self._put(config)
            assert self._copy is not None
            reading = self._yardstick.read(self._copy)
            self.trials[config] = Trial(config, reading, self.bytes_added(config), False)
            self._tried()
        return self.trials[config]

    def verify(self, config: Config) -> Trial:
        """Quantize a copy of the model for real, by the recipe, and measure that."""
        self._copy, self._copies, self._state = None, [], []  # one copy at a time
        quantized = quantize(copy.deepcopy(self._model), recipe=self.recipe(config))
        trial = Trial(config, self._yardstick.read(quantized), self.bytes_added(config), True)
        self.verified.append(trial)
        self._tried()
        return trial

    def bytes_added(self, config: Config) -> int:
        """Bytes beyond plain int8."""
        pairs = zip(config, self._options, strict=True)
        return sum(ways[number].bytes - ways[0].bytes for number, ways in pairs if number >= 0)

    def recipe(self, config: Config) -> Recipe:
        """The recipe that holds every weight as the configuration says."""
        exclude: list[Pattern] = listed(self._start.exclude)
        group_size: dict[str, int] = {}
        outliers: dict[str, int] = {}
        for number, ways, weight in zip(config, self._options, self._weights, strict=True):
            layout = ways[number].layout
            if layout is None:
                exclude.append(weight.pattern)
            elif layout.group:
                group_size[weight.pattern] = layout.group
            elif layout.outliers:
                outliers[weight.pattern] = layout.outliers
        return replace(self._start, exclude=exclude or None, group_size=group_size, outliers=outliers)

    def _put(self, config: Config) -> None:
        if self._copy is None:
            self._copy = copy.deepcopy(self._model)
            self._copies = float_rows(self._copy, self._start)
            self._state = [FLOAT] * len(self._weights)
        for index, number in enumerate(config):
            if number != self._state[index]:
                self._write(index, number)
                self._state[index] = number

    def _write(self, index: int, number: int) -> None:
        weight = self._weights[index]
        layout = None if number == FLOAT else self._options[index][number].layout
        values = weight.parameter.detach() if layout is None else held_values(weight, layout)
        with torch.no_grad():
            self._copies[index].write(weight.layout.codes_of(values))


def listed(patterns: Patterns) -> list[Pattern]:
    """The patterns of a recipe as a list."""
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, (str, type)) else list(patterns)
