"""One mixture-of-experts layer: float, in each implementation of transformers, beside int8.

    python benchmarks/experts.py                       # Mixtral-like and Qwen-MoE-like layers, one token
    python benchmarks/experts.py --tokens 1,16 --dtype float32
    python benchmarks/experts.py --sizes 8x2x2048x7168 --markdown

A size is EXPERTSxCHOSENxHIDDENxINNER. All candidates run in one process, in turn, round by round, and
every call takes other experts than the last one, so their weights are not in the cache. Before anything
is timed, the outputs are compared with those of the dequantized weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import clock
import torch
from machine import describe
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import Tensor, nn
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

import w8a16
from w8a16.study import time_in_turn
from w8a16.study.timing import OtherPrograms

IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")
SIZES = "8x2x4096x14336,64x8x2048x1408"
ROUTINGS = 64
"""Different choices of experts that the calls go through."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=SIZES, help="EXPERTSxCHOSENxHIDDENxINNER, separated by commas")
    parser.add_argument("--tokens", default="1", help="numbers of tokens, separated by commas")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument(
        "--seconds", type=float, default=20, help="about how long, a size and number of tokens"
    )
    clock.add_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print a table for a page")
    options = parser.parse_args()
    options.clock = clock.set_up(options)
    counts = [int(count) for count in options.tokens.split(",")]
    others, measured = OtherPrograms(), []
    for size in options.sizes.split(","):
        experts, chosen, hidden, inner = (int(part) for part in size.split("x"))
        measured.append({"size": size, "times": _measure(experts, chosen, hidden, inner, counts, options)})
    results = {
        "machine": describe(),
        "other_programs_processors": others.processors(),
        "clock": clock.note(options),
        "dtype": options.dtype,
        "layers": measured,
    }
    write_json(options.json, results)
    if options.json != "-":
        publish([_report(results, layer, counts) for layer in measured], options.markdown)


def _measure(
    experts: int, chosen: int, hidden: int, inner: int, counts: list[int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype)
    say(f"{experts}x{chosen}x{hidden}x{inner}: building")
    layer = _layer(experts, hidden, inner, dtype)
    int8 = w8a16.quantize(_sharing(layer, "eager"))
    floats = {name: _sharing(layer, name) for name in IMPLEMENTATIONS}
    found = []
    for count in counts:
        x = torch.randn(count, hidden).to(dtype)
        routings = [_routing(count, experts, chosen, dtype) for _ in range(ROUTINGS)]
        say(f"{experts}x{chosen}x{hidden}x{inner}, {count} tokens: timing")
        modules = {**floats, "int8": int8}
        candidates = {name: _calls(module, x, routings) for name, module in modules.items()}
        with torch.inference_mode():
            error = _difference(int8(x, *routings[0]), floats["eager"](x, *routings[0]))
            timings = time_in_turn(candidates, options.seconds, clock=options.clock)
        found.append(
            {
                "tokens": count,
                "difference": error,
                "median_seconds": {name: timing.median for name, timing in timings.items()},
                "best_seconds": {name: timing.best for name, timing in timings.items()},
            }
        )
    return found


def _calls(module: nn.Module, x: Tensor, routings: list[tuple[Tensor, Tensor]]) -> Callable[[int], object]:
    return lambda call: module(x, *routings[call % len(routings)])


def _layer(experts: int, hidden: int, inner: int, dtype: torch.dtype) -> nn.Module:
    config: Any = SimpleNamespace(
        num_local_experts=experts,
        hidden_size=hidden,
        intermediate_size=inner,
        hidden_act="silu",
        _experts_implementation="eager",
    )
    with torch.device("meta"):
        layer: nn.Module = MixtralExperts(config).to(dtype)
    layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        # One expert's numbers for all of them: their values cost no time.
        pattern = 0.02 * torch.randn(parameter.shape[1:])
        parameter.data.copy_(pattern.to(dtype).expand_as(parameter))
    return layer.eval()


def _sharing(layer: nn.Module, implementation: str) -> nn.Module:
    """The same parameters in a module of its own, with another implementation."""
    other = copy.copy(layer)
    other._parameters = dict(layer._parameters)
    other._buffers = {}
    config: Any = SimpleNamespace(**vars(layer.config) | {"_experts_implementation": implementation})
    other.config = config
    return other


def _routing(tokens: int, experts: int, chosen: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    indices = torch.stack([torch.randperm(experts)[:chosen] for _ in range(tokens)])
    return indices, torch.rand(tokens, chosen).to(dtype)


def _difference(output: Tensor, expected: Tensor) -> float:
    """Relative to the norm: the error of the codes, which is about half a percent a projection."""
    error: float = ((output.double() - expected.double()).norm() / expected.double().norm()).item()
    if not error < 0.05:
        raise SystemExit(f"int8 differs from float by {error:.1%}: not timed")
    return error


def _report(results: dict[str, Any], layer: dict[str, Any], counts: list[int]) -> Report:
    experts, chosen, hidden, inner = layer["size"].split("x")
    title = (
        f"{chosen} of {experts} experts, {hidden} to {inner}, {results['dtype']}, ms a call, median (best)"
    )
    found = Report(title, ("tokens", *map(str, counts)))
    for name in layer["times"][0]["median_seconds"]:
        cells = [
            f"{milliseconds(time['median_seconds'][name])} ({milliseconds(time['best_seconds'][name])})"
            for time in layer["times"]
        ]
        found.rows.append((name if name == "int8" else f"float, {name}", *cells))
    gains = []
    for time in layer["times"]:
        medians = time["median_seconds"]
        fastest = min(seconds for name, seconds in medians.items() if name != "int8")
        gains.append(f"{fastest / medians['int8']:.2f}x")
    found.rows.append(("int8 against the fastest float", *gains))
    note = machine_note(results["machine"], results["other_programs_processors"])
    found.notes.append(f"{note} {results['clock']}, timed in turn.")
    return found


if __name__ == "__main__":
    main()
