"""One linear layer, by everything that can run it: the time of each, beside what the machine allows.

    python benchmarks/linear.py --json build/linear.json   # 4096x4096, 1 to 128 activation rows
    python benchmarks/linear.py --read build/linear.json --markdown
    python benchmarks/plot.py build/linear.json

All peers run in one process, in turn, round by round. Each has several copies of the weight, more than
the last-level cache holds, and every call takes the next one. Before anything is timed, each output
is checked against float64. A peer that is absent or fails is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe
from peers import Layer, NotRunError, Peer, error_in_tolerances, peers, quiet, versions, weight_error
from report import Report, machine_note, milliseconds, publish, say, write_json
from torch import Tensor

from w8a16.cli.bench import parse_batches, parse_shape
from w8a16.study import Limits, LinearShape, sample_limits, time_in_turn
from w8a16.study.speed import random_weight
from w8a16.study.timing import OtherPrograms, Timing, copies_beyond_cache, last_level_cache


def main() -> None:
    options = _options()
    if options.read:
        results = json.loads(Path(options.read).read_text(encoding="utf-8"))
    else:
        if options.threads:
            torch.set_num_threads(options.threads)
        shapes = [parse_shape(text) for text in options.shapes.split(",")]
        chosen = [peer for peer in peers() if any(word in peer.name for word in options.peers.split(","))]
        results = measure(shapes, parse_batches(options.rows), chosen, options.seconds)
    write_json(options.json, results)
    if options.json != "-":
        kinds = ("median",) if options.markdown else ("median", "best")
        publish(
            [report(results, shape, kind) for shape in results["shapes"] for kind in kinds], options.markdown
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="4096x4096", help="OUTxIN, separated by commas")
    parser.add_argument("--rows", default="1,2,4,8,16,32,64,128", help="activation rows (M)")
    parser.add_argument("--peers", default="", help="parts of the names of the peers to run; default: all")
    parser.add_argument("--seconds", type=float, default=10, help="about how long, a shape and M")
    parser.add_argument("--threads", type=int, help="default: torch's own number")
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--read", metavar="FILE", help="show the results of an earlier run")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/performance.md")
    return parser.parse_args()


def measure(shapes: list[LinearShape], rows: list[int], chosen: list[Peer], seconds: float) -> dict[str, Any]:
    """Every peer on every shape, as plain data: times in seconds."""
    others, limits, measured = OtherPrograms(), sample_limits(), []
    for shape in shapes:
        found, limits = _measure_shape(shape, rows, chosen, seconds, limits)
        measured.append(found)
    for found in measured:
        found["floors"] = [_floor(found, count, limits) for count in rows]
    return {
        "machine": describe(),
        "versions": versions(),
        "limits": {
            "bytes_per_second": limits.bandwidth,
            "operations_per_second": limits.rate,
            "last_level_cache_bytes": last_level_cache(),
        },
        "other_programs_processors": others.processors(),
        "shapes": measured,
    }


def _measure_shape(
    shape: LinearShape, rows: list[int], chosen: list[Peer], seconds: float, limits: Limits
) -> tuple[dict[str, Any], Limits]:
    torch.manual_seed(0)
    n, k = shape.out_features, shape.in_features
    weight = random_weight(n, k, torch.float32)
    layers: dict[str, Layer] = {}
    records: dict[str, dict[str, Any]] = {}
    say(f"{shape}: building {len(chosen)} peers")
    for peer in chosen:
        records[peer.name] = {
            "name": peer.name,
            "dtype": str(peer.dtype).removeprefix("torch."),
            "ours": peer.ours,
            "note": peer.note,
            "problem": None,
            "times": [],
        }
        layer = _attempt(records, peer, lambda peer=peer: peer.build(weight, _copies(peer, n * k)))
        if layer is not None:
            layers[peer.name] = layer
            records[peer.name]["weight_error"] = weight_error(layer, weight)
            records[peer.name]["copies"] = _copies(peer, n * k)
    for count in rows:
        say(f"{shape}, M = {count}: checking and timing {len(layers)} peers")
        x = torch.randn(count, k)
        inputs = {peer.name: x.to(peer.dtype) for peer in chosen}
        for peer in chosen:
            if peer.name in layers:
                _check(records, layers, peer, inputs[peer.name])
        limits = limits.better_of(sample_limits())
        for name, timing in _time(layers, inputs, seconds).items():
            records[name]["times"].append(
                {
                    "rows": count,
                    "median_seconds": timing.median,
                    "best_seconds": timing.best,
                    "samples": len(timing.seconds),
                }
            )
        limits = limits.better_of(sample_limits())
    return {"out_features": n, "in_features": k, "peers": list(records.values())}, limits


def _copies(peer: Peer, elements: int) -> int:
    return copies_beyond_cache(int(elements * peer.weight_bytes))


def _check(records: dict[str, dict[str, Any]], layers: dict[str, Layer], peer: Peer, x: Tensor) -> None:
    """Compare one output with float64; a peer that fails here is not timed any more."""
    error = _attempt(records, peer, lambda: error_in_tolerances(layers[peer.name], x))
    if error is None:
        del layers[peer.name]
    else:
        before = records[peer.name].get("error_in_tolerances", 0.0)
        records[peer.name]["error_in_tolerances"] = max(before, error)


def _attempt(records: dict[str, dict[str, Any]], peer: Peer, function: Callable[[], Any]) -> Any:
    """The result, or None with the reason on record: whatever a peer raises must not end the run."""
    try:
        with quiet(), torch.inference_mode():
            return function()
    except NotRunError as error:
        records[peer.name]["problem"] = str(error)
    except Exception as error:
        records[peer.name]["problem"] = f"failed: {type(error).__name__}: {error}".splitlines()[0][:200]
    say(f"  {peer.name}: {records[peer.name]['problem']}")
    return None


def _time(layers: dict[str, Layer], inputs: dict[str, Tensor], seconds: float) -> dict[str, Timing]:
    candidates = {
        name: lambda call, layer=layer, x=inputs[name]: layer.call(call, x) for name, layer in layers.items()
    }
    with quiet(), torch.inference_mode():
        timings = time_in_turn(candidates, seconds)
    return {
        name: Timing(tuple(second / layers[name].layers_per_call for second in timing.seconds))
        for name, timing in timings.items()
    }


def _floor(shape: dict[str, Any], rows: int, limits: Limits) -> dict[str, Any]:
    """The least time with int8 weights, 16-bit activations and float32 sums."""
    n, k = shape["out_features"], shape["in_features"]
    work = (n * k + 4 * n + 2 * rows * (n + k), 2 * rows * n * k)
    return {"rows": rows, "seconds": limits.floor(*work), "bound_by": limits.binding(*work)}


def report(results: dict[str, Any], shape: dict[str, Any], kind: str) -> Report:
    """The table of one shape: a row for each peer, a column for each M; `kind` is "median" or "best"."""
    counts = [floor["rows"] for floor in shape["floors"]]
    size = f"{shape['out_features']}x{shape['in_features']}"
    found = Report(f"{size}, ms a call, {kind}", ("M", *map(str, counts), "error", "weights"))
    ran = [peer for peer in shape["peers"] if len(peer["times"]) == len(counts)]
    fastest = [
        min((p["times"][i][f"{kind}_seconds"] for p in ran if p["error_in_tolerances"] <= 1), default=0)
        for i in range(len(counts))
    ]
    for peer in ran:
        cells = []
        for time, best in zip(peer["times"], fastest, strict=True):
            seconds = time[f"{kind}_seconds"]
            cells.append(f"**{milliseconds(seconds)}**" if seconds == best else milliseconds(seconds))
        error = peer["error_in_tolerances"]
        shown_error = f"{error:.2f}" if error <= 1 else f"**{error:.0f}**"
        found.rows.append((_name(peer), *cells, shown_error, f"{peer['weight_error']:.2%}"))
    if all(floor["seconds"] for floor in shape["floors"]):
        floors = [milliseconds(floor["seconds"]) for floor in shape["floors"]]
        found.rows.append(("floor of int8 weights", *floors, "", ""))
    found.notes += [f"\\* {peer['note']}." for peer in ran if peer["note"]]
    found.notes += _absentees(shape["peers"])
    found.notes.append(machine_note(results["machine"], results["other_programs_processors"]))
    if results["limits"]["bytes_per_second"]:
        found.notes[-1] += (
            f" Limits measured during the run: {results['limits']['bytes_per_second'] / 1e9:.1f} GB/s read, "
            f"{results['limits']['operations_per_second'] / 1e9:.0f} GFLOP/s."
        )
    return found


def _name(peer: dict[str, Any]) -> str:
    return f"{peer['name']} \\*" if peer["note"] else peer["name"]


def _absentees(found: list[dict[str, Any]]) -> list[str]:
    """One sentence for each reason why peers did not run."""
    reasons: dict[str, list[str]] = {}
    for peer in found:
        if peer["problem"]:
            reasons.setdefault(peer["problem"], []).append(peer["name"])
    return [f"Not run: {', '.join(names)}: {reason}." for reason, names in reasons.items()]


if __name__ == "__main__":
    main()
