"""`w8a16 compare FLOAT QUANTIZED`: what int8 weights do to the outputs of a transformers model.

The two models are never in memory together: the int8 one is, and computes with float weights, read from
the files of FLOAT one layer at a time, where the float model's outputs are needed. Only a repair, which
comes after it, holds the float model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.text import Text
from torch import nn

from w8a16.checkpoint import as_resource_error, shown
from w8a16.cli import compare_repair
from w8a16.cli.bench import measure, read_model
from w8a16.cli.compare_report import Findings, document, print_findings
from w8a16.cli.freed_memory import return_freed_memory
from w8a16.cli.progress import byte_progress, status
from w8a16.cli.show import console, print_json
from w8a16.cli.stages import stages
from w8a16.errors import ComparisonError, MissingExtraError, UsageError
from w8a16.integrations.folder_pair import FolderPair, open_pair
from w8a16.integrations.hub import fetch, looks_like_hub_id
from w8a16.integrations.model_inputs import Inputs, Request, make_inputs, tokens_at_once
from w8a16.integrations.model_tasks import model_task
from w8a16.integrations.pair_check import check_pair
from w8a16.study import Measurement
from w8a16.study.compare import Comparison, compare, task_named

REPORTS = (".html", ".md", ".json")
_LEAST_ACTIVATIONS = 4 << 20  # bytes
_ROWS = (1, 16, 128)  # activation rows at which the linear layers are timed


@dataclass(frozen=True)
class Options:
    """The arguments of the command."""

    float_source: str
    quantized_source: str
    inputs: Path | None
    dataset: str | None
    text: Path | None
    task: str | None
    sensitivity: bool
    batches: int
    report: Path | None
    as_json: bool
    repair: str | None = None
    recipe: Path | None = None
    speed: float = 0.0
    """Seconds to time the linear layers for the report; 0: not at all."""


def run(options: Options) -> None:
    """Open both folders, make inputs, check that the two belong together, compare, and show."""
    _check_report(options.report)
    _check_speed(options.speed, options.report)
    order = compare_repair.order_of(options.repair, options.recipe)
    if options.task is not None:
        task_named(options.task)
    quiet = options.as_json
    return_freed_memory()
    float_folder, int8_folder = (
        _locate(source, quiet) for source in (options.float_source, options.quantized_source)
    )
    with status("opening both folders", enabled=not quiet):
        pair = open_pair(float_folder, int8_folder)
        inputs = _inputs(options, pair)
    with byte_progress("checking", pair.total_bytes, quiet) as progress:
        notes = check_pair(pair, lambda done, total: progress(done))
    findings, report = _compare_and_report(options, pair, inputs, notes)
    if not options.as_json:
        print_findings(findings)
        if report is not None:
            console.print(Text(f"wrote {shown(report)}"), soft_wrap=True)
    found = None
    if order is not None:
        found = compare_repair.carry_out(order, pair, inputs, _task(options, pair), quiet)
    if options.as_json:
        repaired = {} if found is None or order is None else {"repair": compare_repair.document(found, order)}
        print_json(document(findings, report) | repaired)
    elif found is not None and order is not None:
        compare_repair.print_repair(found, order, options.float_source)


def _compare_and_report(
    options: Options, pair: FolderPair, inputs: Inputs, notes: Sequence[str]
) -> tuple[Findings, Path | None]:
    """Load the int8 model, which is let go at the end, and compare."""
    with status("loading the int8 model", enabled=not options.as_json):
        model = pair.load()
    comparison = _compare(options, pair, model, inputs)
    findings = Findings(
        options.float_source, options.quantized_source, comparison, inputs, (*pair.notes, *notes)
    )
    if options.report is None:
        return findings, None
    speed = _speed(options, pair) if options.speed else []
    return findings, _write_report(options.report, pair, model, findings, speed)


def _check_report(file: Path | None) -> None:
    """Before the work: a report that cannot be written is of no use after it."""
    if file is None:
        return
    if file.suffix.lower() not in REPORTS:
        raise UsageError(f"--report {shown(file)}: expected a file that ends in {', '.join(REPORTS)}")
    if not file.parent.is_dir():
        raise UsageError(f"--report {shown(file)}: no such folder: {shown(file.parent)}")
    needed = {".html": ("jinja2", "matplotlib"), ".md": ("jinja2",)}.get(file.suffix.lower(), ())
    for library in needed:
        if find_spec(library) is None:
            raise MissingExtraError(library, "study", "a report")


def _check_speed(seconds: float, report: Path | None) -> None:
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"--speed: expected a number of seconds, got {seconds}")
    if seconds and report is None:
        raise UsageError("--speed: the times go into a report; name it with --report FILE")


def _locate(source: str, quiet: bool) -> Path:
    """A folder on this machine; a hub id is downloaded."""
    if not looks_like_hub_id(source):
        return Path(source)
    announce = None if quiet else lambda download: console.print(Text(download.sentence()))
    return fetch(source, bars=not quiet, announce=announce)


def _inputs(options: Options, pair: FolderPair) -> Inputs:
    tokens = tokens_at_once(pair.skeleton, pair.output_bytes, _activation_bytes(pair))
    request = Request(options.inputs, options.dataset, options.text, options.batches, tokens)
    folders = (pair.float_folder, pair.int8_folder)
    return make_inputs(pair.skeleton, folders, model_task(pair.skeleton), request)


def _compare(options: Options, pair: FolderPair, model: nn.Module, inputs: Inputs) -> Comparison:
    """Run the int8 model, with its own and with float weights, on all batches."""
    batches = inputs.cast_to(getattr(model, "dtype", None))
    with stages(options.as_json) as progress:
        try:
            return compare(
                None,
                model,
                batches,
                task=_task(options, pair),
                weights=pair.weights,
                sensitivity=options.sensitivity,
                activation_bytes=_activation_bytes(pair),
                progress=progress,
            )
        except ComparisonError as error:
            raise error.followed_by(f"the inputs were {inputs.source}") from error


def _task(options: Options, pair: FolderPair) -> str:
    return options.task or model_task(pair.skeleton).task


def _activation_bytes(pair: FolderPair) -> int:
    """What the outputs of layers may take beside the int8 model: both fit in the memory of the float one."""
    return max(pair.float_bytes // 4, _LEAST_ACTIVATIONS)


def _speed(options: Options, pair: FolderPair) -> list[Measurement]:
    """Times of the model's linear layers, in the dtype that it is stored in."""
    shapes, _, dtype = read_model(pair.float_folder, options.as_json)
    quiet = options.as_json
    return measure(shapes, dtype or torch.float32, list(_ROWS), options.speed, not quiet)[1]


def _write_report(
    file: Path, pair: FolderPair, model: nn.Module, findings: Findings, speed: Sequence[Measurement]
) -> Path:
    from w8a16.study.report import worst_layer_of, write_report

    comparison = findings.comparison
    worst = worst_layer_of(comparison, model, pair.weights)
    try:
        return write_report(comparison, file, worst=worst, speed=speed, notes=findings.warnings)
    except OSError as error:
        raise as_resource_error(file, error) from error
