"""Charts as SVG text that looks alike everywhere: one palette, system fonts, light and dark, the same bytes.

Charts are drawn in the light colours. A stylesheet swaps each of them for its dark twin where the reader
prefers dark, and leaves viewers that know no stylesheets with the light chart on no background.
Text stays text: it is laid out with matplotlib's own font, which is wider than those of systems.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from w8a16.errors import MissingExtraError

INK, SOFT, GRID = "#1f2933", "#5b6774", "#dfe3e8"
FLOAT, INT8 = "#7f8c9b", "#c2410c"
SECOND, THIRD = "#0f766e", "#6d28d9"
DARK = {
    INK: "#e6e9ee",
    SOFT: "#a3aeba",
    GRID: "#363e48",
    FLOAT: "#8d99a8",
    INT8: "#fb923c",
    SECOND: "#2dd4bf",
    THIRD: "#c4b5fd",
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the layout is the same on every machine
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "savefig.transparent": True,
}


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[Any]:
    """A matplotlib `Figure` of so many inches in our style; what is drawn inside is drawn the same each time.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("matplotlib", "study", "a chart") from error
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": f"w8a16 {name}"}):
        yield Figure(figsize=(width, height), layout="constrained")


def markup(figure: Any, name: str, label: str) -> str:
    """The `<svg>` element of a figure, to be set into a page.

    Args:
        figure: drawn inside `drawing`, which must still be open.
        name: prefix of the ids, unique in the page.
        label: what the chart shows, for those who do not see it.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text, so that letters which matplotlib's font lacks come from the reader's.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = text.replace("'DejaVu Sans'", FONTS).replace("xlink:href", "href")
    text = _own_ids(text, name)
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip()


def _own_ids(text: str, name: str) -> str:
    """Drop the ids that nothing refers to; prefix the others, for a page holds several charts."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(href="#|url\(#)', lambda m: f"{m[1]}{name}-", text)


def dark_rules(indent: str = "") -> str:
    """The CSS rules that swap the light colours of a chart for the dark ones."""
    return "\n".join(
        f'{indent}[style*="{part}: {light}"] {{ {part}: {dark} !important }}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )


def save(path: Path, element: str) -> Path:
    """Write the `<svg>` element of `markup` as a file of its own, with its dark colours inside."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', element)
    assert box is not None, "an element of `markup`"
    style = f"<style>\n@media (prefers-color-scheme: dark) {{\n{dark_rules()}\n}}\n</style>"
    size = f'xmlns="http://www.w3.org/2000/svg" width="{box[1]}pt" height="{box[2]}pt"'
    text = element.replace("<svg ", f"<svg {size} ", 1).replace(">", f">\n{style}", 1)
    path.write_bytes(f"{text}\n".encode())
    return path
