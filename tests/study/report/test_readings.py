"""What figures are said to mean: by arithmetic, and by the names that the tasks give them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

import w8a16
from w8a16.study.compare import compare
from w8a16.study.metrics import Metric
from w8a16.study.report import readings
from w8a16.study.report.readings import (
    AGREEMENT,
    COSINE,
    KL,
    KL_OF_CLASSES,
    OVERLAP,
    PSNR,
    R2,
    SQNR,
    SSIM,
    meaning_of,
    reading_of,
    verdict,
)


@pytest.mark.parametrize(
    ("task", "shape", "expected"),
    [
        ("classification", (16, 8), {"agreement": AGREEMENT, "kl": KL_OF_CLASSES}),
        ("language", (4, 4, 8), {"kl": KL, "top1_agreement": AGREEMENT, "top5_agreement": AGREEMENT}),
        ("embedding", (16, 8), {"cosine": COSINE, "neighbours_in_common_at_1": OVERLAP}),
        ("regression", (16, 8), {"r2_against_float": R2}),
        ("image", (2, 3, 8, 16), {"psnr": PSNR, "ssim": SSIM}),
    ],
)
def test_the_metrics_of_the_tasks_have_readings(
    task: str, shape: tuple[int, ...], expected: dict[str, readings.Reading]
) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(shape[-1], 16 if task == "image" else 12))
    quantized = w8a16.quantize(copy.deepcopy(model))
    found = compare(model, quantized, [torch.rand(shape)], task=task).task
    assert {name: reading_of(name, found[name].unit) for name in expected} == expected
    judged = verdict(found, None)
    assert judged is not None
    assert judged.metric in expected


@pytest.mark.parametrize(
    ("name", "metric", "meaning"),
    [
        ("kl", Metric(0.001, unit="nats/token"), "a 0.1 % higher perplexity"),
        ("kl", Metric(0.001, unit="nats"), "more than 2.24 points"),
        ("cosine", Metric(0.9995), "1.81 degrees apart"),
        ("psnr", Metric(20 * math.log10(255), unit="dB"), "off by 1 of 255 levels"),
        ("sqnr", Metric(40.0, unit="dB"), "the error is 1 % of the output"),
        ("sqnr", Metric(math.inf, unit="dB"), "not a single value differs"),
        ("r2_against_float", Metric(0.999), "0.1 % of the variance"),
        ("word_error_rate", Metric(0.012), "12 edits for 1,000"),
        ("accuracy_difference", Metric(0.01, 0.002, 0.02, better="higher"), "better than float"),
        ("kl", Metric(math.nan), "not a number"),
    ],
)
def test_meanings(name: str, metric: Metric, meaning: str) -> None:
    assert meaning in meaning_of(name, metric)


def test_the_lines_are_where_the_text_says() -> None:
    assert pytest.approx(0.03, abs=0.002) == 10 ** (-30 / 20)  # SQNR: 3 %
    assert math.sqrt(2 * (1 - COSINE.lines[0])) == pytest.approx(0.03, abs=0.002)
    assert math.sqrt(2 * (1 - COSINE.lines[1])) == pytest.approx(0.10, abs=0.001)
    assert math.degrees(math.acos(COSINE.lines[0])) == pytest.approx(1.8, abs=0.05)
    assert math.degrees(math.acos(COSINE.lines[1])) == pytest.approx(5.7, abs=0.05)
    assert math.sqrt(KL.lines[0] / 2) == pytest.approx(0.022, abs=0.0005)
    assert math.sqrt(KL.lines[1] / 2) == pytest.approx(0.071, abs=0.0005)
    assert 255 * 10 ** (-PSNR.lines[0] / 20) == pytest.approx(2.6, abs=0.06)
    assert 255 * 10 ** (-PSNR.lines[1] / 20) == pytest.approx(8, abs=0.1)
    assert math.sqrt(1 - R2.lines[0]) == pytest.approx(0.03, abs=0.002)


def test_what_is_not_measured_is_not_judged() -> None:
    assert verdict({}, None) is None
    assert verdict({"largest_difference": Metric(0.1)}, None) is None
    assert verdict({"cosine_least": Metric(0.1)}, 35.0) == verdict({}, 35.0)
    assert SQNR.level(math.nan) == 2


@pytest.mark.parametrize(
    ("value", "low", "high", "level", "further"),
    [
        (0.9996, 0.9995, 0.9997, 0, False),
        (0.9996, 0.9990, 0.9999, 0, True),  # very close, as far as these inputs tell
        (0.9994, 0.9992, 0.9996, 1, False),  # the better end alone makes nothing very close
        (0.9900, 0.9800, 0.9990, 1, True),  # the worse end alone makes nothing clearly different
        (0.9900, 0.9880, 0.9920, 2, False),
    ],
)
def test_intervals_decide_with_care(value: float, low: float, high: float, level: int, further: bool) -> None:
    found = verdict({"cosine": Metric(value, low, high, better="higher")}, None)
    assert found is not None
    assert (found.level, bool(found.open)) == (level, further)
