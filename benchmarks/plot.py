"""Draw the results of linear.py: time over M for every peer, and how far each is from the floor.

    python benchmarks/plot.py build/linear.json                       # docs/images/linear-<processor>.png
    python benchmarks/plot.py build/linear.json --name "AMD Zen 3" --output picture.svg

Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from report import threads

IMAGES = Path(__file__).parents[1] / "docs" / "images"
INK, SOFT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
OURS = {"float32": "#c2410c", "bfloat16": "#ea580c", "float16": "#fb923c"}
# Colour tells who, the dash tells the dtype; ours alone are warm and thick.
PEERS = {
    "torch float32": ("#475569", "-"),
    "torch bfloat16": ("#475569", (0, (4, 2))),
    "torch float16": ("#475569", (0, (1, 1.5))),
    "torch int8pack": ("#0f766e", "-"),
    "torchao compiled": ("#2563eb", (0, (4, 2))),
    "torchao frozen": ("#2563eb", "-"),
    "quanto": ("#7c3aed", "-"),
    "torch dynamic": ("#a8a29e", (0, (1, 1.5))),
}


def main() -> None:
    options = _options()
    results = json.loads(Path(options.results).read_text(encoding="utf-8"))
    processor = options.name or results["machine"]["processor"]
    slug = re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-")
    for shape in results["shapes"]:
        size = f"{shape['out_features']}x{shape['in_features']}"
        first = shape is results["shapes"][0]
        default = IMAGES / f"linear-{slug}{'' if first else f'-{size}'}.png"
        output = Path(options.output) if options.output and first else default
        output.parent.mkdir(parents=True, exist_ok=True)
        draw(results, shape, processor, output)
        print(output)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="the JSON file of linear.py")
    parser.add_argument("--name", help="what to call the processor; default: what it calls itself")
    parser.add_argument("--output", help="png or svg; default: docs/images/linear-<processor>.png")
    return parser.parse_args()


def draw(results: dict[str, Any], shape: dict[str, Any], processor: str, output: Path) -> None:
    """One figure for one shape."""
    mpl.rcParams |= {
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "svg.fonttype": "none",
        "svg.hashsalt": "w8a16",
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": SOFT,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), width_ratios=(1, 1))
    rows = [floor["rows"] for floor in shape["floors"]]
    floors = [floor["seconds"] for floor in shape["floors"]]
    lines = _lines(shape, len(rows))
    _draw_times(left, rows, floors, lines)
    if all(floors):
        _draw_ratios(right, rows, floors, lines)
    figure.suptitle(
        f"One linear layer, {shape['out_features']} x {shape['in_features']}: int8 weights against the rest",
        x=0.012,
        y=0.985,
        ha="left",
        fontsize=14,
        fontweight="bold",
    )
    figure.text(0.012, 0.915, _subtitle(results, processor), color=SOFT, fontsize=9.5, ha="left")
    for peer in shape["peers"]:
        if peer["note"] and peer["times"]:
            figure.text(0.988, 0.012, f"* {peer['note']}", color=SOFT, fontsize=8.5, ha="right")
    figure.tight_layout(rect=(0, 0.02, 1, 0.94), w_pad=2.5)
    figure.savefig(output, dpi=144, metadata={"Date": None} if output.suffix == ".svg" else None)
    plt.close(figure)


def _subtitle(results: dict[str, Any], processor: str) -> str:
    machine, limits = results["machine"], results["limits"]
    text = f"{processor}, {threads(machine)}, {machine['instruction_set']}, torch {machine['torch']}"
    if limits["bytes_per_second"]:
        text += (
            f"; measured limits {limits['bytes_per_second'] / 1e9:.1f} GB/s, "
            f"{limits['operations_per_second'] / 1e9:.0f} GFLOP/s"
        )
    return f"{text}. Medians; weights are not in the cache."


def _lines(shape: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The peers that ran at every M, with how to draw them, ours last and so on top."""
    found = []
    for peer in shape["peers"]:
        if len(peer["times"]) != count:
            continue
        style: dict[str, Any]
        if peer["ours"]:
            style = {
                "color": OURS[peer["dtype"]],
                "linewidth": 2.6,
                "zorder": 4,
                "marker": "o",
                "markersize": 4.5,
                "clip_on": False,
            }
        else:
            color, dash = PEERS.get(peer["name"], (SOFT, "-"))
            style = {"color": color, "linestyle": dash, "linewidth": 1.3, "zorder": 3, "alpha": 0.85}
        seconds = [time["median_seconds"] for time in peer["times"]]
        label = f"{peer['name']}*" if peer["note"] else peer["name"]
        found.append({"label": label, "seconds": seconds, "style": style, "ours": peer["ours"]})
    return sorted(found, key=lambda line: line["ours"])


def _draw_times(axes: Axes, rows: list[int], floors: list[float | None], lines: list[dict[str, Any]]) -> None:
    _style(axes, rows, "milliseconds a call")
    for line in lines:
        axes.plot(rows, [1e3 * second for second in line["seconds"]], label=line["label"], **line["style"])
    low, high = axes.get_ylim()
    if all(floors):
        limit = [1e3 * second for second in floors if second]
        low = min(low, 0.7 * min(limit))
        axes.fill_between(rows, low, limit, color=GRID, zorder=1, linewidth=0)
        axes.plot(rows, limit, color=SOFT, linewidth=1, zorder=2)
        axes.annotate(
            "faster than memory and\nmultipliers allow",
            xy=(rows[-1], low),
            xytext=(-8, 6),
            textcoords="offset points",
            va="bottom",
            ha="right",
            color=SOFT,
            fontsize=8.5,
            style="italic",
        )
    axes.set_ylim(low, high)
    axes.set_title("Time", loc="left", fontsize=11, fontweight="bold")


def _draw_ratios(axes: Axes, rows: list[int], floors: list[float], lines: list[dict[str, Any]]) -> None:
    _style(axes, rows, "times the floor of int8 weights")
    ends = []
    for line in lines:
        ratios = [second / floor for second, floor in zip(line["seconds"], floors, strict=True)]
        axes.plot(rows, ratios, **line["style"])
        ends.append((ratios[-1], line))
    low, high = axes.get_ylim()
    low = min(low, 0.7)
    axes.axhspan(low, 1, color=GRID, zorder=1, linewidth=0)
    axes.axhline(1, color=SOFT, linewidth=1, zorder=2)
    axes.set_ylim(low, high)
    axes.set_title("Distance from the floor", loc="left", fontsize=11, fontweight="bold")
    _label_ends(axes, rows, ends)


def _label_ends(axes: Axes, rows: list[int], ends: list[tuple[float, dict[str, Any]]]) -> None:
    """Write each name beside the end of its line, moved apart where they would overlap; no legend needed."""
    low, high = axes.transData.transform([(1, axes.get_ylim()[0]), (1, axes.get_ylim()[1])])[:, 1]
    step = (high - low) / 19
    ordered = sorted(ends, key=lambda end: end[0])
    places: list[float] = []
    for ratio, _ in ordered:
        wanted = axes.transData.transform((1, ratio))[1]
        places.append(max(wanted, places[-1] + step) if places else wanted)
    overflow = max(0.0, places[-1] - high)
    places = [place - overflow for place in places]
    for index in range(len(places) - 2, -1, -1):
        places[index] = min(places[index], places[index + 1] - step)
    for (ratio, line), place in zip(ordered, places, strict=True):
        y = axes.transData.inverted().transform((0, place))[1]
        axes.annotate(
            line["label"],
            xy=(rows[-1], ratio),
            xytext=(rows[-1] * (rows[-1] / rows[0]) ** 0.09, y),
            color=line["style"]["color"],
            fontsize=9,
            va="center",
            annotation_clip=False,
            fontweight="bold" if line["ours"] else "normal",
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": line["style"]["color"],
                "linewidth": 0.6,
                "alpha": 0.6,
            },
        )


def _style(axes: Axes, rows: list[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(rows, [str(count) for count in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("M, activation rows")
    axes.set_ylabel(label)
    axes.set_xlim(rows[0], rows[-1])
    axes.grid(which="major", color=GRID, linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
