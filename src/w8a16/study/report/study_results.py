"""The results of the study as rows that can be selected: one for each score.

A loss is how much worse a score is than that of the float model: positive is worse, whichever way is
better. Its 95 % interval is over held-out examples, paired; that of pooled rows is over examples whose
losses were averaged over the seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from w8a16.checkpoint import shown

SIZES = ("small", "medium", "large")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Loss:
    """A loss with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0 on the bad side."""
        return self.low > 0

    @property
    def gain(self) -> bool:
        """Whether the interval excludes 0 on the good side."""
        return self.high < 0


@dataclass(frozen=True)
class Row:
    """One score of one model, or of the models of all seeds together."""

    scenario: str
    title: str
    size: str
    seed: int | None
    """None for all seeds together."""
    parameters: int
    metric: str
    unit: str
    dtype: str
    variant: str
    """The quantizer; the library for rows of peers."""
    score: float | None
    """None where the model could not be scored; the note says why."""
    loss: Loss | None
    """Against the float32 model."""
    loss_same_dtype: Loss | None
    """Against the float model of the same dtype."""
    bytes: float | None
    flip_rate: float | None
    factor: float | None
    """By how much single weights were made larger, in the part with injected tails."""
    share_added: float | None
    """Bytes that the repair added, as a share of the int8 model's."""
    note: str


def rows_of(results: dict[str, Any], part: str = "rows", of: str = "pooled") -> list[Row]:
    """All rows of a part, in the order of the document.

    Args:
        results: the document that the study writes.
        part: "rows", "tails" or "peers".
        of: "pooled" for all seeds together, "cells" for each seed.
    """
    titles = {scenario["name"]: scenario["title"] for scenario in results.get("scenarios", ())}
    return [_row(cell, row, titles) for cell in results[of] for row in cell.get(part) or ()]


def _row(cell: dict[str, Any], row: dict[str, Any], titles: dict[str, str]) -> Row:
    return Row(
        scenario=cell["scenario"],
        title=shown(titles.get(cell["scenario"], cell["scenario"])),
        size=cell["size"],
        seed=cell.get("seed"),
        parameters=int(cell["parameters"]),
        metric=cell["metric"],
        unit=cell["unit"],
        dtype=row["dtype"],
        variant=row["variant"] if "variant" in row else row["peer"],
        score=row["score"],
        loss=_loss(row.get("loss")),
        loss_same_dtype=_loss(row.get("loss_same_dtype")),
        bytes=row.get("bytes"),
        flip_rate=row.get("flip_rate"),
        factor=row.get("factor"),
        share_added=row.get("share_added"),
        note=shown(row.get("note", "")),
    )


def _loss(data: dict[str, float] | None) -> Loss | None:
    return None if data is None else Loss(data["value"], data["low"], data["high"])


def chosen(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose attributes are as wanted.

    Example:
        >>> chosen([], variant="int8", dtype="float32")
        []
    """
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def largest_size(rows: Sequence[Row], scenario: str) -> str:
    """The largest size of a scenario that was run."""
    sizes = {row.size for row in rows if row.scenario == scenario}
    return max(sizes, key=lambda size: SIZES.index(size) if size in SIZES else -1)


def distinct(rows: Iterable[Row], attribute: str) -> list[Any]:
    """The values of an attribute, in the order of the rows; sizes and dtypes in their own order."""
    found = dict.fromkeys(getattr(row, attribute) for row in rows)
    order = {"size": SIZES, "dtype": DTYPES}.get(attribute, ())
    return sorted(found, key=lambda value: order.index(value) if value in order else len(order))
