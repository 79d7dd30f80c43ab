"""Quantizing a checkpoint from disk to disk: time against copying it, and memory.

    python benchmarks/checkpoint.py                     # 3.4 GB; needs 12 GB of disk and 10 GB of memory
    python benchmarks/checkpoint.py --size 100MB        # a quick look

A Llama of random bfloat16 weights is written to a temporary folder (--folder chooses the disk), and is in
the page cache then. `cp -r` and the others run in turn, so that all meet the same noise; a ratio is that
of two runs of the same round. Memory is the peak of each process, the interpreter with torch taken off.
`--peer PYTHON` is the interpreter of an environment with llm-compressor.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoint_sources as sources
from checkpoint_report import loading_report, memory_report, opening_report, time_report
from machine import describe
from processes import FailedError, Run, python, run
from report import publish, say, write_json

from w8a16.cli.quantize import parse_size
from w8a16.study.timing import OtherPrograms

WORK = Path(__file__).with_name("checkpoint_work.py")
PARTS = {"times", "memory", "loading", "opening"}
PEER = """
import sys
from llmcompressor import model_free_ptq
ignore = ["re:.*norm", "lm_head", "model.embed_tokens"]
model_free_ptq(sys.argv[1], sys.argv[2], scheme="W8A16", ignore=ignore, max_workers=2, device="cpu")
"""


def main() -> None:
    options = _options()
    others = OtherPrograms()
    results: dict[str, Any] = {"machine": describe()}
    results["bare"] = {name: _work(name) for name in ("nothing", "nothing_but_classes")}
    with tempfile.TemporaryDirectory(prefix="w8a16-bench-", dir=options.folder) as name:
        folder = Path(name)
        source = folder / "float"
        say(f"writing {options.size}")
        results["source_bytes"] = sources.llama(source, parse_size(options.size), 4)
        results["files"] = 4
        if "times" in options.parts:
            results["times"] = _times(source, folder, options)
        if "memory" in options.parts:
            results["memory"] = _memory(folder, parse_size(options.size) // 16)
        if "loading" in options.parts:
            results["loading"] = _loading(source, folder, options.rounds)
        if "opening" in options.parts:
            results["opening"] = _opening(folder)
    results["other_programs_processors"] = others.processors()
    write_json(options.json, results)
    if options.json != "-":
        reports = {
            "times": time_report,
            "memory": memory_report,
            "loading": loading_report,
            "opening": opening_report,
        }
        publish([make(results) for part, make in reports.items() if part in results], options.markdown)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="3400MB", help="of the float weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(sorted(PARTS)), type=_parts, help="what to measure")
    parser.add_argument("--folder", type=Path, help="where; default: the temporary folder of the system")
    parser.add_argument("--peer", metavar="PYTHON", help="with llm-compressor; default: this one")
    parser.add_argument("--json", metavar="FILE", help="write the results there; - for standard output")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/performance.md")
    return parser.parse_args()


def _parts(text: str) -> set[str]:
    parts = set(text.split(","))
    if not parts <= PARTS:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(sorted(PARTS))}")
    return parts


# --- time -----------------------------------------------------------------------------------------


def _times(source: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of all that are quick enough for several, then one run of each of the others."""
    target = folder / "target"
    quick: dict[str, Callable[[], Run]] = {
        "cp -r": lambda: run(["cp", "-r", source, target]),
        "cp -r, sync": lambda: run(["sh", "-c", 'cp -r "$0" "$1" && sync', source, target]),
        "w8a16 quantize": lambda: _command(source, target),
        "w8a16 quantize --by-name": lambda: _command(source, target, "--by-name"),
        "w8a16, imported already": lambda: python(WORK, "function", source, target),
    }
    slow: dict[str, Callable[[], Run]] = {
        "plain loop": lambda: python(WORK, "loop", source, target),
        "llm-compressor": lambda: _peer(options.peer or sys.executable, source, target),
    }
    rows: dict[str, dict[str, Any]] = {name: {"name": name, "runs": [], "problem": None} for name in quick}
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        order = list(quick)[number % len(quick) :] + list(quick)[: number % len(quick)]
        for name in order:
            _sample(rows[name], quick[name], source, target)
    for name, start in slow.items():
        say(name)
        rows[name] = {"name": name, "runs": [], "problem": None}
        _sample(rows[name], start, source, target)
    return list(rows.values())


def _sample(row: dict[str, Any], start: Callable[[], Run], source: Path, target: Path) -> None:
    """One run, on a disk that has nothing else to write, of a source in the page cache."""
    _read_through(source)
    os.sync()
    try:
        done = start()
        inner = json.loads(done.output) if done.output.startswith("{") else {}
        # A process that imports first and measures then says itself how long it took.
        figures = {"wall_seconds": done.seconds, "processor_seconds": done.processor_seconds}
        row["runs"].append({**figures, "peak_bytes": done.peak_bytes, **inner})
        row["output_bytes"] = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    except (FailedError, OSError) as error:
        row["problem"] = str(error)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _command(source: Path, target: Path, *options: str) -> Run:
    done = python("-m", "w8a16", "quantize", str(source), str(target), *options, "--json")
    return replace(done, output="")


def _peer(interpreter: str, source: Path, target: Path) -> Run:
    done = run([interpreter, "-c", PEER, source, target])
    return replace(done, output="")


def _read_through(folder: Path) -> None:
    buffer = bytearray(8 << 20)
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _forget(folder: Path) -> None:
    """Drop the weights from the page cache, so that they come from the disk."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _work(task: str, *paths: Path) -> dict[str, Any]:
    done = python(WORK, task, *paths)
    return {**json.loads(done.output), "wall_seconds": done.seconds}


# --- memory, loading, opening ---------------------------------------------------------------------


def _memory(folder: Path, file_bytes: int) -> list[dict[str, Any]]:
    """Peaks of the command over checkpoints of more and more files of one size, and over one large tensor."""
    rows = []
    for files in (4, 8, 16, 40):
        rows.append(
            _peak(
                folder,
                f"{files} files",
                lambda path, files=files: sources.llama(path, files * file_bytes, files, zeros=True),
            )
        )
    large = min(6 << 30, 64 * file_bytes)
    rows.append(_peak(folder, "one tensor", lambda path: sources.one_tensor(path, large)))
    return rows


def _peak(folder: Path, name: str, make: Callable[[Path], int]) -> dict[str, Any]:
    say(f"memory: {name}")
    source, target = folder / "memory", folder / "target"
    row: dict[str, Any] = {"name": name, "bytes": make(source)}
    try:
        row["peak_bytes"] = _command(source, target, "--by-name").peak_bytes
        row["problem"] = None
    except FailedError as error:
        row["problem"] = str(error)
    finally:
        shutil.rmtree(source)
        shutil.rmtree(target, ignore_errors=True)
    return row


def _loading(source: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Load the float and the quantized checkpoint, in turn, each time in a process of its own."""
    quantized = folder / "int8"
    say("loading")
    _command(source, quantized)
    rows = []
    for name, task, path in (
        ("float, from_pretrained", "load_float", source),
        ("int8, w8a16.load", "load_int8", quantized),
        ("int8, w8a16.load(mmap=True)", "load_int8_mapped", quantized),
    ):
        size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        rows.append({"name": name, "task": task, "path": path, "bytes": size, "runs": [], "cold_runs": []})
    for _ in range(rounds):
        for row in rows:
            _read_through(row["path"])
            row["runs"].append(_work(row["task"], row["path"]))
            _forget(row["path"])
            row["cold_runs"].append(_work(row["task"], row["path"]))
    shutil.rmtree(quantized)
    return [{key: row[key] for key in ("name", "bytes", "runs", "cold_runs")} for row in rows]


def _opening(folder: Path) -> list[dict[str, Any]]:
    """Headers and indexes of many tensors and files."""
    rows = []
    for tensors, files in ((100_000, 1), (100_000, 300)):
        path = folder / f"opening-{files}"
        sources.many_tensors(path, tensors, files)
        say(f"opening {files} files")
        rows.append(_work("open_headers", path))
        shutil.rmtree(path)
    return rows


if __name__ == "__main__":
    main()
