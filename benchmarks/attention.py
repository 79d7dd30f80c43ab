"""Encoder layers in float, by torch's fused path, and in int8: the time of each, side by side.

    python benchmarks/attention.py                       # E 768 and 1024, batch 1, sequences of 1, 16, 128
    python benchmarks/attention.py --widths 512 --lengths 64 --batch 8

`nn.TransformerEncoderLayer` with a feed-forward width of 4 E, as in BERT and its relatives, in
evaluation and without gradients, where torch's fused path applies to the float layer. Both run in turn
in one process, each on several copies of the layer, more than the last-level cache holds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from typing import Any

import clock
import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import nn

import w8a16
from w8a16.study import time_in_turn
from w8a16.study.timing import OtherPrograms, copies_beyond_cache

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    options = _options()
    options.clock = clock.set_up(options)
    others = OtherPrograms()
    shapes = itertools.product(options.dtypes.split(","), _numbers(options.widths))
    results: dict[str, Any] = {
        "machine": describe(),
        "clock": clock.note(options),
        "batch": options.batch,
        "layers": [row for dtype, width in shapes for row in _measure(width, dtype, options)],
    }
    results["other_programs_processors"] = others.processors()
    write_json(options.json, results)
    if options.json != "-":
        publish([_report(results)], options.markdown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", default="768,1024", help="E; heads are 64 wide")
    parser.add_argument("--lengths", default="1,16,128", help="lengths of the sequences")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--seconds", type=float, default=5, help="about how long, a row")
    clock.add_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _measure(width: int, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    say(f"E = {width}, {dtype}")
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, batch_first=True, dtype=DTYPES[dtype])
    layer = layer.eval().requires_grad_(False)
    # The int8 layer is the smaller one: as many copies as it needs serve both.
    count = copies_beyond_cache(12 * width * width)
    floats = [copy.deepcopy(layer) for _ in range(count)]
    int8s = [w8a16.quantize(copy.deepcopy(layer)) for _ in range(count)]
    rows = []
    for length in _numbers(options.lengths):
        x = torch.randn(options.batch, length, width, dtype=DTYPES[dtype])
        with torch.inference_mode():
            error = (int8s[0](x).double() - floats[0](x).double()).norm() / floats[0](x).double().norm()
            timings = time_in_turn(
                {
                    "float": lambda call, x=x: floats[call % count](x),
                    "int8": lambda call, x=x: int8s[call % count](x),
                },
                options.seconds,
                clock=options.clock,
            )
        times = {
            name: {
                "median_seconds": timing.median,
                "best_seconds": timing.best,
                "samples": len(timing.seconds),
            }
            for name, timing in timings.items()
        }
        row = {"width": width, "dtype": dtype, "length": length}
        rows.append({**row, "relative_error": error.item(), "times": times})
    return rows


def _report(results: dict[str, Any]) -> Report:
    report = Report(
        f"nn.TransformerEncoderLayer, batch {results['batch']}, ms",
        ("layer", "sequence", "float", "int8", "ratio", "ratio of the best", "error"),
    )
    for row in results["layers"]:
        floats, codes = row["times"]["float"], row["times"]["int8"]
        report.rows.append(
            (
                f"E {row['width']}, {row['dtype']}",
                str(row["length"]),
                *(milliseconds(each["median_seconds"]) for each in (floats, codes)),
                *(f"{codes[key] / floats[key]:.2f}x" for key in ("median_seconds", "best_seconds")),
                f"{row['relative_error']:.1%}",
            )
        )
    report.notes.append(
        "float: torch's fused path. ratio: int8 / float. error: of the output, relative to its norm."
    )
    note = machine_note(results["machine"], results["other_programs_processors"])
    report.notes.append(f"{note} {results['clock']}, timed in turn.")
    return report


if __name__ == "__main__":
    main()
