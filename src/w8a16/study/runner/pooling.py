"""Puts the seeds of a scenario and size together.

Each example's losses are averaged over the seeds, and the interval is the bootstrap over examples: the
seeds are scored on the same examples, so they are not independent draws. Where they are (the pretrained
model, whose seeds draw other examples) the average over seeds is as good: its variance is what pooling
all of them gives.
"""

from __future__ import annotations

from typing import Any

import torch

from w8a16.errors import CheckpointError
from w8a16.study.runner.rows import interval

_WHAT = ("dtype", "variant", "factor", "peer", "version")
_MEANS = ("score", "bytes", "flip_rate", "bytes_added", "share_added")


def pooled(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """One scenario and size over all seeds; `entries` are cell files in the order of the seeds.

    Raises:
        CheckpointError: the seeds have different examples.
    """
    first = entries[0]["cell"]
    counts = sorted({entry["cell"]["examples"] for entry in entries})
    if len(counts) > 1:
        raise CheckpointError(
            f"{first['scenario']} {first['size']}: expected the same number of examples, got {counts}"
        )
    result = {name: first[name] for name in ("scenario", "modality", "size", "metric", "unit", "better")}
    result |= {"seeds": len(entries), "parameters": first["parameters"]}
    for part in ("rows", "tails", "peers"):
        result[part] = _pooled_part(entries, part)
    return result


def _pooled_part(entries: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[tuple[dict[str, Any], dict[str, list[float]]]]] = {}
    for entry in entries:
        for row, losses in zip(entry["cell"][part], entry["losses"][part], strict=True):
            found.setdefault(tuple(row.get(name) for name in _WHAT), []).append((row, losses))
    return [
        _pooled_row([row for row, _ in group], [losses for _, losses in group]) for group in found.values()
    ]


def _pooled_row(rows: list[dict[str, Any]], losses: list[dict[str, list[float]]]) -> dict[str, Any]:
    measured = [row for row in rows if row["score"] is not None]
    result = {name: rows[0][name] for name in _WHAT if name in rows[0]}
    result["seeds"] = len(measured)
    for name in _MEANS:
        values = [row[name] for row in measured if row.get(name) is not None]
        if values or name in rows[0]:
            result[name] = _mean(values)
    for name in ("loss", "loss_same_dtype"):
        values = [each[name] for each in losses if name in each]
        if values:
            result[name] = interval(torch.tensor(values, dtype=torch.float64).mean(0))
        elif name in rows[0]:
            result[name] = None
    notes = sorted({row["note"] for row in rows if "note" in row})
    return {**result, **({"note": "; ".join(notes)} if notes else {})}


def _mean(values: list[Any]) -> Any:
    """The value itself where all are the same, so that bytes stay whole."""
    return None if not values else values[0] if len(set(values)) == 1 else sum(values) / len(values)
