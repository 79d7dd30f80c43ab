"""The rows of a cell: one model in several precisions and quantizations, each scored on the same examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.convert import plan, quantize
from w8a16.study.metrics import paired_interval
from w8a16.study.runner.settings import DTYPES, QUICK_VARIANTS
from w8a16.study.scenarios import Scenario, Scores
from w8a16.study.variants import VARIANTS, apply_variant, flip_rate, float_rows, variant_bytes

Build = Callable[[], nn.Module]


@dataclass
class Scored:
    """One row: what was measured, and the losses of each example for pooling over seeds."""

    row: dict[str, Any]
    losses: dict[str, list[float]] = field(default_factory=dict)


def scored(
    row: dict[str, Any], scores: Scores, reference: Scores, same_dtype: Scores | None = None
) -> Scored:
    """Put score and losses into a row: "loss" against the float32 model, "loss_same_dtype" against its own.

    A model whose outputs are not finite has neither; the row says on how many examples.
    """
    broken = int((~torch.isfinite(scores.values)).sum())
    if broken:
        note = f"NaN or Inf on {broken} of {len(scores.values)} examples"
        return Scored({**row, "score": None, "loss": None, "loss_same_dtype": None, "note": note})
    result = Scored({**row, "score": scores.mean})
    for name, against in (("loss", reference), ("loss_same_dtype", same_dtype or reference)):
        losses = scores.losses_against(against)
        finite = bool(torch.isfinite(losses).all())
        result.row[name] = interval(losses) if finite else None
        if finite:
            result.losses[name] = losses.tolist()
    return result


def interval(losses: Tensor) -> dict[str, float]:
    """Mean and 95 % interval of paired differences, as the results have them."""
    value, low, high = paired_interval(losses)
    return {"value": value, "low": low, "high": high}


class ScoredModel:
    """A float32 model with its score, and everything that is scored against it."""

    def __init__(self, scenario: Scenario, model: nn.Module, seed: int, quick: bool) -> None:
        self._scenario, self._model, self._seed, self._quick = scenario, model, seed, quick
        self.reference = self.score(model, "float32")

    def score(self, model: nn.Module, dtype: str) -> Scores:
        """The model on the held-out examples, activations in this dtype."""
        return self._scenario.evaluate(model, self._seed, DTYPES[dtype])

    def steps(self) -> int:
        """How many rows there will be."""
        return 2 * len(DTYPES) + len(self._variants()) + 1

    def rows(self) -> Iterator[Scored]:
        """Float and int8 in each dtype, the variants in float32, the textbook recipe in bfloat16 too."""
        for dtype in DTYPES:
            model = copy.deepcopy(self._model).to(DTYPES[dtype])
            scores = self.reference if dtype == "float32" else self.score(model, dtype)
            sizes = plan(model)
            yield self._row(dtype, "float", scores, scores, sizes.bytes_before)
            int8 = quantize(copy.deepcopy(model))
            yield self._row(dtype, "int8", self.score(int8, dtype), scores, sizes.bytes_after)
            for name in self._variants() if dtype == "float32" else ():
                yield self._variant(dtype, name, model, scores)
            if dtype == "bfloat16":
                yield self._variant(dtype, "textbook", model, scores)

    def _variants(self) -> tuple[str, ...]:
        # "per_channel" simulates what the row "int8" measures
        return QUICK_VARIANTS if self._quick else tuple(name for name in VARIANTS if name != "per_channel")

    def _variant(self, dtype: str, name: str, model: nn.Module, same_dtype: Scores) -> Scored:
        held = plan(model).bytes_before - sum(weight.float_bytes for weight in float_rows(model))
        held += variant_bytes(model, name)
        flips = flip_rate(model, name) if name == "textbook" else None
        changed = apply_variant(copy.deepcopy(model), name)
        return self._row(dtype, name, self.score(changed, dtype), same_dtype, held, flips)

    def _row(
        self,
        dtype: str,
        variant: str,
        scores: Scores,
        same_dtype: Scores,
        held: int,
        flips: float | None = None,
    ) -> Scored:
        row = {"dtype": dtype, "variant": variant, "bytes": held, "flip_rate": flips}
        return scored(row, scores, self.reference, same_dtype)
