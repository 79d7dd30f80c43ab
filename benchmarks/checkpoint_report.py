"""The tables of benchmarks/checkpoint.py."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from report import Report, machine_note

from w8a16.convert import size


def time_report(results: dict[str, Any]) -> Report:
    """Seconds of each row, and in ratios to cp of the same round."""
    rows = results["times"]
    report = Report(
        f"Quantizing {size(results['source_bytes'])} of bfloat16 in {results['files']} files, median (best)",
        (
            "",
            "seconds",
            "processor seconds",
            "of `cp -r`",
            "of `cp -r`, sync",
            "memory above torch",
            "written",
        ),
    )
    copies = {row["name"]: [_seconds(run) for run in row["runs"]] for row in rows[:2]}
    for row in rows:
        if row["problem"] and not row["runs"]:
            report.notes.append(f"Not run: {row['name']}: {row['problem']}")
            continue
        seconds = [_seconds(run) for run in row["runs"]]
        ratios = [_ratios(seconds, copy) for copy in copies.values()]
        peak = max(run["peak_bytes"] for run in row["runs"]) - results["bare"]["nothing"]["peak_bytes"]
        report.rows.append(
            (
                row["name"],
                _both(seconds),
                f"{statistics.median(run['processor_seconds'] for run in row['runs']):.2f}",
                *(_both(ratio, "x") for ratio in ratios),
                "" if peak < 0 else size(peak),
                size(row["output_bytes"]),
            )
        )
        if row["problem"]:
            report.notes.append(f"Some runs of {row['name']} failed: {row['problem']}")
    report.notes += [_where_the_time_goes(rows, results["bare"]), _machine(results)]
    return report


def memory_report(results: dict[str, Any]) -> Report:
    """Peaks of `w8a16 quantize --by-name`."""
    report = Report("Peak memory of `w8a16 quantize --by-name`", ("", "checkpoint", "peak", "above torch"))
    bare = results["bare"]["nothing"]["peak_bytes"]
    for row in results["memory"]:
        if row["problem"]:
            report.notes.append(f"Not run: {row['name']}: {row['problem']}")
            continue
        peak = row["peak_bytes"]
        report.rows.append((row["name"], size(row["bytes"]), size(peak), _mebibytes(peak - bare)))
    report.notes.append(f"An interpreter with torch takes {size(bare)}.")
    return report


def loading_report(results: dict[str, Any]) -> Report:
    """Loading the quantized checkpoint and the float one."""
    report = Report(
        "Loading, median (best)",
        (
            "",
            "weights",
            "seconds",
            "every page in memory",
            "the same, from disk",
            "peak above imports",
            "of the weights",
        ),
    )
    for row in results["loading"]:
        peak = statistics.median(run["bytes_above_imports"] for run in row["runs"])
        report.rows.append(
            (
                row["name"],
                size(row["bytes"]),
                _both([run["seconds"] for run in row["runs"]]),
                _both([run["touched_seconds"] for run in row["runs"]]),
                _both([run["touched_seconds"] for run in row["cold_runs"]]),
                size(round(peak)),
                f"{peak / row['bytes']:.2f}x",
            )
        )
    imports = size(results["bare"]["nothing_but_classes"]["peak_bytes"])
    report.notes.append(f"The imports (torch, transformers' model class, w8a16) take {imports}.")
    return report


def opening_report(results: dict[str, Any]) -> Report:
    """Seconds of `open_shards`."""
    report = Report("Opening a checkpoint", ("tensors", "files", "seconds"))
    for row in results["opening"]:
        report.rows.append((f"{row['tensors']:,}", str(row["files"]), f"{row['seconds']:.2f}"))
    return report


def _where_the_time_goes(rows: Sequence[dict[str, Any]], bare: dict[str, Any]) -> str:
    """Of the process that measures its phases itself."""
    runs = next(row["runs"] for row in rows if row["name"] == "w8a16, imported already")
    if not runs:
        return ""
    plan, work, publish = (
        statistics.median(run[f"{phase}_seconds"] for run in runs) for phase in ("plan", "run", "publish")
    )
    torch, classes = (bare[name]["wall_seconds"] for name in ("nothing", "nothing_but_classes"))
    return (
        f"Of `w8a16, imported already`: planning {plan:.2f} s, quantizing from file to file {work:.2f} s, "
        f"bringing it to the disk {publish:.2f} s. A process that only imports torch takes {torch:.1f} s, "
        f"one that imports transformers' model class too {classes:.1f} s."
    )


def _seconds(run: dict[str, Any]) -> float:
    return float(run.get("seconds", run["wall_seconds"]))


def _ratios(seconds: Sequence[float], copies: Sequence[float]) -> list[float]:
    """Of runs of the same round; what ran once is compared with the median."""
    if len(seconds) != len(copies):
        middle = statistics.median(copies)
        return [one / middle for one in seconds]
    return [one / copy for one, copy in zip(seconds, copies, strict=True)]


def _both(values: Sequence[float], unit: str = "") -> str:
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f}{unit})"


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):.0f} MiB"


def _machine(results: dict[str, Any]) -> str:
    return machine_note(results["machine"], results["other_programs_processors"])
