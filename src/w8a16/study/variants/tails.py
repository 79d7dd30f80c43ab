"""Heavy tails in a trained model that change nothing in float: the same function, harder to quantize.

Large language models grow them by themselves: a few channels whose weights are many times larger than
the rest of their rows. A small model trained for a minute has none. Multiplying weights at random would
make some, and break the model; any loss measured then would be that of another model. So channels are
scaled instead, which a network cannot notice where what lies between is linear in the channel:

    source     y_j = ...          its output channel j is divided by f
    reader     sum_j W[n, j] y_j  its weights for channel j are multiplied by f

f is a power of two, so not even a rounding differs. Sources are norms (their scale and bias), linear
layers and convolutions (their row j: all of it, so its codes stay the same bits, and only its scale
changes). Readers are linear layers, convolutions, recurrent layers and attention projections; each of
their rows gets one weight about f times as large as the others. In a transformer that holds between a
norm before a block and the projections that read it, between values and output projection, and between
the gated branches of a feed-forward layer; in convolutional nets across ReLU and batch norm.

Nothing has to be known about the architecture. Which layers may be connected is guessed from one run
(widths, order, and which layers are given the same tensor) and then tried: a pair is kept only if the
outputs stay the same, and if they do not when only one of the two sides is scaled. Pairs that fail are
put back. What cannot be reached so (a post-norm block, whose norm feeds the residual too, or a layer
behind a GELU) stays as it was; the result says which weights were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.errors import ModuleError, UsageError
from w8a16.study.compare.nesting import float_tensors_in
from w8a16.study.compare.running import evaluating, run, without_fast_path
from w8a16.study.variants.channels import Reader, Source, readers_and_sources
from w8a16.study.variants.float_rows import float_rows

_NEAREST = 6
"""How many of the sources before a reader are tried, the nearest first."""

_UNCHANGED = 2.0**-20
"""Outputs that move by no more than this share count as the same: subnormal numbers may round."""


@dataclass(frozen=True)
class Tails:
    """Where heavy tails were put."""

    factor: float
    weights: tuple[str, ...]
    """The weights that have one now."""
    share: float
    """The part of all weights that would become int8 that they hold, in elements."""
    largest_change: float
    """Largest change of a float output, as a share of the largest output; 0 where no bit differs."""


def inject_tails(
    model: nn.Module, inputs: Any, *, factor: float = 32.0, channels: int = 1, seed: int = 0
) -> Tails:
    """Give the rows of a model's weights heavy tails that leave its float outputs as they are, in place.

    Args:
        model: a float model; it is run in evaluation mode.
        inputs: one batch: a tensor, a tuple or list of positional arguments, or a mapping of keywords.
        factor: how much larger the weights of a channel become; a power of two.
        channels: how many channels of each reader.
        seed: chooses the channels.

    Raises:
        UsageError: `factor` is not a power of two above 1, or `channels` is below 1.
        ModuleError: no weight of this model can be given a tail without changing its outputs, no weight
            would become int8, or the outputs are not finite.
    """
    if factor <= 1 or math.frexp(factor)[0] != 0.5:
        raise UsageError(f"factor: expected a power of two above 1, got {factor:g}")
    if channels < 1:
        raise UsageError(f"channels: expected at least 1, got {channels}")
    trial = _Trial(model, inputs, factor)
    generator = torch.Generator().manual_seed(seed)
    readers, sources = readers_and_sources(model, trial.run)
    changed: dict[str, int] = {}
    for reader in readers:
        found = _link(reader, sources, trial, channels, generator)
        changed.update({rows.name: math.prod(rows.shape) for rows in reader.weights} if found else {})
    if not changed:
        raise ModuleError(
            f"{type(model).__name__}: no channel of this model can be scaled without changing its outputs"
        )
    total = sum(math.prod(rows.shape) for rows in float_rows(model))
    return Tails(factor, tuple(changed), sum(changed.values()) / total, trial.change())


def _link(
    reader: Reader, sources: list[Source], trial: _Trial, channels: int, generator: torch.Generator
) -> bool:
    """Find the source of a reader by trying, and scale that many of its channels."""
    before = [source for source in sources if source.order < reader.order and source.width == reader.width]
    for source in sorted(before, key=lambda source: -source.order)[:_NEAREST]:
        order = torch.randperm(source.width, generator=generator).tolist()
        if trial.keeps(source, reader, order[0]):
            for j in order[1:channels]:
                trial.keeps(source, reader, j)
            return True
    return False


class _Trial:
    """Scales a channel on both sides and looks at the outputs."""

    def __init__(self, model: nn.Module, inputs: Any, factor: float) -> None:
        self._factor = factor
        self._model, self._inputs = model, inputs
        self._reference = [tensor.clone() for tensor in self.run()]
        self._largest = max((float(t.abs().max()) for t in self._reference if t.numel()), default=0.0)
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in self._reference)
        if not finite or self._largest == 0:
            raise ModuleError(
                f"expected finite float outputs that are not all zero, got "
                f"{'zeros' if finite else 'NaN or Inf'} for these inputs"
            )

    def run(self) -> list[Tensor]:
        """The float outputs of now."""
        with evaluating(self._model), without_fast_path():
            return list(float_tensors_in(run(self._model, self._inputs, "float", 0)).values())

    def keeps(self, source: Source, reader: Reader, j: int) -> bool:
        """Scale channel j on both sides; put it back and return False where the outputs tell."""
        source_back = source.scale(j, 1 / self._factor)
        alone = self.change()  # a channel that nothing reads would prove nothing
        reader_back = reader.scale(j, self._factor)
        if alone > _UNCHANGED >= self.change():
            return True
        source_back()
        reader_back()
        return False

    def change(self) -> float:
        """Largest change of an output, as a share of the largest output; infinite where one is NaN."""
        pairs = zip(self._reference, self.run(), strict=True)
        largest = max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())
        return largest / self._largest if math.isfinite(largest) else math.inf
