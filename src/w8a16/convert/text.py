"""The plan as a plain-text table, for `print(plan)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w8a16.convert.plan import Plan, PlanRow


@dataclass(frozen=True)
class Group:
    """Weights of one module type with the same verdict for the same reason."""

    verdict: str
    module_type: str
    sentence: str
    count: int
    bytes_before: int
    bytes_after: int


def grouped(plan: Plan) -> list[Group]:
    """The rows of a plan in groups: int8 first, then by size."""
    rows: dict[tuple[str, str, str], list[PlanRow]] = {}
    for row in plan.rows:
        rows.setdefault((row.verdict, row.module_type, row.sentence), []).append(row)
    groups = [
        Group(*key, len(same), sum(r.bytes_before for r in same), sum(r.bytes_after for r in same))
        for key, same in rows.items()
    ]
    return sorted(groups, key=lambda group: (group.verdict != "int8", -group.bytes_before))


def plan_text(plan: Plan) -> str:
    """One line for each group, then the totals."""
    cells = [("", "module", "weights", "before", "after", "why")]
    for group in grouped(plan):
        before, after = size(group.bytes_before), size(group.bytes_after)
        cells.append((group.verdict, group.module_type, str(group.count), before, after, group.sentence))
    if plan.other_bytes:
        other = (size(plan.other_bytes), size(plan.other_bytes_after))
        cells.append(("", "other", "", *other, "vectors and buffers, not quantized"))
    total = (size(plan.bytes_before), size(plan.bytes_after))
    cells.append(("", "total", str(len(plan.rows)), *total, summary(plan)))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join(_line(line, widths) for line in cells)


def summary(plan: Plan) -> str:
    """What the plan comes to, in one sentence."""
    share = plan.bytes_after / plan.bytes_before if plan.bytes_before else 1.0
    return f"{share:.0%} of the float bytes; {plan.coverage:.1%} of the weight bytes are int8"


def size(count: int) -> str:
    """Bytes in decimal units, three significant digits.

    Example:
        >>> size(1_234_567)
        '1.23 MB'
    """
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 0 if unit == "B" else max(0, 2 - (value >= 9.995) - (value >= 99.95))
    return f"{value:.{digits}f} {unit}"


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    verdict, module, weights, before, after, why = line
    left = f"{verdict:<{widths[0]}}  {module:<{widths[1]}}  {weights:>{widths[2]}}"
    return f"{left}  {before:>{widths[3]}}  {after:>{widths[4]}}  {why}".rstrip()
