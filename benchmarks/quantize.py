"""The time of quantizing a weight: our kernel, the law in plain torch, and the usual expression.

    python benchmarks/quantize.py                         # 4096x11008 in float32, bfloat16 and float16

No quantizer can be faster than reading the weight and writing the codes, so the last columns compare
with the bandwidth of a copy, measured in the same run. All run in turn in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, write_json
from torch import Tensor

from w8a16 import core, kernels
from w8a16.cli.bench import DTYPES, parse_shape
from w8a16.study import time_in_turn
from w8a16.study.speed import random_weight
from w8a16.study.timing import OtherPrograms, copies_beyond_cache

COPIED = 128 << 20


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    shape = parse_shape(options.shape)
    others = OtherPrograms()
    rows = [
        _measure(shape.out_features, shape.in_features, dtype, options.seconds) for dtype in DTYPES.values()
    ]
    results = {
        "machine": describe(),
        "out_features": shape.out_features,
        "in_features": shape.in_features,
        "other_programs_processors": others.processors(),
        "dtypes": rows,
    }
    write_json(options.json, results)
    if options.json != "-":
        publish([_report(results)], options.markdown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="4096x11008", help="OUTxIN")
    parser.add_argument("--seconds", type=float, default=10, help="about how long, a dtype")
    parser.add_argument("--threads", type=int, help="default: torch's own number")
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    return parser.parse_args()


def plain_torch(weight: Tensor) -> tuple[Tensor, Tensor]:
    """What one would write: absmax, divide, round, clamp, all in float32."""
    wide = weight.float()
    scales = wide.abs().amax(dim=1, keepdim=True) / 127
    return (wide / scales).round().clamp(-127, 127).to(torch.int8), scales.squeeze(1)


def _measure(n: int, k: int, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    size = n * k * dtype.itemsize
    weights = [random_weight(n, k, dtype) for _ in range(copies_beyond_cache(size))]
    source, target = torch.ones(COPIED, dtype=torch.int8), torch.zeros(COPIED, dtype=torch.int8)

    def each(function: Callable[[Tensor], object]) -> Callable[[int], object]:
        return lambda call: function(weights[call % len(weights)])

    timings = time_in_turn(
        {
            "kernel": each(kernels.quantize_weight),
            "law": each(core.quantize_weight),
            "plain": each(plain_torch),
            "copy": lambda call: target.copy_(source),
        },
        seconds,
    )
    ours, law, plain = (
        kernels.quantize_weight(weights[0]),
        core.quantize_weight(weights[0]),
        plain_torch(weights[0]),
    )
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "bytes": size + n * k,
        "copy_bytes_per_second": 2 * COPIED / timings["copy"].best,
        "same_bits_as_law": torch.equal(ours[0], law[0]) and torch.equal(ours[1], law[1]),
        "codes_other_than_plain": int((ours[0] != plain[0]).sum()),
        "times": {
            name: {
                "median_seconds": timing.median,
                "best_seconds": timing.best,
                "samples": len(timing.seconds),
            }
            for name, timing in timings.items()
        },
    }


def _report(results: dict[str, Any]) -> Report:
    report = Report(
        f"Quantizing a {results['out_features']}x{results['in_features']} weight, ms, median",
        ("from", "w8a16 kernel", "law in torch", "plain torch", "faster", "GB/s", "of a copy", "bits"),
    )
    for row in results["dtypes"]:
        kernel, law, plain = (row["times"][name]["median_seconds"] for name in ("kernel", "law", "plain"))
        rate = row["bytes"] / kernel
        report.rows.append(
            (
                row["dtype"],
                *(milliseconds(kernel), milliseconds(law), milliseconds(plain), f"{plain / kernel:.1f}x"),
                *(f"{rate / 1e9:.1f}", f"{rate / row['copy_bytes_per_second']:.0%}"),
                "equal" if row["same_bits_as_law"] else "**differ**",
            )
        )
    report.notes.append(machine_note(results["machine"], results["other_programs_processors"]))
    best = max(row["copy_bytes_per_second"] for row in results["dtypes"])
    report.notes[0] += f" A copy moved {best / 1e9:.1f} GB/s, read and written."
    return report


if __name__ == "__main__":
    main()
