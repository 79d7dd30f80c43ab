"""The weights of a float model that `w8a16.quantize` would convert, as rows that can be read and written.

A simulated quantizer changes values and leaves the model a float model: the same modules, the same
dtype, the same memory. Each weight is seen as the matrix `[N, K]` of its rows, one for each scale
that the int8 model would have, wherever they lie in the parameter. Tied weights are one entry, and
writing it writes all of them, because it writes into the memory that they share.

Letters: N output channels (rows), K input features (columns).
"""

from __future__ import annotations

import glob
import math
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from w8a16.convert import EVERYTHING, Recipe, effective_weight, prepare
from w8a16.convert.candidate import Candidate
from w8a16.convert.source import take_weights, weight_source
from w8a16.errors import ModuleError
from w8a16.layers import Layout


@dataclass(frozen=True)
class FloatRows:
    """One weight of a float model."""

    name: str
    """Its full name, as in `w8a16.plan(model)`: `"encoder.layer.0.output.dense.weight"`."""
    module: nn.Module
    attribute: str
    kind: str
    """The layer kind: `"linear"`, `"embedding"`, `"conv2d"`, ..."""
    layout: Layout
    refinable: bool
    """Whether it may be held in groups or with outliers, wherever it is used."""

    @property
    def pattern(self) -> str:
        """What a recipe calls this weight and no other: its name, or those of what it is computed from."""
        prefix = self.name.removesuffix(self.attribute)
        if parametrize.is_parametrized(self.module, self.attribute):
            return f"{glob.escape(f'{prefix}parametrizations.{self.attribute}')}.*"
        return f"{glob.escape(self.name)}_*" if self.is_computed else glob.escape(self.name)

    @property
    def float_bytes(self) -> int:
        """Bytes of the float parameters that the weight is made of."""
        source = weight_source(self.module, self.attribute)
        return sum(p.numel() * p.element_size() for p in source.parameters) if source else 0

    @property
    def parameter(self) -> Tensor:
        """The weight as the module holds it."""
        return effective_weight(self.module, self.attribute)

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, K)`."""
        codes = self.layout.codes_shape(tuple(self.parameter.shape))
        return math.prod(codes[: self.layout.lead]), math.prod(codes[self.layout.lead :])

    def read(self) -> Tensor:
        """The rows `[N, K]` in the weight's dtype, detached; they may be a view of the weight."""
        return self.layout.codes_of(self.parameter.detach()).reshape(self.shape)

    def write(self, rows: Tensor) -> None:
        """Put other values `[N, K]` into the weight, in place, rounded to its dtype.

        A weight that is computed (by a parametrization, or an older hook such as weight_norm) becomes a
        plain parameter first, as the conversion to int8 does it too.
        """
        if self.is_computed:
            (value,) = take_weights(self.module, [self.attribute]).values()
            self.module.__dict__.pop(self.attribute, None)
            self.module._parameters[self.attribute] = nn.Parameter(value)
        weight = self.parameter
        codes = self.layout.codes_shape(tuple(weight.shape))
        with torch.no_grad():
            weight.copy_(self.layout.float_of(rows.reshape(codes)))

    @property
    def is_computed(self) -> bool:
        """Whether the module computes this weight from other parameters."""
        return self.module._parameters.get(self.attribute) is None


def float_rows(model: nn.Module, recipe: Recipe = EVERYTHING) -> list[FloatRows]:
    """List the weights that `w8a16.quantize(model, recipe=recipe)` would convert, in the model's order.

    The model is not changed.

    Raises:
        ModuleError: no weight of the model would become int8.
        WeightValueError: weights hold NaN or Inf.
    """
    draft = prepare(model, recipe)
    if not draft.conversions:
        reasons = sorted({row.sentence for row in draft.plan.rows}) or [
            "it has no weight with two dimensions"
        ]
        raise ModuleError(
            f"{type(model).__name__}: no weight of this model would become int8 ({'; '.join(reasons)})"
        )
    paths = {id(module): path for path, module in model.named_modules()}
    found: dict[Hashable, list[Candidate]] = {}
    for conversion in draft.conversions:
        for candidate, tie in conversion.weights:
            found.setdefault(tie, []).append(candidate)
    return [_rows(candidates, paths[id(candidates[0].module)]) for candidates in found.values()]


def _rows(candidates: list[Candidate], path: str) -> FloatRows:
    first = candidates[0]
    name = f"{path}.{first.name}" if path else first.name
    refinable = all(candidate.kind.refinable for candidate in candidates)
    return FloatRows(name, first.module, first.name, first.kind.name, first.layout, refinable)
