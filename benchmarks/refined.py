"""A linear layer whose weight is refined, beside one scale a row and beside float.

    python benchmarks/refined.py                       # 4096x4096; M = 1, 16, 128
    python benchmarks/refined.py --rows 1,8,64 --group 32 --outliers 8 --dtype float32
    python benchmarks/refined.py --markdown

All candidates run in one process, in turn, round by round, each on several copies of its weight, more
than the last-level cache holds. Before anything is timed, the outputs are compared with those of the
dequantized weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import clock
import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import Tensor

from w8a16.cli.bench import parse_batches, parse_shape
from w8a16.kernels import apply_linear, apply_refined_linear
from w8a16.study.timing import OtherPrograms, copies_beyond_cache, time_in_turn

BASE = "one scale a row"


class Weight(NamedTuple):
    """The arguments of `apply_refined_linear` but for input and bias."""

    codes: Tensor
    scales: Tensor
    columns: Tensor | None = None
    values: Tensor | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="4096x4096", help="OUTxIN")
    parser.add_argument("--rows", default="1,16,128", help="activation rows (M)")
    parser.add_argument("--group", type=int, default=128, help="columns that share a scale")
    parser.add_argument("--outliers", type=int, default=4, help="weights of a row kept as floats")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--seconds", type=float, default=10, help="about how long, a number of rows")
    clock.add_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    options = parser.parse_args()
    options.clock = clock.set_up(options)
    results = measure(options)
    write_json(options.json, results)
    if options.json != "-":
        publish([report(results)], options.markdown)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Times of every candidate for every number of rows, as plain data in seconds."""
    torch.manual_seed(0)
    shape, others = parse_shape(options.shape), OtherPrograms()
    n, k = shape.out_features, shape.in_features
    dtype = getattr(torch, options.dtype)
    if options.group < 1 or k % options.group:
        raise SystemExit(f"--group {options.group}: expected a divisor of the {k} input features")
    if not 0 <= options.outliers <= k:
        raise SystemExit(f"--outliers {options.outliers}: expected 0 to {k}")
    say(f"{shape}: building")
    weights = {
        BASE: lambda: per_row(n, k),
        f"groups of {options.group}": lambda: in_groups(n, k, options.group),
        f"{options.outliers} outliers a row": lambda: with_outliers(n, k, options.outliers),
    }
    copies = {name: [build() for _ in range(copies_beyond_cache(n * k))] for name, build in weights.items()}
    floats = {
        f"{name}, torch": [torch.randn(n, k).to(kind) for _ in range(copies_beyond_cache(n * k * size))]
        for name, kind, size in (("float32", torch.float32, 4), ("bfloat16", torch.bfloat16, 2))
    }
    times = []
    for count in parse_batches(options.rows):
        say(f"{shape}, M = {count}: timing")
        x = torch.randn(count, k).to(dtype)
        candidates = {name: int8_call(made, x) for name, made in copies.items()}
        candidates |= {name: float_call(made, x) for name, made in floats.items()}
        with torch.inference_mode():
            for name, made in copies.items():
                check(name, made[0], x)
            timings = time_in_turn(candidates, options.seconds, clock=options.clock)
        times.append(
            {
                "rows": count,
                "median_seconds": {name: timing.median for name, timing in timings.items()},
                "best_seconds": {name: timing.best for name, timing in timings.items()},
            }
        )
    return {
        "machine": describe(),
        "other_programs_processors": others.processors(),
        "clock": clock.note(options),
        "shape": str(shape),
        "dtype": options.dtype,
        "times": times,
    }


def per_row(n: int, k: int) -> Weight:
    """Codes with one scale a row."""
    return Weight(torch.randint(-127, 128, (n, k), dtype=torch.int8), torch.rand(n) / k)


def in_groups(n: int, k: int, size: int) -> Weight:
    """Codes with one scale for every `size` columns."""
    codes = torch.randint(-127, 128, (n, k // size, size), dtype=torch.int8)
    return Weight(codes, torch.rand(n, k // size) / k)


def with_outliers(n: int, k: int, count: int) -> Weight:
    """Codes with one scale a row, and `count` floats of each row."""
    columns = torch.rand(n, k).topk(count, dim=1).indices.sort(dim=1).values.int()
    plain = per_row(n, k)
    return Weight(plain.codes.scatter(1, columns.long(), 0), plain.scales, columns, torch.randn(n, count))


def int8_call(weights: list[Weight], x: Tensor) -> Callable[[int], object]:
    """One call a weight, in turn; the op of one scale a row where that is all there is."""
    if weights[0].codes.dim() == 2 and weights[0].columns is None:
        return lambda call: apply_linear(x, *weights[call % len(weights)][:2], None)

    def run(call: int) -> Tensor:
        codes, scales, columns, values = weights[call % len(weights)]
        return apply_refined_linear(x, codes, scales, None, columns, values)

    return run


def float_call(weights: list[Tensor], x: Tensor) -> Callable[[int], object]:
    """torch's own layer, with the input in its dtype."""
    inputs = x.to(weights[0].dtype)
    return lambda call: torch.nn.functional.linear(inputs, weights[call % len(weights)])


def check(name: str, weight: Weight, x: Tensor) -> None:
    """Compare one output with float64: what is wrong is not timed."""
    dense = (weight.codes.double() * weight.scales.double().unsqueeze(-1)).flatten(1)
    if weight.columns is not None and weight.values is not None:
        dense.scatter_add_(1, weight.columns.long(), weight.values.double())
    expected = x.double() @ dense.T
    actual = apply_refined_linear(x, weight.codes, weight.scales, None, weight.columns, weight.values)
    error = ((actual.double() - expected).norm() / expected.norm()).item()
    if not error < 0.004:
        raise SystemExit(f"{name}: differs from float64 by {error:.2%}: not timed")


def report(results: dict[str, Any]) -> Report:
    """A row for each candidate, and how it compares with one scale a row."""
    times = results["times"]
    title = f"{results['shape']}, {results['dtype']} activations, ms a call, median (best)"
    columns = [text for time in times for text in (f"M = {time['rows']}", "ratio")]
    found = Report(title, ("weight", *columns))
    for name in times[0]["median_seconds"]:
        cells = []
        for time in times:
            median, best = time["median_seconds"], time["best_seconds"]
            cells.append(f"{milliseconds(median[name])} ({milliseconds(best[name])})")
            cells.append(f"{best[name] / best[BASE]:.2f}x")
        found.rows.append((name, *cells))
    note = machine_note(results["machine"], results["other_programs_processors"])
    found.notes.append(f"{note} {results['clock']}, timed in turn; ratios of the best times to {BASE}.")
    return found


if __name__ == "__main__":
    main()
