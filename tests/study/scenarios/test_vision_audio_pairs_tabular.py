"""What every scenario without text promises: shapes, determinism, int8 coverage, half precision, learning."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import w8a16
from w8a16.study.compare import compare
from w8a16.study.scenarios import MODALITIES, SCENARIOS, SIZES, Scenario, Scores, scenario_named

NAMES = [name for name in SCENARIOS if not name.startswith("text-")]

# The weights that stay float: a vector, and a matrix of one column, which scales would make larger.
FLOAT = {"vision-vit": {"vit.embeddings.cls_token"}, "image-generator": {"strength.0.weight"}}

# A trained small model must reach this; the baseline of each is far away.
REACHED = {
    "vision-vit": 0.7,
    "vision-resnet": 0.85,
    "image-generator": 24.4,
    "audio-words": 0.6,
    "image-text-pairs": 0.25,
    "tabular-diabetes": 0.3,
    "tabular-series": 0.65,
}


@cache
def untrained(name: str) -> nn.Module:
    torch.manual_seed(0)
    return scenario_named(name).build("small")


@cache
def scored(name: str) -> Scores:
    return scenario_named(name).evaluate(untrained(name), 0, torch.float32)


def run(model: nn.Module, batch: Any) -> Any:
    with torch.no_grad():
        if isinstance(batch, dict):
            return model(**batch)
        return model(*batch) if isinstance(batch, tuple) else model(batch)


def few_steps(scenario: Scenario, seed: int, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Training as it is, stopped after two steps."""
    from w8a16.study.scenarios.training import Schedule

    monkeypatch.setattr(Schedule, "shortened", lambda self, quick, factor=4: Schedule(2, self.learning_rate))
    return scenario.train("small", seed, True, lambda done, total: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_says_what_it_is(name: str) -> None:
    scenario = scenario_named(name)
    assert scenario.name == name
    assert scenario.modality in MODALITIES
    assert scenario.sizes == SIZES
    assert scenario.title
    assert scenario.source


@pytest.mark.parametrize("name", NAMES)
def test_sizes_grow(name: str) -> None:
    scenario = scenario_named(name)
    counts = [sum(p.numel() for p in scenario.build(size).parameters()) for size in SIZES]
    assert counts[0] * 1.4 < counts[1]
    assert counts[1] * 1.4 < counts[2]


@pytest.mark.parametrize("name", NAMES)
def test_untrained_models_score_about_the_baseline(name: str) -> None:
    scores, baseline = scored(name), scenario_named(name).baseline(0)
    worse = baseline - scores.mean if scores.better == "higher" else scores.mean - baseline
    assert worse > -0.1 * max(1.0, abs(baseline))
    assert len(scores.values) >= 150


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = scenario_named(name)
    first, again, other = (few_steps(scenario, seed, monkeypatch).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_becomes_int8_but_the_named_ones(name: str) -> None:
    rows = w8a16.plan(untrained(name)).rows
    assert {row.name for row in rows if row.verdict == "float"} == FLOAT.get(name, set())
    assert any(row.verdict == "int8" for row in rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_int8_models_run_in_every_dtype(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = scenario_named(name)
    quantized = w8a16.quantize(copy.deepcopy(untrained(name)).to(dtype))
    scores = scenario.evaluate(quantized, 0, dtype)
    assert len(scores.values) == len(scored(name).values)
    assert bool(scores.values.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_compare_takes_the_batches_and_the_task(name: str) -> None:
    scenario = scenario_named(name)
    batches = scenario.batches(2, 0)
    assert len(batches) == 2
    model = untrained(name)
    found = compare(model, w8a16.quantize(copy.deepcopy(model)), batches, task=scenario.task)
    assert found.task


@pytest.mark.parametrize("name", NAMES)
def test_batches_repeat_and_do_not_run_out(name: str) -> None:
    scenario = scenario_named(name)
    many = scenario.batches(20, 0)
    assert len(many) == 20
    assert run(untrained(name), many[-1]) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_small_model_learns(name: str) -> None:
    scenario = scenario_named(name)
    model = scenario.train("small", 0, False, lambda done, total: None)
    scores, baseline = scenario.evaluate(model, 0, torch.float32), scenario.baseline(0)
    if scores.better == "higher":
        assert scores.mean > REACHED[name] > baseline
    else:
        assert scores.mean < REACHED[name] < baseline
