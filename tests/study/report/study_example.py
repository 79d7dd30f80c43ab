"""Results of a study as it writes them, with made-up figures."""

from __future__ import annotations

import random
from typing import Any

SCENARIOS = (
    ("text-gpt", "GPT on documentation", "text", "cross-entropy", "bits per byte", "lower", 2.1),
    ("vision-vit", "ViT on digits", "vision", "accuracy", "", "higher", 0.97),
    ("tabular-mlp", "MLP on a table", "tabular", "R2", "", "higher", 0.82),
)
COSTS = {
    "float": 0.0,
    "int8": 0.0002,
    "textbook": 0.03,
    "per_tensor": 0.004,
    "groups_128": 0.0001,
    "range_128": 0.0002,
    "bits_6": 0.004,
    "bits_4": 0.3,
    "scales_bf16": 0.0003,
}


def results(
    sizes: tuple[str, ...] = ("small", "medium", "large"), seeds: int = 3, scenarios: int = 3
) -> dict[str, Any]:
    draw = random.Random(0)
    cells, pooled = [], []
    for name, _, modality, metric, unit, better, score in SCENARIOS[:scenarios]:
        for place, size in enumerate(sizes):
            head = {"scenario": name, "modality": modality, "size": size, "metric": metric, "unit": unit}
            head |= {"better": better, "parameters": 60_000 * 4**place}
            own = [{**head, "seed": seed, **_parts(draw, score, better)} for seed in range(seeds)]
            cells += own
            pooled.append(
                {**head, "seeds": seeds, **{part: own[0][part] for part in ("rows", "tails", "peers")}}
            )
    return {
        "format": "w8a16-study",
        "version": 1,
        "settings": {"sizes": list(sizes), "seeds": seeds, "quick": False},
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "peers": {"torchao": "0.13.0", "sdnq": None},
        "scenarios": [
            {
                "name": name,
                "title": title,
                "modality": modality,
                "task": "any",
                "source": f"Made up: {title}.",
            }
            for name, title, modality, *_ in SCENARIOS[:scenarios]
        ],
        "cells": cells,
        "pooled": pooled,
    }


def _parts(draw: random.Random, score: float, better: str) -> dict[str, Any]:
    def row(loss: float, **more: Any) -> dict[str, Any]:
        value, width = loss + draw.gauss(0, 0.0002), 0.0004 + loss / 4
        interval = {"value": value, "low": value - width, "high": value + width}
        found = score + value if better == "lower" else score - value
        return {"score": found, "loss": interval, "loss_same_dtype": interval, **more}

    rows = [
        row(cost, dtype="float32", variant=name, bytes=240_000 if name == "float" else 64_000, flip_rate=None)
        for name, cost in COSTS.items()
        if name != "textbook"
    ]
    rows[0] |= {"loss": {"value": 0.0, "low": 0.0, "high": 0.0}, "score": score}
    for dtype in ("bfloat16", "float16"):
        rows += [
            row(0.0003, dtype=dtype, variant="float", bytes=120_000, flip_rate=None),
            row(0.0005, dtype=dtype, variant="int8", bytes=63_000, flip_rate=None),
        ]
    rows.append(row(0.03, dtype="bfloat16", variant="textbook", bytes=62_500, flip_rate=0.61))
    tails = []
    for factor in (32.0, 128.0):
        tails += [
            row(0.0, dtype="float32", factor=factor, variant="float", bytes=240_000),
            row(factor / 1000, dtype="float32", factor=factor, variant="int8", bytes=64_000),
            row(0.0004, dtype="float32", factor=factor, variant="repaired", bytes=65_000, share_added=0.0156),
        ]
    peers = [
        row(0.0002, peer="torchao", version="0.13.0", dtype="float32", bytes=64_100),
        {
            "peer": "sdnq",
            "version": None,
            "dtype": "float32",
            "score": None,
            "loss": None,
            "note": "not installed",
        },
    ]
    return {"rows": rows, "tails": tails, "peers": peers}
