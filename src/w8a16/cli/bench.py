"""`w8a16 bench [SRC]`: how fast the linear layers of a model are in float and in int8, on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from w8a16.checkpoint import shown
from w8a16.cli.bench_report import Findings, document, print_findings
from w8a16.cli.progress import status
from w8a16.cli.show import print_json
from w8a16.errors import CheckpointError, UsageError
from w8a16.kernels import decide
from w8a16.study import (
    Limits,
    LinearShape,
    Measurement,
    linear_shapes,
    measure_linear,
    sample_limits,
)
from w8a16.study.speed import check_memory
from w8a16.study.timing import OtherPrograms

BATCHES = "1,2,4,8,16,32,64,128"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGEST = 2**31 - 1  # of a dimension: beyond, torch itself fails in ways of its own


def run(
    src: Path | None,
    shapes: list[str] | None,
    batch: str,
    dtype: str | None,
    threads: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Check the options, find the shapes, measure them, and print tables or JSON."""
    batches = parse_batches(batch)
    wanted_dtype = None if dtype is None else parse_dtype(dtype)
    _check_positive("--seconds", seconds)
    _check_positive("--threads", 1 if threads is None else threads)
    backends = decide("cpu")
    if (src is None) == (not shapes):
        problem = "got both" if shapes else "got neither"
        raise UsageError(f"expected a model folder or --shape OUTxIN, {problem}")
    kept: tuple[str, ...] = ()
    stored = None
    if src is None:
        found = tuple(dict.fromkeys(parse_shape(text) for text in shapes or []))
    else:
        found, kept, stored = read_model(src, as_json)
    float_dtype = wanted_dtype or stored or torch.float32
    with _threads(threads):
        others = OtherPrograms()
        limits, measurements = measure(found, float_dtype, batches, seconds, not as_json)
        findings = Findings(
            source=None if src is None else str(src),
            dtype=str(float_dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            backends=backends,
            limits=limits,
            other_programs=others.processors(),
            shapes=found,
            kept_float=kept,
            measurements=measurements,
        )
    if as_json:
        print_json(document(findings))
    else:
        print_findings(findings)


def parse_shape(text: str) -> LinearShape:
    """`"4096x11008"` as a shape: out_features, then in_features, as in `layer.weight.shape`."""
    match = re.fullmatch(r"(\d{1,10})[xX](\d{1,10})", text.strip(), flags=re.ASCII)
    if not match or not all(1 <= int(number) <= _LARGEST for number in match.groups()):
        raise UsageError(
            f"--shape: expected OUTxIN, two sizes of at least 1 such as 4096x11008, got {text!r}"
        )
    return LinearShape(int(match[1]), int(match[2]))


def parse_batches(text: str) -> list[int]:
    """`"1,8,64"` as ascending numbers of activation rows."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,7}", part, flags=re.ASCII) and int(part) for part in parts):
        raise UsageError(f"--batch: expected batch sizes of at least 1 such as 1,8,64, got {text!r}")
    return sorted({int(part) for part in parts})


def parse_dtype(text: str) -> torch.dtype:
    """The dtype of a name."""
    if text not in DTYPES:
        raise UsageError(f"--dtype: expected one of {', '.join(DTYPES)}, got {text!r}")
    return DTYPES[text]


def _check_positive(option: str, value: float) -> None:
    if not value > 0:  # NaN as well
        raise UsageError(f"{option}: expected a number above 0, got {value}")


def read_model(
    src: Path, as_json: bool
) -> tuple[tuple[LinearShape, ...], tuple[str, ...], torch.dtype | None]:
    """The shapes of a folder's model, its linear layers that stay float, and the dtype it is stored in."""
    from w8a16.integrations import transformers_folders as folder

    with status(f"reading {shown(src)}", enabled=not as_json):
        model = folder.skeleton(src)
    found = linear_shapes(model)
    if not found.shapes:
        kept = f" ({len(found.kept_float)} linear layers stay float)" if found.kept_float else ""
        raise CheckpointError(
            f"{shown(src)}: expected a model with linear layers, but {type(model).__name__} has none that "
            f"becomes int8{kept}; name shapes with --shape"
        )
    stored = str(getattr(getattr(model, "config", None), "dtype", None)).removeprefix("torch.")
    return found.shapes, found.kept_float, DTYPES.get(stored)


def measure(
    shapes: tuple[LinearShape, ...],
    dtype: torch.dtype,
    batches: list[int],
    seconds: float,
    show_progress: bool,
) -> tuple[Limits, list[Measurement]]:
    """Time every shape at every batch size, float against int8, for about so many seconds in all."""
    for shape in shapes:  # before the first one is timed
        check_memory(shape, dtype, batches)
    limits, measurements = sample_limits(), []
    with _progress(len(shapes) * len(batches), enabled=show_progress) as step:
        for shape in shapes:
            step(str(shape), 0)
            for measurement in measure_linear(shape, dtype, batches, seconds / len(shapes)):
                measurements.append(measurement)
                limits = limits.better_of(sample_limits())
                step(str(shape), 1)
    return limits, measurements


@contextmanager
def _progress(total: int, enabled: bool) -> Iterator[Callable[[str, int], None]]:
    """A progress bar in measurements on standard error; yields the callback `(what, steps)`."""
    terminal = Console(stderr=True)
    if not (enabled and terminal.is_terminal):
        yield lambda what, steps: None
        return
    columns = (
        TextColumn("timing {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda what, steps: progress.update(task, description=what, advance=steps)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
