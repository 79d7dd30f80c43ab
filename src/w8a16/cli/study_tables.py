"""The tables at the end of `w8a16 study`."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from w8a16.cli.show import table

_LOSSES = (
    ("int8", "float32", "int8"),
    ("int8 bf16", "bfloat16", "int8"),
    ("textbook bf16", "bfloat16", "textbook"),
)


def loss_table(results: dict[str, Any]) -> Table:
    """One row for each scenario and size: the float score, and what is lost against it."""
    columns = ("scenario", "size", "float32", *(label for label, *_ in _LOSSES), "bytes")
    title = "Loss against float32; above 0 is worse; *: the 95 % interval excludes 0"
    result = table(*columns, right=columns[2:], title=title)
    result.columns[0].no_wrap = True
    for group in results["pooled"]:
        rows = {(row["dtype"], row["variant"]): row for row in group["rows"]}
        base, int8 = rows["float32", "float"], rows["float32", "int8"]
        losses = [_loss(rows.get((dtype, variant))) for _, dtype, variant in _LOSSES]
        ratio = f"{int8['bytes'] / base['bytes']:.2f}"
        score = f"{base['score']:.3g}"
        result.add_row(Text(group["scenario"]), group["size"], score, *losses, ratio)
    return result


def tails_table(results: dict[str, Any]) -> Table:
    """Heavy tails: what int8 loses, what it loses after the repair, and what the repair costs."""
    columns = ("scenario", "size", "factor", "int8", "repaired", "bytes added")
    title = "Heavy tails: loss against the float32 model"
    result = table(*columns, right=columns[2:], title=title)
    for group in results["pooled"]:
        for factor in dict.fromkeys(row["factor"] for row in group["tails"]):
            rows = {row["variant"]: row for row in group["tails"] if row["factor"] == factor}
            repaired = rows.get("repaired", {})
            share = repaired.get("share_added")
            added = "-" if share is None else f"{share:.1%}"
            cells = (_loss(rows.get("int8")), _loss(repaired), added)
            result.add_row(Text(group["scenario"]), group["size"], f"{factor:g}", *cells)
    return result


def cost_table(seconds: dict[str, dict[str, float]]) -> Table:
    """Processor seconds of each cell."""
    columns = ("cell", "training", "rows", "tails", "peers", "drift", "all")
    result = table(*columns, right=columns[1:], title="Processor seconds, when each cell was measured")
    for cell, parts in seconds.items():
        training = parts.get("training")
        shown = ["found" if training is None else f"{training:.1f}"]
        shown += [f"{parts[name]:.1f}" for name in columns[2:-1]]
        result.add_row(Text(cell), *shown, f"{sum(parts.values()):.1f}")
    return result


def _loss(row: dict[str, Any] | None) -> str:
    loss = (row or {}).get("loss")
    if not loss:
        return "-"
    value = loss["value"]
    number = f"{value:.4f}" if abs(value) >= 5e-5 or value == 0 else f"{value:.0e}"
    return number + ("*" if loss["low"] > 0 or loss["high"] < 0 else "")
