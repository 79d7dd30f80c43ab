"""One cell: a model is trained, or found trained, and everything is measured on it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

from torch import nn

from w8a16.convert import quantize
from w8a16.study.compare import compare
from w8a16.study.runner.folder import Folder
from w8a16.study.runner.peers import PEERS, peer_rows
from w8a16.study.runner.rows import Scored, ScoredModel
from w8a16.study.runner.settings import CellKey, Settings
from w8a16.study.runner.tails import FACTORS, QUICK_FACTORS, tail_rows
from w8a16.study.scenarios import Scenario

Step = Callable[[str, float], None]
"""Called with what is being done and the share of the cell that is done, 0 to 1."""

_DRIFT_BATCHES = 4
_TRAINING = 0.5  # of the bar; what follows divides the rest


def measure_cell(scenario: Scenario, key: CellKey, settings: Settings, folder: Folder, step: Step) -> None:
    """Measure a cell and write it, with the processor seconds of its parts."""
    timing = Timing()
    step("training", 0.0)
    model, found = folder.model(
        scenario, settings, key, lambda done, total: step("training", _TRAINING * done / total)
    )
    timing.lap("training (found)" if found else "training")
    scored_model = ScoredModel(scenario, model, key.seed, settings.quick)
    total = scored_model.steps() + 3 * len(QUICK_FACTORS if settings.quick else FACTORS) + len(PEERS)
    parts: dict[str, list[Scored]] = {"rows": [], "tails": [], "peers": []}
    sources = {
        "rows": scored_model.rows(),
        "tails": tail_rows(scenario, model, scored_model, key.seed, settings.quick),
        "peers": peer_rows(model, scored_model),
    }
    for name, source in sources.items():
        for row in source:
            parts[name].append(row)
            done = sum(len(rows) for rows in parts.values())
            step(_said(row), _TRAINING + (1 - _TRAINING) * done / (total + 1))
        timing.lap(name)
    drift = drift_summary(scenario, model, key.seed)
    timing.lap("drift")
    cell = {
        "scenario": key.scenario,
        "modality": scenario.modality,
        "size": key.size,
        "seed": key.seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "metric": scored_model.reference.metric,
        "unit": scored_model.reference.unit,
        "better": scored_model.reference.better,
        "examples": len(scored_model.reference.values),
        "baseline": scenario.baseline(key.seed),
        **{name: [each.row for each in rows] for name, rows in parts.items()},
        "drift": drift,
    }
    losses = {name: [each.losses for each in rows] for name, rows in parts.items()}
    folder.write_cell(settings, key, {"cell": cell, "losses": losses, "seconds": timing.seconds})


def drift_summary(scenario: Scenario, model: nn.Module, seed: int) -> dict[str, Any]:
    """What `compare` says about float32 against int8, without the list of all modules."""
    batches = scenario.batches(_DRIFT_BATCHES, seed)
    found = compare(model, quantize(copy.deepcopy(model)), batches, task=scenario.task).to_dict()
    measured = [module for module in found["modules"] if module["own"] is not None]
    worst = sorted(measured, key=lambda module: float(module["own"]["sqnr_db"]))[:3]
    return {
        "batches": found["batches"],
        "samples": found["samples"],
        "coverage": found["coverage"],
        "drift": found["drift"],
        "drift_unit": found["drift_unit"],
        "task": found["task"],
        "outputs": [[path, drift["sqnr_db"], drift["cosine"]] for path, drift in found["outputs"]],
        "worst_modules": [[m["name"], m["kind"], m["own"]["sqnr_db"]] for m in worst],
    }


class Timing:
    """Processor seconds of the parts of a cell, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        """What was spent since the last lap goes to this part."""
        now = time.process_time()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def _said(scored: Scored) -> str:
    row = scored.row
    if "peer" in row:
        return str(row["peer"])
    tails = f", tails x{row['factor']:g}" if "factor" in row else ""
    return f"{row['dtype']} {row['variant']}{tails}"
