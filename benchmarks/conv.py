"""Convolutional nets in float and in int8: what dequantizing the weights in each forward costs.

    python benchmarks/conv.py                             # ResNet-18 and ConvNeXt-tiny, batch 8, 224x224
    python benchmarks/conv.py --kinds conv2d              # the linear layers of ConvNeXt stay float
    python benchmarks/conv.py --batch 1 --channels-last
    python benchmarks/conv.py --nets ConvNeXt-tiny --dtypes bfloat16

The nets are made from configs, at full width, with random weights, which changes no time. Float and
int8 run in turn in one process, in float32 and in bfloat16.
"""

from __future__ import annotations

import argparse
import copy
import os
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here may depend on a network

import clock
import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import nn
from transformers import ConvNextConfig, ConvNextModel, ResNetConfig, ResNetModel

import w8a16
from w8a16.study import time_in_turn
from w8a16.study.timing import OtherPrograms

RESNET_18 = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
NETS = {
    "ResNet-18": lambda: ResNetModel(ResNetConfig(**RESNET_18)),
    "ConvNeXt-tiny": lambda: ConvNextModel(ConvNextConfig()),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    options = _options()
    options.clock = clock.set_up(options)
    others = OtherPrograms()
    results: dict[str, Any] = {
        "machine": describe(),
        "clock": clock.note(options),
        "batch": options.batch,
        "size": options.size,
        "channels_last": options.channels_last,
        "kinds": options.kinds,
        "nets": [
            _measure(name, dtype, options)
            for name in options.nets.split(",")
            for dtype in options.dtypes.split(",")
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
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--channels-last", action="store_true", help="hold images and weights channels last")
    parser.add_argument("--kinds", help="layer kinds to convert, such as conv2d; default: all")
    parser.add_argument("--seconds", type=float, default=20, help="about how long, a row")
    clock.add_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    return parser.parse_args()


def _measure(name: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    say(f"{name}, {dtype}")
    torch.manual_seed(0)
    float_net = NETS[name]().eval().to(DTYPES[dtype])
    images = torch.randn(options.batch, 3, options.size, options.size, dtype=DTYPES[dtype])
    if options.channels_last:
        images = images.to(memory_format=torch.channels_last)
        float_net.to(memory_format=torch.channels_last)
    int8_net = w8a16.quantize(copy.deepcopy(float_net), kinds=options.kinds and options.kinds.split(","))
    with torch.inference_mode():
        timings = time_in_turn(
            {"float": lambda call: float_net(images), "int8": lambda call: int8_net(images)},
            options.seconds,
            clock=options.clock,
        )
        expected, output = float_net(images).pooler_output, int8_net(images).pooler_output
    return {
        "name": name,
        "dtype": dtype,
        "float_bytes": _bytes(float_net),
        "int8_bytes": _bytes(int8_net),
        "relative_error": float((output.double() - expected.double()).norm() / expected.double().norm()),
        "times": {
            variant: {
                "median_seconds": timing.median,
                "best_seconds": timing.best,
                "samples": len(timing.seconds),
            }
            for variant, timing in timings.items()
        },
    }


def _bytes(net: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def _report(results: dict[str, Any]) -> Report:
    options = ", channels last" if results["channels_last"] else ""
    options += f", only {results['kinds']}" if results["kinds"] else ""
    size = results["size"]
    report = Report(
        f"Convolutional nets, batch {results['batch']}, {size}x{size}{options}, ms",
        ("net", "float", "int8", "ratio", "ratio of the best", "bytes"),
    )
    for net in results["nets"]:
        floats, codes = net["times"]["float"], net["times"]["int8"]
        report.rows.append(
            (
                f"{net['name']}, {net['dtype']}",
                *(milliseconds(each["median_seconds"]) for each in (floats, codes)),
                *(f"{codes[key] / floats[key]:.2f}x" for key in ("median_seconds", "best_seconds")),
                f"{net['int8_bytes'] / net['float_bytes']:.2f}x",
            )
        )
    report.notes.append(
        f"{machine_note(results['machine'], results['other_programs_processors'])} "
        f"{results['clock']}, timed in turn."
    )
    return report


if __name__ == "__main__":
    main()
