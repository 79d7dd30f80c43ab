"""`compare`: the int8 model beside the float model on the user's own inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from typing import Any

from torch import nn

from w8a16.convert import plan
from w8a16.errors import UsageError
from w8a16.study.compare.float_mode import FloatMode, WeightSource
from w8a16.study.compare.holdings import bytes_now, int8_coverage, kept_float, model_name
from w8a16.study.compare.measure import Measure
from w8a16.study.compare.observing import Observation, Observer, has_fast_path
from w8a16.study.compare.result import Comparison, ModuleDrift
from w8a16.study.compare.running import (
    check_batch,
    check_inputs,
    evaluating,
    nonfinite_error,
    nonfinite_in,
    run,
)
from w8a16.study.compare.sensitivity import blames, suspects
from w8a16.study.compare.sides import OneModel, Sides, TwoModels
from w8a16.study.compare.tasks import Task, task_named
from w8a16.study.compare.units import Unit, check_counterparts, check_int8, units_of
from w8a16.study.metrics import WeightError, weight_error, weight_label

Progress = Callable[[str, int, int], None]
"""Called as `(stage, done, total)`; the total is 0 where it is not known."""


def compare(
    reference: nn.Module | None,
    quantized: nn.Module,
    inputs: Iterable[Any],
    *,
    task: str | Task | None = None,
    weights: WeightSource | None = None,
    sensitivity: bool = False,
    layers_to_try: int = 128,
    activation_bytes: int = 1 << 30,
    progress: Progress | None = None,
) -> Comparison:
    """Say how far an int8 model is from its float model, and which modules make the difference.

    Batches are taken one by one; nothing of a batch is kept. Both models run in evaluation mode,
    without gradients and with the same random numbers; training flags, weights and random state are
    what they were afterwards. Positions that a batch's `attention_mask` marks as padding do not count.

    Args:
        reference: the float model; None to let `quantized` itself compute with float `weights`, one
            layer at a time, so that the memory of a second model is not needed.
        quantized: the int8 model, of any kinds of layers.
        inputs: batches. A batch is a tensor, a tuple or list of positional arguments, or a mapping of
            named ones, nested as the model takes them.
        task: what the outputs are for, by name or as an object: see `w8a16.study.compare.tasks`.
        weights: with `reference=None`: full name of a float weight to its values.
        sensitivity: whether to put the int8 modules back to float one at a time and say which are to
            blame: one more run for each module and batch. Inputs that can be gone through only once
            are then kept.
        layers_to_try: at most so many of them, those with the most noise of their own first; the
            result names the others.
        activation_bytes: about how many bytes of module outputs are kept at a time; a batch with more
            is run several times.
        progress: called with the stage, how much of it is done, and how much there is.

    Raises:
        UsageError: inputs that are no batches, or none; an unknown task; both or neither of
            `reference` and `weights`.
        ComparisonError: models or outputs that do not correspond, a batch that the model cannot take,
            or NaN or Inf in the outputs of either model: which, where, and the first module with it.

    Example:
        >>> import copy, torch, w8a16
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
        >>> quantized = w8a16.quantize(copy.deepcopy(model))
        >>> comparison = compare(model, quantized, [torch.randn(5, 64)], sensitivity=True)
        >>> [(module.name, module.own.sqnr_db > 30) for module in comparison.modules]
        [('0', True), ('2', True)]
    """
    check_inputs(inputs)
    chosen = task_named(task or "any") if task is None or isinstance(task, str) else task
    units = units_of(quantized)
    sides = _sides(reference, quantized, weights, units)
    batches: Iterable[Any] = inputs
    if sensitivity and iter(inputs) is inputs:
        batches = list(inputs)
    report = progress or (lambda stage, done, total: None)
    with evaluating(*[model for model in (reference, quantized) if model is not None]):
        return _Comparing(sides, units, chosen, activation_bytes, report).compare(
            batches, layers_to_try if sensitivity else 0
        )


def _sides(
    reference: nn.Module | None, quantized: nn.Module, weights: WeightSource | None, units: list[Unit]
) -> Sides:
    if (reference is None) == (weights is None):
        got = "neither" if reference is None else "both"
        raise UsageError(f"expected a reference model or `weights` to run the int8 model with, got {got}")
    if reference is not None:
        check_counterparts(reference, quantized, units)
        return TwoModels(reference, quantized)
    check_int8(quantized, units)
    assert weights is not None
    return OneModel(quantized, weights)


class _Comparing:
    """One comparison under way."""

    def __init__(
        self, sides: Sides, units: list[Unit], task: Task, activation_bytes: int, progress: Progress
    ) -> None:
        self._sides, self._units, self._progress = sides, units, progress
        self._measure, self._fresh = Measure(task), Measure(task).another()
        self._observer = Observer(sides, units, activation_bytes)
        self._plan = plan(sides.quantized)
        self._samples = self._batches = 0

    def compare(self, batches: Iterable[Any], layers_to_try: int) -> Comparison:
        """Go through the batches, and through them again for the blame."""
        total = len(batches) if isinstance(batches, Sized) else 0
        for number, batch in enumerate(batches):
            self._take(batch, number)
            self._progress("batches", number + 1, total)
        if not self._batches:
            raise UsageError("inputs: expected at least one batch, got none")
        weight_errors = self._weight_errors()
        observations = self._observer.observations
        tried, untried = suspects(self._units, observations, self._plan, layers_to_try)
        runs = len(tried) * self._batches
        blame = blames(
            self._sides,
            tried,
            batches if tried else (),
            self._fresh,
            self._measure.drift,
            lambda done: self._progress("blame", done, runs),
        )
        return Comparison(
            model=model_name(self._sides),
            batches=self._batches,
            samples=self._samples,
            bytes_before=self._plan.bytes_before,
            bytes_after=bytes_now(self._plan),
            coverage=int8_coverage(self._plan),
            outputs=self._measure.outputs(),
            task_name=self._measure.task.name,
            task=self._measure.metrics(),
            modules=self._modules(weight_errors),
            drift=self._measure.drift,
            drift_unit=self._measure.drift_unit,
            blame=blame,
            blame_untried=untried if tried else (),
            kept_float=kept_float(self._plan),
        )

    def _take(self, batch: Any, number: int) -> None:
        self._samples += check_batch(batch, number)
        self._batches += 1
        reference, quantized = self._observer.observe(batch, number)
        with self._sides.float_side() as model:
            if has_fast_path(model):  # the outputs as they are where no hook slows the model down
                reference = run(model, batch, "float", number)
            if problem := nonfinite_in(reference):
                raise nonfinite_error("float", problem, model, batch, number)
        if has_fast_path(self._sides.quantized):
            quantized = run(self._sides.quantized, batch, "int8", number)
        if problem := nonfinite_in(quantized):
            raise nonfinite_error("int8", problem, self._sides.quantized, batch, number)
        self._measure.update(batch, reference, quantized)

    def _weight_errors(self) -> dict[str, WeightError]:
        """The worst weight of each unit."""
        mode, found = FloatMode(self._sides.quantized, self._sides.weights), {}
        for done, unit in enumerate(self._units):
            errors = [
                weight_error(weight_label(unit.name, name), unit.module, name, mode.weight(unit.module, name))
                for name in unit.module.layouts
            ]
            found[unit.name] = min(errors, key=lambda error: error.sqnr_db)
            self._progress("weights", done + 1, len(self._units))
        return found

    def _modules(self, weight_errors: dict[str, WeightError]) -> tuple[ModuleDrift, ...]:
        observations = self._observer.observations.values()
        called = sorted((o for o in observations if o.depth is not None), key=lambda o: o.depth or 0)
        silent = [observation for observation in observations if observation.depth is None]
        return tuple(_module_drift(each, weight_errors) for each in called + silent)


def _module_drift(observation: Observation, weight_errors: dict[str, WeightError]) -> ModuleDrift:
    unit, called = observation.unit, observation.depth is not None
    return ModuleDrift(
        name=unit.name,
        kind=unit.kind,
        tier=unit.tier,
        shape=unit.shape,
        depth=observation.depth,
        weight=weight_errors[unit.name],
        own=observation.own.result() if called else None,
        drifted=observation.drifted.result() if called and not observation.note else None,
        note=observation.why_missing,
    )
