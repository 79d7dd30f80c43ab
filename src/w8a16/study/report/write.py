"""Write a comparison to a file, in the format that its name says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from w8a16.errors import UsageError
from w8a16.study.compare import Comparison
from w8a16.study.report.document import Report, SpeedRow, report_json
from w8a16.study.report.histogram import WorstLayer
from w8a16.study.report.pages import report_html, report_markdown
from w8a16.study.speed import Measurement

_WRITERS = {"html": report_html, "markdown": report_markdown, "json": report_json}
_SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown", ".json": "json"}


def write_report(
    comparison: Comparison | Report,
    path: str | Path,
    *,
    format: str | None = None,
    worst: WorstLayer | None = None,
    speed: Sequence[Measurement] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write a report and return its path.

    Args:
        comparison: what `compare` found, or a report that was read from JSON.
        path: where to; an existing file is overwritten.
        format: "html", "markdown" or "json"; default: by the suffix of the path.
        worst: the weights of the layer to show, counted by `worst_layer`.
        speed: measured linear layers.
        notes: what to know before believing the figures, in whole sentences.

    Raises:
        UsageError: a format that is not known.
        MissingExtraError: HTML and Markdown take jinja2, HTML also matplotlib.
        OSError: the file cannot be written.
    """
    target = Path(path)
    name = format or _SUFFIXES.get(target.suffix.lower())
    if name not in _WRITERS:
        known = ", ".join(_WRITERS)
        asked = f"format {format!r}" if format else f"a path that ends in {target.suffix!r}"
        raise UsageError(
            f"expected a report format ({known}) or a path that ends in one of "
            f"{', '.join(_SUFFIXES)}; got {asked}"
        )
    report = comparison if isinstance(comparison, Report) else Report(comparison)
    report = Report(
        report.comparison,
        worst or report.worst,
        tuple(map(SpeedRow.of, speed or ())) or report.speed,
        tuple(notes) or report.notes,
    )
    target.write_bytes(_WRITERS[name](report).encode())
    return target
