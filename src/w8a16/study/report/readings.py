"""What figures mean in plain words, and where the lines between small and large are drawn.

The lines are a choice; each comes with the arithmetic behind it, so that a reader can draw another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from w8a16.study.metrics import Metric
from w8a16.study.report.figures import number, percent

WORDS = ("very close", "close, with measurable differences", "clearly different")
"""What the two lines of a reading divide."""


@dataclass(frozen=True)
class Reading:
    """How to read one kind of figure."""

    term: str
    lines: tuple[float, float]
    """From "very close" to measurable, and from there to "clearly different"."""
    higher_is_better: bool
    why: str
    """What the figure is, and why the lines are where they are: for the page's list of terms."""
    meaning: Callable[[float], str]
    """One value in plain words."""

    def level(self, value: float) -> int:
        """0, 1 or 2: an index of `WORDS`. What is not a number is never close.

        Example:
            >>> SQNR.level(38.0), SQNR.level(25.0), SQNR.level(float("nan"))
            (0, 1, 2)
        """
        if math.isnan(value):
            return 2
        first, second = self.lines
        if self.higher_is_better:
            return 0 if value >= first else 1 if value >= second else 2
        return 0 if value <= first else 1 if value <= second else 2


def _differing(agreement: float) -> str:
    return f"{number(1000 * (1 - agreement))} of 1,000 are not the same"


def _error(sqnr_db: float) -> str:
    if math.isinf(sqnr_db) and sqnr_db > 0:
        return "not a single value differs"
    return f"the error is {percent(float(f'{10 ** (-sqnr_db / 20):.2g}'))} of the output, root mean square"


def _angle(cosine: float) -> str:
    return f"{number(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))} degrees apart"


def _points(kl: float) -> str:
    points = number(100 * min(1.0, math.sqrt(max(0.0, kl) / 2)))
    return f"on average no class has a probability that differs by more than {points} points"


def _surprise(kl: float) -> str:
    return f"the float model's own text has a {percent(math.expm1(min(kl, 700.0)))} higher perplexity"


def _levels(psnr_db: float) -> str:
    if math.isinf(psnr_db) and psnr_db > 0:
        return "not a single value differs"
    return f"off by {number(255 * 10 ** (-psnr_db / 20))} of 255 levels, root mean square"


SQNR = Reading(
    "SQNR, of outputs",
    (30.0, 20.0),
    True,
    "Signal power over error power, in decibels: 40 dB is an error of 1 % of the signal, 30 dB of 3 %, 20 dB "
    "of 10 %. For comparison: rounding an output once to bfloat16 gives about 56 dB. Lines: 3 % and 10 %.",
    _error,
)
KL = Reading(
    "KL divergence, of next-token probabilities",
    (1e-3, 1e-2),
    False,
    "How much likelihood is lost when the int8 model predicts what the float model would say. 0.001 nats per "
    "token raise the perplexity of the float model's own text by 0.1 %, and no event's probability differs "
    "by more than 2.2 points on average (Pinsker's inequality); 0.01 are 1 %, and 7.1 points. Lines: both.",
    _surprise,
)
KL_OF_CLASSES = Reading(
    "KL divergence, of the probabilities of classes",
    (1e-3, 1e-2),
    False,
    "How much likelihood is lost when the int8 model predicts what the float model would say. At 0.001 nats "
    "no event's probability differs by more than 2.2 points on average, at 0.01 by 7.1 (Pinsker's "
    "inequality). Lines: both.",
    _points,
)
AGREEMENT = Reading(
    "Agreement",
    (0.99, 0.95),
    True,
    "How often both models decide the same. Near-ties flip under any small change, so 100 % is rare, and a "
    "flipped decision need not be a worse one. Lines: 1 and 5 decisions of 100.",
    _differing,
)
ERROR_RATE = Reading(
    "Error rate against the float model",
    (0.01, 0.05),
    False,
    "Edits that turn the int8 model's output into the float model's, per token or word. It counts every "
    "difference as an error, better or worse. Lines: 1 and 5 edits of 100.",
    lambda rate: f"{number(1000 * rate)} edits for 1,000 tokens or words",
)
COSINE = Reading(
    "Cosine",
    (0.9995, 0.995),
    True,
    "Of the angle between the float and the int8 output: 1 is the same direction. 0.9995 are 1.8 degrees, as "
    "an error of 3 % of the signal gives; 0.995 are 5.7 degrees, or 10 %. Lines: these two.",
    _angle,
)
OVERLAP = Reading(
    "Rank overlap",
    (0.99, 0.95),
    True,
    "Share of the nearest neighbours that the float model finds and the int8 model finds too. Neighbours "
    "that are equally near swap places under any small change. Lines: 1 and 5 of 100.",
    _differing,
)
PSNR = Reading(
    "PSNR",
    (40.0, 30.0),
    True,
    "Peak signal to noise ratio: 48 dB is an error of one level of 255 (root mean square), 40 dB of 2.6 "
    "levels, 30 dB of 8. Lines: 40 and 30 dB.",
    _levels,
)
SSIM = Reading(
    "SSIM",
    (0.99, 0.95),
    True,
    "Structural similarity of images in small windows; 1 is the same image. Its scale has no unit, so the "
    "lines are rules of thumb: 0.99 and 0.95.",
    lambda value: f"{number(1 - value)} away from the same image",
)
R2 = Reading(
    "R2 against the float model",
    (0.999, 0.99),
    True,
    "Share of the variance of the float model's outputs that the int8 model reproduces. Lines: all but "
    "0.1 %, and all but 1 %, which are errors of 3 % and 10 % of the spread.",
    lambda value: f"{percent(max(0.0, 1 - value))} of the variance is not reproduced",
)
INTERVAL = (
    "95 % interval",
    "From resampling the examples (paired bootstrap): if it contains no difference, these inputs show none, "
    "which is not the same as there being none; more inputs make it narrower.",
)
WEIGHT_ERROR = (
    "SQNR, of weights",
    "Bell-shaped (Gaussian) weights with 1,000 to 4,000 inputs a row give 41 to 42 dB, an error of 0.8 to "
    "0.9 %: as good as 8 bits with one scale a row get. Much less means that a few weights of a row are "
    "far larger than the rest, and stretch the scale for all.",
)
HALF_STEPS = (
    "Largest error in half-steps",
    "Every weight is rounded to the nearest of 255 steps, so no error may exceed 1 half-step "
    "(and 1/32768 for rounding). More would be a fault, not a cost.",
)

_READINGS: tuple[tuple[str, Reading], ...] = (
    ("kl", KL),
    (r"(top\d_)?agreement", AGREEMENT),
    (r"neighbours_in_common_at_\d+", OVERLAP),
    (r"cosine(_least)?", COSINE),
    ("sqnr", SQNR),
    (r"psnr(_least)?", PSNR),
    ("ssim", SSIM),
    ("r2_against_float", R2),
    ("(token|word)_error_rate", ERROR_RATE),
)


def reading_of(name: str, unit: str = "") -> Reading | None:
    """How to read a metric of a task, by its name; None for one without lines.

    Example:
        >>> reading_of("kl", "nats/token").term, reading_of("accuracy_float")
        ('KL divergence, of next-token probabilities', None)
    """
    for pattern, reading in _READINGS:
        if re.fullmatch(pattern, name):
            return KL_OF_CLASSES if reading is KL and unit != "nats/token" else reading
    return None


def meaning_of(name: str, metric: Metric) -> str:
    """One metric in plain words: by its reading, or by what its interval says about a difference."""
    if math.isnan(metric.value):
        return "not a number"
    reading = reading_of(name, metric.unit)
    if reading is not None:
        return reading.meaning(metric.value)
    return cost_in_words(metric) or ""


def cost_in_words(metric: Metric) -> str | None:
    """What the interval of a difference, int8 minus float, shows; None without an interval.

    Example:
        >>> cost_in_words(Metric(-0.02, -0.03, -0.01, better="higher"))
        'worse than float: the interval excludes 0'
    """
    if metric.low is None or metric.high is None or metric.better == "neither":
        return None
    if metric.low <= 0 <= metric.high:
        return "no difference shown: the interval contains 0"
    return f"{'worse' if is_worse(metric) else 'better'} than float: the interval excludes 0"


def is_worse(metric: Metric) -> bool:
    """Whether the interval of a difference, int8 minus float, excludes 0 on the bad side."""
    if metric.low is None or metric.high is None:
        return False
    return metric.low > 0 if metric.better == "lower" else metric.high < 0 and metric.better == "higher"


@dataclass(frozen=True)
class Verdict:
    """The summary in a few words, and what it rests on."""

    level: int
    words: str
    metric: str
    """The name of the metric that decided: the worst of those that have lines."""
    meaning: str
    open: tuple[tuple[str, str], ...] = ()
    """Metrics whose intervals reach further: names, and the words for what is not ruled out."""


@dataclass(frozen=True)
class _Judged:
    shown: int
    """The level of the value; "clearly different" only if that of the better end of the interval is, too."""
    possible: int
    """The level of the worse end."""
    name: str
    meaning: str


def verdict(task: Mapping[str, Metric], lowest_sqnr_db: float | None) -> Verdict | None:
    """Judge a comparison by the worst that its task's metrics show, or else by its outputs.

    What is clearly different is so with the whole interval. A difference in the score itself is at least
    measurable where its interval excludes 0 on the bad side.

    Args:
        task: the metrics of the task.
        lowest_sqnr_db: of the outputs; None if there are none.

    Returns:
        None where nothing that has lines was measured.
    """
    judged = [found for name, metric in task.items() if (found := _judge(name, metric)) is not None]
    if not judged and lowest_sqnr_db is not None:
        level, metric = SQNR.level(lowest_sqnr_db), Metric(lowest_sqnr_db, better="higher")
        judged = [_Judged(level, level, "SQNR of the outputs", meaning_of("sqnr", metric))]
    if not judged:
        return None
    worst = max(judged, key=lambda found: found.shown)  # the first of equals
    beyond = tuple((found.name, WORDS[found.possible]) for found in judged if found.possible > worst.shown)
    return Verdict(worst.shown, WORDS[worst.shown], worst.name, worst.meaning, beyond)


def _judge(name: str, metric: Metric) -> _Judged | None:
    reading = reading_of(name, metric.unit)
    if reading is None:
        worse = name.endswith("_difference") and is_worse(metric)
        return _Judged(1, 1, name, meaning_of(name, metric)) if worse else None
    if name.endswith("_least"):  # of one sample: no basis for a verdict
        return None
    ends = [metric.value if end is None else end for end in (metric.low, metric.high)]
    better, worse_end = sorted(reading.level(end) for end in ends)
    sure = min(reading.level(metric.value), max(1, better))
    return _Judged(sure, worse_end, name, meaning_of(name, metric))
