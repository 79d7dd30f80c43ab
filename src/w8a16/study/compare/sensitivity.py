"""Which modules to blame: each is put back to float alone, and the end-to-end drift is measured again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from w8a16.convert import Plan
from w8a16.study.compare.float_mode import float_mode
from w8a16.study.compare.measure import Measure
from w8a16.study.compare.observing import Observation
from w8a16.study.compare.result import Blame
from w8a16.study.compare.running import run
from w8a16.study.compare.sides import Sides
from w8a16.study.compare.units import Unit, tied_names

Progress = Callable[[str, int, int], None]
"""Called as `(what is done, how much of it is done, how much there is)`; 0 where that is not known."""


@dataclass(frozen=True)
class Suspect:
    """A module to put back to float, together with those that share its int8 tensors."""

    name: str
    together: tuple[str, ...]
    bytes_added: int


def suspects(
    units: list[Unit], observations: Mapping[str, Observation], plan: Plan, most: int
) -> tuple[list[Suspect], tuple[str, ...]]:
    """The `most` modules with the most noise of their own, and the names of the others.

    Modules whose calls were not seen (their weights may be read without one) come last. Of modules
    that share their int8 tensors, the first stands for all.
    """
    together = tied_names(units)
    leaders = [unit.name for unit in units if _is_first(unit.name, together, units)]
    noise = {name: max(_own_noise(observations[each]) for each in together[name]) for name in leaders}
    ranked = sorted(leaders, key=lambda name: -noise[name])
    added = _bytes_added(plan)
    chosen = [Suspect(name, together[name], _sum_for(together[name], units, added)) for name in ranked[:most]]
    return chosen, tuple(ranked[most:])


def blames(
    sides: Sides,
    suspects: list[Suspect],
    batches: Iterable[Any],
    measure: Measure,
    total: float,
    progress: Callable[[int], None],
) -> tuple[Blame, ...]:
    """Run every batch once in float and once for each suspect; the largest share first.

    Args:
        sides: the pair of models.
        suspects: what to put back to float, one at a time.
        batches: the same as before.
        measure: a fresh one.
        total: the end-to-end drift with all modules int8.
        progress: called with the number of runs so far.
    """
    measures = [(suspect, measure.another()) for suspect in suspects]
    done = 0
    for number, batch in enumerate(batches):
        with sides.float_side() as model:
            reference = run(model, batch, "float", number)
        for suspect, each in measures:
            with float_mode(sides.quantized, sides.weights, suspect.together):
                outputs = run(sides.quantized, batch, "int8", number)
            each.update(batch, reference, outputs)
            done += 1
            progress(done)
    found = [_blame(suspect, each.drift, total) for suspect, each in measures]
    return tuple(sorted(found, key=lambda blame: -blame.share))


def _blame(suspect: Suspect, drift_without: float, total: float) -> Blame:
    share = 1 - drift_without / total if total else 0.0
    return Blame(suspect.name, drift_without, share, suspect.bytes_added, suspect.together[1:])


def _own_noise(observation: Observation) -> float:
    return observation.own.relative_noise if observation.depth is not None else -1.0


def _is_first(name: str, together: Mapping[str, tuple[str, ...]], units: list[Unit]) -> bool:
    """Whether no earlier unit shares the int8 tensors of this one."""
    return next(unit.name for unit in units if unit.name in together[name]) == name


def _bytes_added(plan: Plan) -> dict[str, int]:
    """For each full name of an int8 weight, how many more bytes it has as float; tied ones counted once."""
    return {row.name: row.bytes_before - row.bytes_after for row in plan.rows if row.verdict == "int8"}


def _sum_for(names: tuple[str, ...], units: list[Unit], added: Mapping[str, int]) -> int:
    full_names = {
        f"{unit.name}.{weight}" if unit.name else weight
        for unit in units
        if unit.name in names
        for weight in unit.module.layouts
    }
    return sum(added.get(name, 0) for name in full_names)
