"""From a drift budget to the cheapest recipe that keeps it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from w8a16.convert import EVERYTHING, Recipe, plan, quantize
from w8a16.errors import BudgetError, UsageError
from w8a16.study.compare.running import check_batch, check_inputs
from w8a16.study.compare.tasks import Task, task_named
from w8a16.study.repair.budget import Budget
from w8a16.study.repair.inputs import input_power
from w8a16.study.repair.options import UPGRADES, Option, check_upgrades, options_of
from w8a16.study.repair.result import Choice, Point, Repair
from w8a16.study.repair.search import drifts_alone, edges_of, search
from w8a16.study.repair.workbench import Trial, Workbench
from w8a16.study.repair.yardstick import Reading, Yardstick
from w8a16.study.variants import FloatRows, float_rows

Progress = Callable[[str, int, int], None]


def repair(
    model: nn.Module,
    inputs: Iterable[Any],
    budget: Budget,
    *,
    task: str | Task | None = None,
    upgrades: Sequence[str] = UPGRADES,
    recipe: Recipe = EVERYTHING,
    progress: Progress | None = None,
) -> Repair:
    """Find the cheapest set of upgrades with which the int8 model keeps a drift budget.

    A weight can be upgraded from one scale a row to the 1, 2, 4 or 8 largest weights of each row kept as
    floats, to a scale for every 128, 64 or 32 weights of a row, or to staying float. Only linear layers
    and embeddings have the first two. The model is not changed. In memory there are the model, one copy
    of it, and the float outputs that are measured against; in time, a run over the inputs for each weight
    and some dozens for the search.

    Args:
        model: the float model.
        inputs: batches: tensors, tuples of positional or mappings of named arguments. What is kept is the
            budget on these; pass inputs like those that the model is for.
        budget: the measure and its limit.
        task: for budgets in a figure of a task: its name, or a task.
        upgrades: which of "outliers", "groups" and "float" may be used.
        recipe: which weights become int8 at all; the recipe of the result adds to it.
        progress: called as `(what, done, all)`.

    Returns:
        A `Repair`; its recipe was measured on the int8 model that it makes, and keeps the budget.

    Raises:
        BudgetError: no recipe keeps the budget; the message says the best that was reached.
        UsageError: no inputs, an unknown metric or upgrade, or a recipe that holds weights finer already.
        ComparisonError: the float model cannot take the inputs, or gives NaN or Inf for them.
        ModuleError: no weight of the model would become int8.
        WeightValueError: weights hold NaN or Inf.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
        >>> found = repair(model, [torch.randn(16, 64)], Budget("sqnr_db", 20))
        >>> found.recipe, found.bytes_added
        (Recipe(include=None, exclude=None, kinds=None, group_size={}, outliers={}), 0)
    """
    upgrades = check_upgrades(upgrades)
    _check_start(recipe)
    batches = _batches(inputs)
    weights = float_rows(model, recipe)
    yardstick = Yardstick(model, batches, budget, task_named(task) if isinstance(task, str) else task)
    plain = yardstick.read(quantize(copy.deepcopy(model), recipe=recipe))
    if plain.met:
        return _nothing_to_do(model, recipe, weights, budget, yardstick.better, plain)
    power = input_power(model, weights, batches)
    options = [options_of(weight, upgrades, power.get(weight.name)) for weight in weights]
    report = _Report(progress, len(weights))
    bench = Workbench(model, recipe, yardstick, weights, options, report.tried)
    drifts = drifts_alone(bench, options)
    report.searching()
    found = search(bench, edges_of(options, drifts), len(weights))
    if found is None:
        raise BudgetError(_best(bench, budget, yardstick.better, upgrades))
    repaired = bench.recipe(found.config)
    return Repair(
        metric=budget.name,
        limit=budget.limit,
        better=yardstick.better,
        value_before=plain.value,
        value=found.reading.value,
        bytes_before=plan(model, recipe=recipe).bytes_after,
        bytes_after=plan(model, recipe=repaired).bytes_after,
        recipe=repaired,
        choices=_choices(weights, options, drifts, found),
        curve=_curve(bench, plain),
    )


def _nothing_to_do(
    model: nn.Module,
    recipe: Recipe,
    weights: Sequence[FloatRows],
    budget: Budget,
    better: str,
    plain: Reading,
) -> Repair:
    after = plan(model, recipe=recipe).bytes_after
    reason = "plain int8 keeps the budget"
    choices = [Choice(w.name, w.kind, tuple(w.parameter.shape), "int8", 0, None, reason) for w in weights]
    curve = (Point(0, plain.value, 0, True),)
    values = (plain.value, plain.value)
    return Repair(budget.name, budget.limit, better, *values, after, after, recipe, tuple(choices), curve)


class _Report:
    """Progress: one run for each weight, then a search whose length is not known beforehand."""

    def __init__(self, progress: Progress | None, weights: int) -> None:
        self._progress, self._what, self._done, self._all = progress, "weights", 0, weights

    def tried(self) -> None:
        """One more measurement."""
        self._done += 1
        if self._progress:
            self._progress(self._what, self._done, max(self._all, self._done))

    def searching(self) -> None:
        """The weights are measured."""
        self._what, self._done, self._all = "search", 0, 0


def _check_start(recipe: Recipe) -> None:
    finer = [*recipe.group_size, *recipe.outliers]
    if finer:
        raise UsageError(
            f"recipe: expected one that only selects weights, got one that holds {', '.join(finer)} finer: "
            "what to hold finer is what a repair finds out"
        )


def _batches(inputs: Iterable[Any]) -> list[Any]:
    check_inputs(inputs)
    batches = list(inputs)
    if not batches:
        raise UsageError("inputs: expected at least one batch, got none")
    for number, batch in enumerate(batches):
        check_batch(batch, number)
    return batches


def _best(bench: Workbench, budget: Budget, better: str, upgrades: Sequence[str]) -> str:
    sign = 1 if better == "lower" else -1
    best = min(bench.verified, key=lambda trial: sign * trial.reading.value)
    way = "at most" if better == "lower" else "at least"
    hint = "" if "float" in upgrades else "; allow upgrades=('outliers', 'groups', 'float')"
    if "float" in upgrades:
        hint = "; with every weight in float nothing more can be bought: choose another limit"
    return (
        f"budget: no recipe reaches {budget.name} {way} {budget.limit:.4g}; the best had "
        f"{best.reading.value:.4g} for {best.bytes_added} more bytes{hint}"
    )


def _choices(
    weights: Sequence[FloatRows], options: Sequence[Sequence[Option]], drifts: Sequence[float], found: Trial
) -> tuple[Choice, ...]:
    total = sum(drifts)
    choices = []
    for weight, ways, drift, number in zip(weights, options, drifts, found.config, strict=True):
        option, share = ways[number], drift / total if total else 0.0
        added = option.bytes - ways[0].bytes
        shape = tuple(weight.parameter.shape)
        reason = _reason(weight, ways, number, share)
        choices.append(Choice(weight.name, weight.kind, shape, option.words, added, share, reason))
    return tuple(choices)


def _reason(weight: FloatRows, ways: Sequence[Option], number: int, share: float) -> str:
    cause = f"causes {share:.1%} of the drift"
    if number == 0:
        return f"{cause}: not needed" if len(ways) > 1 else f"{cause}: nothing better is allowed"
    if ways[number].layout is not None:
        return f"{cause}; leaves {ways[number].error:.1%} of its error"
    return cause if weight.refinable else f"{cause}; a {weight.kind} weight has no finer way"


def _curve(bench: Workbench, plain: Reading) -> tuple[Point, ...]:
    trials = [*bench.trials.values(), *bench.verified]
    points = {(None, True): Point(0, plain.value, 0, True)} | {
        (trial.config, trial.real): Point(
            trial.bytes_added,
            trial.reading.value,
            sum(number != 0 for number in trial.config),
            trial.real,
        )
        for trial in trials
    }
    return tuple(sorted(points.values(), key=lambda point: (point.bytes_added, not point.real, point.value)))
