"""The plan as a plain-text table, for `print(plan)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w8a16.convert.plan import Plan, PlanRow


def plan_text(plan: Plan) -> str:
    """One line for each group of like rows, then the totals."""
    groups: dict[tuple[str, str, str], list[PlanRow]] = {}
    for row in plan.rows:
        groups.setdefault((row.verdict, row.module_type, row.sentence), []).append(row)
    ordered = sorted(
        groups.items(), key=lambda item: (item[0][0] != "int8", -sum(r.bytes_before for r in item[1]))
    )
    cells = [("", "module", "weights", "before", "after", "why")]
    for (verdict, module_type, sentence), rows in ordered:
        before, after = sum(r.bytes_before for r in rows), sum(r.bytes_after for r in rows)
        cells.append((verdict, module_type, str(len(rows)), size(before), size(after), sentence))
    if plan.other_bytes:
        other = (size(plan.other_bytes), size(plan.other_bytes_after))
        cells.append(("", "other", "", *other, "vectors and buffers, not quantized"))
    cells.append(
        ("", "total", str(len(plan.rows)), size(plan.bytes_before), size(plan.bytes_after), _summary(plan))
    )
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    return "\n".join(_line(line, widths) for line in cells)


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


def _summary(plan: Plan) -> str:
    share = plan.bytes_after / plan.bytes_before if plan.bytes_before else 1.0
    return f"{share:.0%} of the float bytes; {plan.coverage:.1%} of the weight bytes are int8"


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    verdict, module, weights, before, after, why = line
    left = f"{verdict:<{widths[0]}}  {module:<{widths[1]}}  {weights:>{widths[2]}}"
    return f"{left}  {before:>{widths[3]}}  {after:>{widths[4]}}  {why}".rstrip()
