"""Recurrent nets in float and in int8, for few steps and many, small batches and large.

    python benchmarks/recurrent.py                           # LSTM and GRU, 2 layers, 256 and 1024 wide
    python benchmarks/recurrent.py --sizes 512 --shapes 64x1 --kinds LSTM --dtypes bfloat16
    python benchmarks/recurrent.py --processor-time          # on a machine that others use too

A shape is STEPSxBATCH. Float and int8 run in turn in one process, without gradients. `steps` says
whether every step uses the codes, or the weights are dequantized for torch's own operator.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import clock
import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import nn

import w8a16
from w8a16.study import time_in_turn
from w8a16.study.timing import OtherPrograms


def main() -> None:
    options = _options()
    options.clock = clock.set_up(options)
    others = OtherPrograms()
    results: dict[str, Any] = {
        "machine": describe(),
        "layers": options.layers,
        "clock": clock.note(options),
        "nets": [
            row
            for dtype in options.dtypes.split(",")
            for kind in options.kinds.split(",")
            for size in options.sizes.split(",")
            for row in _measure(kind, int(size), dtype, options)
        ],
    }
    results["other_programs_processors"] = others.processors()
    write_json(options.json, results)
    if options.json != "-":
        publish([_report(results)], options.markdown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default="LSTM,GRU", help="classes of torch.nn")
    parser.add_argument("--sizes", default="256,1024", help="widths of input and hidden state")
    parser.add_argument("--shapes", default="1x1,1x32,64x1,64x8", help="STEPSxBATCH, separated by commas")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--seconds", type=float, default=5, help="about how long, a row")
    clock.add_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    return parser.parse_args()


def _measure(kind: str, size: int, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    say(f"{kind} {size}, {dtype}")
    torch.manual_seed(0)
    float_net = getattr(nn, kind)(size, size, options.layers).eval().to(getattr(torch, dtype))
    int8_net = w8a16.quantize(copy.deepcopy(float_net))
    rows = []
    for shape in options.shapes.split(","):
        steps, batch = (int(part) for part in shape.split("x"))
        x = torch.randn(steps, batch, size, dtype=getattr(torch, dtype))
        nets = {"float": float_net, "int8": int8_net}
        with torch.inference_mode():
            timings = time_in_turn(
                {name: lambda call, net=net, x=x: net(x) for name, net in nets.items()},
                options.seconds,
                clock=options.clock,
            )
            rows.append(
                {
                    "name": f"{kind} {size}, {steps} x {batch}, {dtype}",
                    "uses_codes": int8_net._pays_to_step(x),
                    "times": {
                        name: {"median_seconds": timing.median, "best_seconds": timing.best}
                        for name, timing in timings.items()
                    },
                }
            )
    return rows


def _report(results: dict[str, Any]) -> Report:
    report = Report(
        f"Recurrent nets of {results['layers']} layers, steps x batch, ms",
        ("net", "steps", "float", "int8", "ratio", "ratio of the best"),
    )
    for net in results["nets"]:
        floats, codes = net["times"]["float"], net["times"]["int8"]
        report.rows.append(
            (
                net["name"],
                "codes" if net["uses_codes"] else "dequantized",
                *(milliseconds(each["median_seconds"]) for each in (floats, codes)),
                *(f"{codes[key] / floats[key]:.2f}x" for key in ("median_seconds", "best_seconds")),
            )
        )
    note = machine_note(results["machine"], results["other_programs_processors"])
    report.notes.append(f"{note} {results['clock']}, timed in turn.")
    return report


if __name__ == "__main__":
    main()
