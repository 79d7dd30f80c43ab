"""The charts of a report, each once for wide screens and once for phones.

The charts say "error" for noise over signal, root mean square: `10 ** (-SQNR / 20)`, as a percentage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from w8a16.study.report.histogram import WorstLayer
from w8a16.study.report.svg import FLOAT, GRID, INT8, SOFT, drawing, markup

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Where the shades of the strip change: error in percent."""
SHADES = (0.1, 0.25, 0.42, 0.6, 0.8, 1.0)
"""How opaque each shade is: a share of the accent colour, so that it works on light and on dark."""
_WIDE, _NARROW = 10.6, 3.8  # inches: about 760 and 270 points
_MOST_MARKS = 120  # layers that get a dot each


@dataclass(frozen=True)
class Chart:
    """The same chart for two widths, as `<svg>` elements."""

    wide: str
    narrow: str


def _both(name: str, label: str, heights: tuple[float, float], draw: Callable[[Any, bool], None]) -> Chart:
    elements = []
    for suffix, width, height in (("wide", _WIDE, heights[0]), ("narrow", _NARROW, heights[1])):
        own = f"{name}-{suffix}"
        with drawing(own, width, height) as figure:
            draw(figure, suffix == "narrow")
            elements.append(markup(figure, own, label))
    return Chart(*elements)


def error_percent(sqnr_db: float | None) -> float | None:
    """Noise over signal as a percentage; 0 where nothing differs, None where nothing was measured."""
    if sqnr_db is None or math.isnan(sqnr_db) or sqnr_db == -math.inf:
        return None
    return 100 * 10 ** (-sqnr_db / 20)


def error_strip(rows: Sequence[tuple[str, Sequence[float | None]]], label: str) -> Chart:
    """One cell for each layer, the darker the larger its error; in long models, for several layers.

    Args:
        rows: a name and, for every layer, the error in percent or None; all of one length.
        label: the chart in a sentence.
    """

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.subplots()
        layers = len(rows[0][1])
        cells = min(layers, 44 if narrow else 110)
        bounds = [round(cell * layers / cells) for cell in range(cells + 1)]
        for line, (_, errors) in enumerate(rows):
            binned = [_largest(errors[start:stop]) for start, stop in pairwise(bounds)]
            _draw_cells(axes, line, bounds, binned)
        axes.set_ylim(len(rows), 0)
        axes.set_xlim(0, layers)
        axes.set_yticks([line + 0.5 for line in range(len(rows))], [name for name, _ in rows])
        axes.set_xlabel("layer, in the order of the calls")
        _layer_ticks(axes, layers, 0.5)
        axes.spines[:].set_visible(False)

    height = 0.62 + 0.34 * len(rows)
    return _both("strip", label, (height, height), draw)


def _largest(errors: Sequence[float | None]) -> float | None:
    return max((error for error in errors if error is not None), default=None)


def _draw_cells(axes: Any, line: int, bounds: Sequence[int], errors: Sequence[float | None]) -> None:
    """All cells of one shade as one path: a strip of a thousand cells stays small."""
    from matplotlib.patches import PathPatch  # noqa: PLC0415
    from matplotlib.path import Path  # noqa: PLC0415

    shades: dict[int | None, list[Any]] = {}
    for (start, stop), error in zip(pairwise(bounds), errors, strict=True):
        shade = None if error is None else shade_of(error)
        gap = 0.06 * (stop - start)
        corners = [(start + gap, line + 0.06), (stop - gap, line + 0.06)]
        corners += [(stop - gap, line + 0.94), (start + gap, line + 0.94), (start + gap, line + 0.06)]
        shades.setdefault(shade, []).append(Path(corners, closed=True))
    for shade, paths in sorted(shades.items(), key=lambda item: -1 if item[0] is None else item[0]):
        look = (
            {"facecolor": "none", "edgecolor": GRID, "linewidth": 0.6}
            if shade is None
            else {"facecolor": INT8, "alpha": SHADES[shade], "edgecolor": "none"}
        )
        axes.add_patch(PathPatch(Path.make_compound_path(*paths), **look))


def shade_of(error: float) -> int:
    """Which shade an error has, from 0 to 5.

    Example:
        >>> shade_of(0.3), shade_of(0.5), shade_of(7.0), shade_of(80.0)
        (0, 0, 4, 5)
    """
    return sum(error > level for level in LEVELS)


def drift_by_depth(own: Sequence[float | None], drifted: Sequence[float | None], label: str) -> Chart:
    """The error of every layer's output, with float inputs and with the inputs of the int8 model."""

    def draw(figure: Any, narrow: bool) -> None:
        axes = figure.subplots()
        dots = len(own) <= (_MOST_MARKS // 2 if narrow else _MOST_MARKS)
        for errors, color, name in (
            (own, FLOAT, "its own weights only (float inputs)"),
            (drifted, INT8, "inputs as drifted so far"),
        ):
            # Nothing differs: there is no place for 0 on a logarithmic axis, so the line has a gap.
            heights = [error if error else math.nan for error in errors]
            mark = {"marker": "o", "markersize": 3} if dots else {}
            line = {"linewidth": 1.6 if errors is drifted else 1.0}
            axes.plot(range(1, len(heights) + 1), heights, color=color, label=name, **mark, **line)
        _error_axis(axes, [error for error in (*own, *drifted) if error])
        axes.set_ylabel("error of the output")
        axes.set_xlabel("layer, in the order of the calls")
        axes.set_xlim(0.5, len(own) + 0.5)
        _layer_ticks(axes, len(own), 0.0, first=1)
        axes.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=1 if narrow else 2, labelcolor="linecolor")

    return _both("drift", label, (3.4, 3.0), draw)


def _error_axis(axes: Any, errors: Sequence[float]) -> None:
    """A logarithmic axis in percent, with ticks at 1, 2 and 5 and powers of ten of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator  # noqa: PLC0415

    low, high = (min(errors), max(errors)) if errors else (1.0, 1.0)
    axes.set_yscale("log")
    axes.set_ylim(low / 1.6, high * 1.6)
    steps = (1.0, 2.0, 5.0) if high / low < 100 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _layer_ticks(axes: Any, layers: int, offset: float, first: int = 0) -> None:
    """Numbers of layers, counted from 1, at most about ten of them."""
    step = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**4, 10**6) if step * 10 >= layers
    )
    shown = [1, *range(step, layers + 1, step)] if step > 1 else list(range(1, layers + 1))
    axes.set_xticks([number - 1 + first + offset for number in shown], [str(number) for number in shown])


def weight_histogram(worst: WorstLayer, label: str) -> Chart:
    """Where the float weights lie, and how often each int8 code is used; counts on logarithmic axes."""

    def draw(figure: Any, narrow: bool) -> None:
        from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: PLC0415

        above, below = figure.subplots(*((2, 1) if narrow else (1, 2)), squeeze=True)
        low, high = worst.edges
        width = (high - low) / len(worst.counts)
        edges = [low + width * bin for bin in range(len(worst.counts) + 1)]
        above.stairs(worst.counts, edges, fill=True, color=FLOAT)
        above.set_title("Float weights")
        above.set_xlabel("value")
        below.stairs(worst.codes, [code - 0.5 for code in range(-128, 129)], fill=True, color=INT8)
        below.set_title("Their int8 codes")
        below.set_xlabel("code")
        below.set_xticks([-127, -64, 0, 64, 127])
        for axes, counts in ((above, worst.counts), (below, worst.codes)):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylim(0.7, 1.6 * max(counts))
            axes.set_ylabel("how many")
            axes.grid(axis="y")
            axes.spines["left"].set_visible(False)
        for value in (-worst.rms, worst.rms):
            above.axvline(value, color=SOFT, linewidth=0.8, linestyle=(0, (3, 2)))

    # Side by side, or one above the other on a phone.
    return _both("weights", label, (2.9, 4.6), draw)
