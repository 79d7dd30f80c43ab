"""The pages of a report: one HTML file that needs nothing else, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

from w8a16.checkpoint import shown
from w8a16.errors import MissingExtraError
from w8a16.study.report import view
from w8a16.study.report.charts import (
    LEVELS,
    SHADES,
    Chart,
    drift_by_depth,
    error_percent,
    error_strip,
    weight_histogram,
)
from w8a16.study.report.document import Report
from w8a16.study.report.figures import number
from w8a16.study.report.readings import HALF_STEPS, INTERVAL, SQNR, WEIGHT_ERROR, reading_of
from w8a16.study.report.svg import dark_rules

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#$])")


def report_html(report: Report) -> str:
    """The report as one HTML file: no script, no network, light and dark, wide and narrow.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    return _render(
        "report.html.j2", autoescape=True, **_content(report), charts=_charts(report), dark=dark_rules("  ")
    )


def report_markdown(report: Report) -> str:
    """The report as Markdown: the same words and tables, without the charts.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    return render_markdown("report.md.j2", _content(report))


def render_markdown(template: str, content: dict[str, Any]) -> str:
    """Fill a Markdown template; what is filled in means just its characters, unless marked as `plain`."""
    text = _render(template, autoescape=False, **content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _render(template: str, autoescape: bool, **content: Any) -> str:
    text: str = _environment(autoescape).get_template(template).render(content)
    return text


@cache
def _environment(autoescape: bool) -> Any:
    try:
        import jinja2  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("jinja2", "study", "a report") from error
    finalize: Callable[[Any], Any] | None = None if autoescape else markdown_text
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("w8a16.study.report"),
        autoescape=autoescape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"breakable": _breakable, "plain": _Plain}
    return environment


def _breakable(name: str) -> Any:
    """A path in which lines may break behind dots and underscores, for HTML."""
    from markupsafe import Markup, escape  # noqa: PLC0415

    return Markup(re.sub(r"([._/])(?=.)", r"\1<wbr>", str(escape(name))))


class _Plain(str):
    """Markdown already."""


def markdown_text(value: Any) -> str:
    """A value as Markdown that means just these characters, in a table cell too.

    Example:
        >>> print(markdown_text("a_b|<c>"))
        a\\_b\\|&lt;c\\>
    """
    if isinstance(value, _Plain):
        return str(value)
    text = str(value).replace("&", "&amp;")
    return _SPECIAL.sub(r"\\\1", text).replace("\\<", "&lt;")


def _content(report: Report) -> dict[str, Any]:
    comparison = report.comparison
    layers = view.layer_rows(comparison.modules)
    found = view.judged(comparison)
    return {
        "title": view.title(comparison),
        "facts": view.facts(comparison),
        "notes": list(map(shown, report.notes)),
        "verdict": found,
        "verdict_metric": view.metric_name(found.metric) if found else "",
        "not_ruled_out": [(view.metric_name(name), words) for name, words in found.open] if found else [],
        "cards": view.summary_cards(report),
        "size": view.size_row(comparison),
        "metrics": view.metric_rows(view.task_of(comparison)),
        "outputs": view.output_rows(comparison.outputs),
        "layers": layers,
        "first": view.FIRST_ROWS,
        "first_blamed": view.FIRST_BLAMED,
        "uncalled": sum(module.depth is None for module in comparison.modules),
        "blame": view.blame_rows(comparison.blame),
        "untried": [view.layer_name(name) for name in comparison.blame_untried],
        "drift": f"{number(comparison.drift)}, as {shown(comparison.drift_unit)}".removesuffix(", as "),
        "worst": report.worst,
        "worst_name": view.layer_name(report.worst.name) if report.worst else "",
        "worst_facts": view.worst_facts(report.worst) if report.worst else [],
        "speed": view.speed_rows(report.speed),
        "kept": [(view.layer_name(name), shown(reason)) for name, reason in comparison.kept_float],
        "terms": _terms(report),
        "shades": list(zip(_shade_names(), SHADES, strict=True)),
    }


def _terms(report: Report) -> list[tuple[str, str]]:
    """What the words on the page mean: those that this report uses."""
    comparison = report.comparison
    found = {}
    task = view.task_of(comparison)
    for name, metric in task.items():
        reading = reading_of(name, metric.unit)
        if reading is not None:
            found[reading.term] = reading.why
    if comparison.outputs or comparison.modules:
        found[SQNR.term] = SQNR.why
    if any(metric.low is not None for metric in task.values()):
        found[INTERVAL[0]] = INTERVAL[1]
    if any(module.weight for module in comparison.modules):
        found |= dict((WEIGHT_ERROR, HALF_STEPS))
    return list(found.items())


def _shade_names() -> list[str]:
    first, *_, last = LEVELS
    between = [f"{low:g} to {high:g} %" for low, high in pairwise(LEVELS)]
    return [f"up to {first:g} %", *between, f"over {last:g} %"]


def _charts(report: Report) -> dict[str, Chart]:
    called = view.called(report.comparison.modules)
    weight = [error_percent(m.weight.sqnr_db if m.weight else None) for m in called]
    own = [error_percent(m.own.sqnr_db if m.own else None) for m in called]
    drifted = [error_percent(m.drifted.sqnr_db if m.drifted else None) for m in called]
    charts = {}
    if called:
        rows = [("weights", weight), ("output, own", own), ("output, drifted", drifted)]
        charts["strip"] = error_strip(
            rows, f"Error of the weights and outputs of {len(called)} layers, by shade"
        )
    if any(own) or any(drifted):
        charts["drift"] = drift_by_depth(
            own, drifted, "Error of the outputs of the layers in the order of the calls"
        )
    if report.worst is not None:
        label = (
            f"Histograms of the float weights and of the int8 codes of {view.layer_name(report.worst.name)}"
        )
        charts["weights"] = weight_histogram(report.worst, label)
    return charts
