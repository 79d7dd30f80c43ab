"""Heavy tails in a trained model: the same function in float, what int8 loses, and what repair costs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from torch import nn

from w8a16.convert import Recipe, plan, quantize
from w8a16.errors import BudgetError, ModuleError
from w8a16.study.repair import Budget, repair
from w8a16.study.repair.yardstick import Yardstick
from w8a16.study.runner.rows import Scored, ScoredModel, scored
from w8a16.study.scenarios import Scenario
from w8a16.study.variants import inject_tails

FACTORS = (32.0, 128.0)
QUICK_FACTORS = (128.0,)
_BATCHES = 4  # what the repair looks at; the rows are scored on all held-out examples
_MARGIN_DB = 3.0


def tail_rows(
    scenario: Scenario, model: nn.Module, scored_model: ScoredModel, seed: int, quick: bool
) -> Iterator[Scored]:
    """Float, int8 and repaired int8, for each factor.

    The budget of the repair: the signal to noise ratio that int8 has without the tails, less 3 decibels
    (at most twice the noise power).
    Where no channel of the model can be scaled, one row says so.
    """
    batches = scenario.batches(_BATCHES, seed)
    limit = _sqnr_db(model, batches) - _MARGIN_DB
    for factor in QUICK_FACTORS if quick else FACTORS:
        tailed = copy.deepcopy(model)
        row: dict[str, Any] = {"dtype": "float32", "factor": factor}
        try:
            tails = inject_tails(tailed, batches[0], factor=factor, seed=seed)
        except ModuleError as error:
            yield Scored({**row, "variant": "float", "score": None, "loss": None, "note": str(error)})
            return
        row |= {"share": tails.share, "weights": len(tails.weights)}
        yield _row({**row, "variant": "float", "bytes": plan(tailed).bytes_before}, tailed, scored_model)
        yield _int8({**row, "variant": "int8"}, tailed, Recipe(), scored_model)
        yield _repaired({**row, "variant": "repaired", "limit_db": limit}, tailed, batches, scored_model)


def _repaired(
    row: dict[str, Any], tailed: nn.Module, batches: list[Any], scored_model: ScoredModel
) -> Scored:
    try:
        found = repair(tailed, batches, Budget("sqnr_db", row["limit_db"]))
    except BudgetError as error:
        return Scored({**row, "score": None, "loss": None, "note": str(error)})
    row |= {
        "sqnr_db_before": found.value_before,
        "sqnr_db": found.value,
        "bytes_added": found.bytes_added,
        "share_added": found.share_added,
        "recipe": found.recipe.to_dict(),
    }
    return _int8(row, tailed, found.recipe, scored_model)


def _int8(row: dict[str, Any], tailed: nn.Module, recipe: Recipe, scored_model: ScoredModel) -> Scored:
    held = plan(tailed, recipe=recipe).bytes_after
    return _row({**row, "bytes": held}, quantize(copy.deepcopy(tailed), recipe=recipe), scored_model)


def _row(row: dict[str, Any], model: nn.Module, scored_model: ScoredModel) -> Scored:
    return scored(row, scored_model.score(model, "float32"), scored_model.reference)


def _sqnr_db(model: nn.Module, batches: list[Any]) -> float:
    budget = Budget("sqnr_db", 0.0)
    return Yardstick(model, batches, budget, None).read(quantize(copy.deepcopy(model))).value
