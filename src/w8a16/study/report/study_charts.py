"""The charts of the study: small panels, one for each scenario, with that scenario's own scale.

Losses of different scenarios have different units, so no chart puts two of them on one axis. A large
dot is the loss over all seeds, the line through it its 95 % interval; small dots are the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from w8a16.study.report.figures import number
from w8a16.study.report.study_results import Row, chosen, distinct, largest_size, rows_of
from w8a16.study.report.svg import FLOAT, INT8, SECOND, SOFT, drawing, markup, save

_WIDTH = 10.6  # inches
_COLUMNS = 3
VARIANT_ORDER = (
    *("int8", "outliers_4", "groups_32", "groups_64", "groups_128", "clipped", "range_128"),
    *("scales_fp16", "scales_bf16", "per_tensor", "bits_6", "bits_4"),
)
"""From top to bottom in the chart of the quantizers; others follow."""


def study_charts(results: dict[str, Any], folder: str | Path) -> list[Path]:
    """Draw the charts for which there are results, as SVG files; the same results give the same bytes.

    Args:
        results: the merged results of the study.
        folder: where the files go; it is made if it does not exist.

    Returns:
        Their paths: "loss.svg", "trend.svg", "textbook.svg", "variants.svg", "tails.svg".

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    rows, tails = _all(results, "rows"), _all(results, "tails")
    charts: dict[str, tuple[str, Sequence[Row], float, Callable[[Any, list[Row]], None]]] = {
        "loss": ("Loss of int8 models by scenario and dtype", _at_largest(rows), 1.75, _loss_panel),
        "trend": ("Loss of int8 models by number of parameters", _trend_rows(rows), 1.9, _trend_panel),
        "textbook": ("Loss of the textbook recipe and of w8a16", _textbook_rows(rows), 1.7, _textbook_panel),
        "variants": ("Loss of other quantizers", _variant_rows(rows), 2.5, _variant_panel),
        "tails": (
            "Loss with injected outliers, before and after repair",
            _tail_rows(tails),
            2.0,
            _tails_panel,
        ),
    }
    written = []
    for name, (label, own, height, draw) in charts.items():
        if own:
            written.append(save(target / f"{name}.svg", _panels(name, label, own, height, draw)))
    return written


def _all(results: dict[str, Any], part: str) -> list[Row]:
    """Pooled rows and those of the seeds, only the ones with a loss."""
    both = (*rows_of(results, part), *rows_of(results, part, of="cells"))
    return [row for row in both if row.loss is not None]


def _panels(
    name: str, label: str, rows: Sequence[Row], height: float, draw: Callable[[Any, list[Row]], None]
) -> str:
    scenarios = distinct(rows, "scenario")
    columns = min(_COLUMNS, len(scenarios))
    lines = math.ceil(len(scenarios) / columns)
    with drawing(f"study {name}", _WIDTH, height * lines + 0.3) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, scenario in zip(grid, scenarios, strict=False):
            own = chosen(rows, scenario=scenario)
            axes.set_title(own[0].title, fontsize=10)
            draw(axes, own)
        for axes in grid[len(scenarios) :]:
            axes.set_axis_off()
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        return markup(figure, name, label)


def _at_largest(rows: Sequence[Row]) -> list[Row]:
    """The float and int8 rows of each scenario's largest model."""
    return [
        row
        for row in rows
        if row.variant in ("float", "int8") and row.size == largest_size(rows, row.scenario)
    ]


def _trend_rows(rows: Sequence[Row]) -> list[Row]:
    return chosen(rows, variant="int8", dtype="float32") if len(distinct(rows, "size")) > 1 else []


def _textbook_rows(rows: Sequence[Row]) -> list[Row]:
    own = [row for row in rows if row.dtype != "float32" and row.size == largest_size(rows, row.scenario)]
    tried = {(row.scenario, row.dtype) for row in chosen(own, variant="textbook")}
    return [row for row in own if row.variant in ("int8", "textbook") and (row.scenario, row.dtype) in tried]


def _variant_rows(rows: Sequence[Row]) -> list[Row]:
    own = [
        row
        for row in chosen(rows, dtype="float32")
        if row.variant != "float" and row.size == largest_size(rows, row.scenario)
    ]
    return own if len(distinct(own, "variant")) > 1 else []


def _tail_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.size == largest_size(rows, row.scenario)]


def _loss_label(row: Row) -> str:
    return f"loss, {row.unit or row.metric}"


def _forest(axes: Any, lines: Sequence[tuple[str, str, Sequence[Row]]], same_dtype: bool = False) -> None:
    """A line for each label, colour and its rows, from top to bottom."""
    for place, (_, color, rows) in enumerate(lines):
        for row in rows:
            loss = row.loss_same_dtype if same_dtype else row.loss
            if loss is not None and row.seed is None:
                axes.plot([loss.low, loss.high], [place, place], color=color, linewidth=2.2, alpha=0.5)
            if loss is not None:
                axes.plot([loss.value], [place], color=color, **_dot(row))
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _dot(row: Row) -> dict[str, Any]:
    if row.seed is None:
        return {"marker": "o", "markersize": 4.5, "linestyle": "none", "zorder": 4}
    return {"marker": "o", "markersize": 2.2, "linestyle": "none", "alpha": 0.6, "zorder": 3}


def _few_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator  # noqa: PLC0415

    axis.set_major_locator(MaxNLocator(4))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(f"{value:.3g}"))))


def _loss_panel(axes: Any, rows: list[Row]) -> None:
    lines = []
    for dtype in distinct(rows, "dtype"):
        for variant, color in (("float", FLOAT), ("int8", INT8)):
            own = chosen(rows, dtype=dtype, variant=variant)
            if own and (dtype, variant) != ("float32", "float"):  # which is what all are compared with
                lines.append((f"{dtype} {variant}", color, own))
    _forest(axes, lines)
    _few_ticks(axes.xaxis)
    axes.set_xlabel(_loss_label(rows[0]))


def _trend_panel(axes: Any, rows: list[Row]) -> None:
    for row in rows:
        _upright(axes, row.parameters, row, INT8)
    together = sorted((row.parameters, row.loss.value) for row in chosen(rows, seed=None) if row.loss)
    counts = [count for count, _ in together]
    axes.plot(counts, [value for _, value in together], color=INT8, linewidth=1.0)
    axes.axhline(0, color=SOFT, linewidth=0.8, zorder=1)
    _log_ticks(axes.xaxis, axes.set_xscale, counts)
    _few_ticks(axes.yaxis)
    axes.set_xlim(min(counts) / 1.5, max(counts) * 1.5)
    axes.set_xlabel("parameters")
    axes.set_ylabel(_loss_label(rows[0]))
    axes.grid(axis="y")


def _upright(axes: Any, x: float, row: Row, color: str) -> None:
    """A loss at x, with its interval if it is of all seeds."""
    if row.loss is not None and row.seed is None:
        axes.plot([x, x], [row.loss.low, row.loss.high], color=color, linewidth=2.2, alpha=0.5)
    if row.loss is not None:
        axes.plot([x], [row.loss.value], color=color, **_dot(row))


def _log_ticks(axis: Any, set_scale: Callable[..., None], values: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    set_scale("log")
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """A count with k or M.

    Example:
        >>> _short(22_713_216), _short(64_000), _short(8)
        ('22.7M', '64k', '8')
    """
    for step, letter in ((1e6, "M"), (1e3, "k")):
        if value >= step:
            return f"{number(float(f'{value / step:.3g}'))}{letter}"
    return f"{value:g}"


def _textbook_panel(axes: Any, rows: list[Row]) -> None:
    lines = []
    for dtype in distinct(rows, "dtype"):
        for variant, color, label in (("textbook", SECOND, "textbook"), ("int8", INT8, "w8a16")):
            lines.append((f"{dtype} {label}", color, chosen(rows, dtype=dtype, variant=variant)))
    _forest(axes, lines, same_dtype=True)
    _few_ticks(axes.xaxis)
    axes.set_xlabel(_loss_label(rows[0]))


def _variant_panel(axes: Any, rows: list[Row]) -> None:
    found = distinct(rows, "variant")
    ordered = [name for name in VARIANT_ORDER if name in found]
    ordered += [name for name in found if name not in ordered]
    _forest(axes, [(name, INT8 if name == "int8" else FLOAT, chosen(rows, variant=name)) for name in ordered])
    together = [row.loss for row in chosen(rows, seed=None) if row.loss]
    _signed_log(axes, max(abs(end) for loss in together for end in (loss.low, loss.high)))
    axes.set_xlabel(_loss_label(rows[0]))


def _signed_log(axes: Any, largest: float) -> None:
    """An axis that is linear within a hundredth of the largest value, and logarithmic beyond."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    power = 10.0 ** math.ceil(math.log10(largest or 1.0))
    axes.set_xscale("symlog", linthresh=power / 100, linscale=0.7)
    axes.xaxis.set_major_locator(FixedLocator([-power, -power / 100, 0, power / 100, power / 10, power]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(float(f"{value:.3g}"))))


def _tails_panel(axes: Any, rows: list[Row]) -> None:
    for variant, color in (("float", FLOAT), ("int8", INT8), ("repaired", SECOND)):
        own = chosen(rows, variant=variant)
        for row in own:
            _upright(axes, row.factor or 1.0, row, color)
        line = sorted((row.factor or 1.0, row.loss.value) for row in chosen(own, seed=None) if row.loss)
        factors, values = [factor for factor, _ in line], [value for _, value in line]
        axes.plot(factors, values, color=color, linewidth=1.4, label=variant)
    axes.axhline(0, color=SOFT, linewidth=0.8, zorder=1)
    _log_ticks(axes.xaxis, axes.set_xscale, sorted({row.factor for row in rows if row.factor}))
    _few_ticks(axes.yaxis)
    axes.set_xlabel("outliers, times as large")
    axes.set_ylabel(_loss_label(rows[0]))
    axes.grid(axis="y")
    axes.legend(labelcolor="linecolor", fontsize=8.5, handlelength=1.2)
