"""A report as the words, rows and percentages that both pages show: all formatting, no markup.

Everything that came with a model (names of modules, reasons, units) may hold anything, so it passes
through `shown`, which leaves nothing that a reader cannot see. Escaping is up to the pages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from w8a16.checkpoint import shown
from w8a16.convert import size
from w8a16.study.compare import Blame, Comparison, ModuleDrift, TensorDrift
from w8a16.study.metrics import Metric
from w8a16.study.report.document import Report, SpeedRow
from w8a16.study.report.figures import decibels, milliseconds, noise, number, percent, similarity, times
from w8a16.study.report.histogram import WorstLayer
from w8a16.study.report.readings import Verdict, meaning_of, reading_of, verdict

FIRST_ROWS = 20
"""Layers and outputs that a page shows before it folds the rest away."""
FIRST_BLAMED = 5
"""The same for layers to blame."""


@dataclass(frozen=True)
class Span:
    """An interval on a line that reaches to where nothing differs, all in percent of the line's length."""

    start: float
    length: float
    value: float
    same: float | None
    """Where nothing differs: 0 for errors and differences, 1 for shares; None for decibels."""


def title(comparison: Comparison) -> str:
    """What the report is about."""
    return shown(comparison.model) or "Model"


def facts(comparison: Comparison) -> list[str]:
    """What was compared, in a few short phrases."""
    found = [
        f"{_count(comparison.samples, 'sample')} in {_count(comparison.batches, 'batch', 'batches')}",
        f"{_count(len(comparison.modules), 'int8 layer')}",
    ]
    if comparison.task_name not in ("", "any"):
        found.append(f"task: {shown(comparison.task_name)}")
    return found


def _count(count: int, noun: str, plural: str = "") -> str:
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def judged(comparison: Comparison) -> Verdict | None:
    """The verdict of the summary."""
    return verdict(task_of(comparison), lowest(comparison.outputs))


def task_of(comparison: Comparison) -> dict[str, Metric]:
    """The metrics of the task; of "any" none, for the table of the outputs has the same figures."""
    return {} if comparison.task_name == "any" else comparison.task


def lowest(outputs: Sequence[tuple[str, TensorDrift]]) -> float | None:
    """The lowest SQNR of the outputs that have one; NaN only if none has."""
    values = [drift.sqnr_db for _, drift in outputs]
    return min((value for value in values if not math.isnan(value)), default=values[0] if values else None)


def size_row(comparison: Comparison) -> dict[str, Any]:
    """Bytes before and after, and the length of the second bar in percent of the first."""
    before, after = comparison.bytes_before, comparison.bytes_after
    longest = max(before, after, 1)
    return {
        "before": size(before),
        "after": size(after),
        "before_length": round(100 * before / longest, 2),
        "after_length": round(100 * after / longest, 2),
        "ratio": _smaller(before, after),
        "coverage": percent(comparison.coverage),
    }


def _smaller(before: int, after: int) -> str:
    if not before or not after or before == after:
        return "the same size"
    return f"{times(before / after)} smaller" if after < before else f"{times(after / before)} larger"


def metric_rows(task: dict[str, Metric]) -> list[dict[str, Any]]:
    """Every metric with its interval and its meaning."""
    return [
        {
            "name": metric_name(name),
            "value": f"{_value(name, metric)} {shown(metric.unit)}".rstrip(),
            "interval": _interval(name, metric),
            "span": span(metric, reading_of(name, metric.unit) is None),
            "better": {"lower": "lower is better", "higher": "higher is better"}.get(metric.better, ""),
            "meaning": meaning_of(name, metric),
        }
        for name, metric in task.items()
    ]


_ABBREVIATIONS = {
    **{word: word.upper() for word in ("sqnr", "psnr", "ssim", "ctc", "rms", "r2")},
    "kl": "KL divergence",
    "top1": "top-1",
    "top5": "top-5",
}


def metric_name(name: str) -> str:
    """The name of a metric as people write it; names that are not of ours stay as they are.

    Example:
        >>> metric_name("top1_agreement"), metric_name("kl")
        ('Top-1 agreement', 'KL divergence')
    """
    if not re.fullmatch("[a-z0-9_]+", name):
        return shown(name)
    text = " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))
    return text[:1].upper() + text[1:]


def _value(name: str, metric: Metric, value: float | None = None) -> str:
    value = metric.value if value is None else value
    if metric.unit == "dB":
        return decibels(value).removesuffix(" dB")
    if "cosine" in name.lower() and metric.better == "higher":
        return similarity(value)
    return number(value)


def _interval(name: str, metric: Metric) -> str:
    if metric.low is None or metric.high is None:
        return "n/a"
    return f"{_value(name, metric, metric.low)} to {_value(name, metric, metric.high)}"


def span(metric: Metric, difference: bool = True) -> Span | None:
    """Where the interval lies on a line; None without an interval.

    Args:
        metric: with an interval.
        difference: whether it is one, so that 0 is where nothing differs even if higher is better.

    Example:
        >>> span(Metric(1.0, 0.5, 1.5))
        Span(start=36.3, length=54.9, value=63.7, same=8.8)
    """
    low, high = metric.low, metric.high
    if low is None or high is None or not all(map(math.isfinite, (low, high, metric.value))):
        return None
    same = 0.0 if difference or metric.better == "lower" else None if metric.unit == "dB" else 1.0
    marks = [low, high, metric.value] + ([] if same is None else [same])
    room = 0.107 * (max(marks) - min(marks)) or 1.0  # at both ends
    left, right = min(marks) - room, max(marks) + room

    def place(value: float) -> float:
        return round(100 * (value - left) / (right - left), 1)

    start = place(low)
    return Span(
        start, round(place(high) - start, 1), place(metric.value), None if same is None else place(same)
    )


def output_rows(outputs: Sequence[tuple[str, TensorDrift]]) -> list[dict[str, str]]:
    """Every output tensor, the largest error first."""
    ordered = sorted(outputs, key=lambda item: _order(item[1].sqnr_db))
    return [
        {
            "name": shown(path) or "output",
            "sqnr": decibels(drift.sqnr_db),
            "error": noise(drift.sqnr_db),
            "cosine": similarity(drift.cosine),
            "difference": f"{number(drift.largest_difference)} of {number(drift.largest_reference)}",
        }
        for path, drift in ordered
    ]


def layer_rows(modules: Sequence[ModuleDrift]) -> list[dict[str, str]]:
    """Every int8 layer, the largest error of its own first, and those that no input reached last."""
    places = {id(module): place for place, module in enumerate(called(modules), 1)}
    return [
        {
            "place": str(places.get(id(module), "")),
            "name": layer_name(module.name),
            "kind": shown(module.kind),
            "shape": " x ".join(map(str, module.shape)),
            "weight": decibels(module.weight.sqnr_db) if module.weight else "n/a",
            "half_steps": f"{module.weight.largest_half_steps:.3f}" if module.weight else "n/a",
            "crest": number(module.weight.crest_factor) if module.weight else "n/a",
            "own": noise(module.own.sqnr_db) if module.own else "n/a",
            "drifted": noise(module.drifted.sqnr_db) if module.drifted else "n/a",
            "note": shown(module.note),
        }
        for module in worst_first(modules)
    ]


def called(modules: Sequence[ModuleDrift]) -> list[ModuleDrift]:
    """The layers that the inputs reached, in the order of the first calls."""
    reached = [module for module in modules if module.depth is not None]
    return sorted(reached, key=lambda module: module.depth or 0)


def worst_first(modules: Sequence[ModuleDrift]) -> list[ModuleDrift]:
    """By the error that a layer's own weights make in its output, or else by that of its weights."""

    def key(module: ModuleDrift) -> tuple[int, float]:
        if module.own is not None:
            return 0, _order(module.own.sqnr_db)
        return 1, _order(module.weight.sqnr_db if module.weight else None)

    return sorted(modules, key=key)


def _order(sqnr_db: float | None) -> float:
    """The lowest first; what is not a number is worse than any."""
    return math.inf if sqnr_db is None else -math.inf if math.isnan(sqnr_db) else sqnr_db


def layer_name(name: str) -> str:
    """The path of a layer as it may be shown."""
    return shown(name) or "(the model itself)"


def blame_rows(blame: Sequence[Blame]) -> list[dict[str, Any]]:
    """The layers that were put back to float, with bars for their shares."""
    largest = max((abs(item.share) for item in blame if math.isfinite(item.share)), default=0.0) or 1.0
    return [
        {
            "name": layer_name(item.name),
            "share": percent(item.share),
            "length": round(100 * max(0.0, item.share) / largest, 1) if math.isfinite(item.share) else 0.0,
            "without": number(item.drift_without),
            "bytes": size(item.bytes_added),
            "tied": ", ".join(map(layer_name, item.tied)),
        }
        for item in blame
    ]


def worst_facts(worst: WorstLayer) -> list[str]:
    """What the two histograms show, in sentences."""
    zero = worst.codes[128] / max(1, sum(worst.codes))
    return [
        f"{worst.elements:,} weights; the largest is {number(worst.peak_to_rms)} times their root mean "
        f"square ({number(worst.rms)}, dashed). Among so many Gaussian weights the largest would be about "
        f"{number(gaussian_peak(worst.elements))} times.",
        f"{percent(worst.small_codes)} of the codes lie between -8 and 8, a sixteenth of the range, and "
        f"{percent(zero)} are 0. The step of a row is its largest weight / 127.",
    ]


def gaussian_peak(elements: int) -> float:
    """About how large the largest of so many Gaussian numbers is, in standard deviations.

    The median of the largest magnitude m solves `erfc(m / sqrt 2) = 1 - 2 ** (-1 / elements)`.

    Example:
        >>> round(gaussian_peak(1), 2), round(gaussian_peak(1_000_000), 1)
        (0.67, 5.0)
    """
    target = -math.expm1(-math.log(2) / max(1, elements))
    low, high = 0.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) > target else (low, middle)
    return low


def speed_rows(speed: Sequence[SpeedRow]) -> list[dict[str, Any]]:
    """Every shape at every batch size; bars in percent of the largest speedup."""
    largest = max((row.speedup for row in speed), default=1.0)
    return [
        {
            "shape": shown(row.shape),
            "layers": str(row.layers),
            "batch": str(row.batch),
            "dtype": shown(row.dtype),
            "float": milliseconds(row.float_seconds),
            "int8": milliseconds(row.int8_seconds),
            "speedup": times(row.speedup),
            "length": round(100 * row.speedup / largest, 1),
            "one": round(100 / largest, 1),
        }
        for row in speed
    ]


def summary_cards(report: Report) -> list[dict[str, str]]:
    """Three or four figures, each with the sentence that says what it means."""
    comparison = report.comparison
    row = size_row(comparison)
    cards = [
        {
            "label": "Size",
            "value": row["ratio"],
            "note": f"{row['before']} before, {row['after']} after. "
            f"{row['coverage']} of the bytes of all weight matrices became int8.",
        }
    ]
    found = judged(comparison)
    if found is not None and found.metric in comparison.task:
        (metric,) = metric_rows({found.metric: comparison.task[found.metric]})
        interval = "" if metric["interval"] == "n/a" else f" 95 % interval {metric['interval']}."
        cards.append(
            {
                "label": metric["name"],
                "value": metric["value"],
                "note": f"{metric['meaning'][:1].upper()}{metric['meaning'][1:]}.{interval}",
            }
        )
    if comparison.outputs:
        value = lowest(comparison.outputs)
        which = "The output" if len(comparison.outputs) == 1 else "The worst of the outputs"
        cards.append(
            {
                "label": "Error of the outputs",
                "value": noise(value),
                "note": "Root mean square, in proportion to the output. "
                f"{which} has an SQNR of {decibels(value)}.",
            }
        )
    if comparison.modules:
        cards.append(_weight_card(comparison.modules))
    return cards


def _weight_card(modules: Sequence[ModuleDrift]) -> dict[str, str]:
    values = sorted(m.weight.sqnr_db for m in modules if m.weight and not math.isnan(m.weight.sqnr_db))
    if not values:
        return {"label": "Weights", "value": "n/a", "note": "The float weights were not at hand."}
    return {
        "label": "Weights, median layer",
        "value": decibels(values[len(values) // 2]),
        "note": f"The worst layer has {decibels(values[0])}. Gaussian weights have 41 to 42 dB; "
        "heavy tails have less.",
    }
