"""What a repair found: the recipe, what it costs, and what each byte bought. Plain frozen records."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from w8a16.convert import Recipe, size
from w8a16.study.plain_text import plain_data, text_table


@dataclass(frozen=True)
class Point:
    """One configuration that was measured."""

    bytes_added: int
    """Beyond plain int8."""
    value: float
    """By the budget's measure."""
    upgraded: int
    """How many weights are held better than plain int8."""
    real: bool
    """Measured on the int8 model itself; else on a float model with its values."""


@dataclass(frozen=True)
class Choice:
    """How one weight is held, and why."""

    name: str
    kind: str
    shape: tuple[int, ...]
    held: str
    """"int8", "4 outliers a row", "groups of 128" or "float"."""
    bytes_added: int
    share: float | None
    """Its part of the drift that all weights cause one at a time, in plain int8; None: not measured."""
    reason: str


@dataclass(frozen=True)
class Repair:
    """A recipe that keeps the budget, measured on the int8 model that it makes."""

    metric: str
    limit: float
    better: str
    """"lower" or "higher"."""
    value_before: float
    """Of plain int8."""
    value: float
    """Of the int8 model that the recipe makes."""
    bytes_before: int
    """Of the whole int8 model without upgrades."""
    bytes_after: int
    recipe: Recipe
    choices: tuple[Choice, ...]
    """Every weight that could be int8, in the model's order."""
    curve: tuple[Point, ...]
    """Everything that was measured, from the cheapest on."""

    @property
    def bytes_added(self) -> int:
        """What the upgrades cost."""
        return self.bytes_after - self.bytes_before

    @property
    def share_added(self) -> float:
        """The same as a share of the int8 model."""
        return self.bytes_added / self.bytes_before if self.bytes_before else 0.0

    @property
    def frontier(self) -> tuple[Point, ...]:
        """The points of the curve that are better than all that cost no more.

        Of the same price, one of the int8 model itself stands for those of the simulation.
        """
        sign = 1 if self.better == "lower" else -1
        found: list[Point] = []
        for point in self.curve:  # of the same price, the real ones come first
            if found and sign * point.value >= sign * found[-1].value:
                continue
            if found and found[-1].bytes_added == point.bytes_added:
                if found[-1].real and not point.real:
                    continue
                found.pop()
            found.append(point)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite are the strings "inf", "-inf" and "nan"."""
        data = {**asdict(self), "recipe": self.recipe.to_dict()}
        data |= {"bytes_added": self.bytes_added, "share_added": self.share_added}
        plain: dict[str, Any] = plain_data(data)
        return plain

    def __str__(self) -> str:
        return repair_text(self)


def write_repair(
    repair: Repair, recipe: str | os.PathLike[str], curve: str | os.PathLike[str] | None = None
) -> None:
    """Write the recipe, as `quantize` takes it, and all that was measured, as JSON."""
    repair.recipe.save(recipe)
    if curve is not None:
        Path(curve).write_text(json.dumps(repair.to_dict(), indent=2) + "\n", encoding="utf-8")


def repair_text(repair: Repair) -> str:
    """The repair in tables: what it came to, the weights that were upgraded, the curve."""
    way = "at most" if repair.better == "lower" else "at least"
    lines = [
        f"{repair.metric} {way} {repair.limit:.6g}: plain int8 has {repair.value_before:.6g}, "
        f"the recipe {repair.value:.6g}",
        f"{size(repair.bytes_before)} to {size(repair.bytes_after)}: {size(repair.bytes_added)} "
        f"({repair.share_added:.2%}) more",
    ]
    upgraded = [choice for choice in repair.choices if choice.held != "int8"]
    rows = [("weight", "held", "bytes", "why")]
    rows += [(c.name, c.held, f"+{size(c.bytes_added)}", c.reason) for c in upgraded]
    rest = len(repair.choices) - len(upgraded)
    tables = [text_table(rows)] if upgraded else []
    tables.append(f"{rest} of {len(repair.choices)} weights stay plain int8")
    points = [("bytes", repair.metric, "upgraded", "measured on")]
    points += [
        (f"+{size(p.bytes_added)}", f"{p.value:.6g}", str(p.upgraded), "int8" if p.real else "simulation")
        for p in repair.frontier
    ]
    return "\n\n".join(["\n".join(lines), *tables, text_table(points)])
