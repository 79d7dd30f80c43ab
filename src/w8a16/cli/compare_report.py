"""What `w8a16 compare` found, as tables for people and as one document for machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from w8a16.checkpoint import shown
from w8a16.cli.show import console, table
from w8a16.convert import size
from w8a16.integrations.model_inputs import Inputs
from w8a16.study.compare import Comparison, ModuleDrift
from w8a16.study.report.figures import decibels, noise, number, percent, times
from w8a16.study.report.view import judged, metric_name, metric_rows, output_rows, worst_first

WORST = 10
"""Layers, outputs and weights that a table shows."""
_STYLES = ("bold green", "bold yellow", "bold red")


@dataclass(frozen=True)
class Findings:
    """Everything that one run found out."""

    float_source: str
    quantized_source: str
    comparison: Comparison
    inputs: Inputs
    notes: tuple[str, ...]
    """What to know about the two folders, in whole sentences."""

    @property
    def warnings(self) -> list[str]:
        """What to know before believing the figures."""
        random = self.inputs.random
        said = (
            f"random inputs ({', '.join(random)}): they show drift, but nothing about the quality of answers"
        )
        never = [module.name for module in self.comparison.modules if module.depth is None]
        reached = f"{len(never)} int8 layers were not reached by these inputs: {_some(never)}"
        return [*self.notes, *([said] if random else []), *([reached] if never else [])]


def document(findings: Findings, report: Path | None) -> dict[str, Any]:
    """The comparison as plain data, with the keys of `Comparison.to_dict`, and `run`: how it was made."""
    return {
        **findings.comparison.to_dict(),
        "run": {
            "float": findings.float_source,
            "quantized": findings.quantized_source,
            "inputs": findings.inputs.source,
            "random_inputs": list(findings.inputs.random),
            "warnings": findings.warnings,
            "report": None if report is None else str(report),
        },
    }


def print_findings(findings: Findings) -> None:
    """The summary, then a table each for task, outputs, worst layers, blame and weights kept float."""
    comparison = findings.comparison
    _print_summary(findings)
    for each in (
        _task_table(comparison),
        _output_table(comparison),
        _layer_table(comparison),
        _blame_table(comparison),
        _kept_table(comparison),
    ):
        if each is not None:
            console.print(each)


def _print_summary(findings: Findings) -> None:
    comparison = findings.comparison
    before, after = comparison.bytes_before, comparison.bytes_after
    head = Text.assemble((shown(comparison.model), "bold"), f": {size(before)} float, {size(after)} int8")
    if before and after:
        head.append(f", {times(before / after)} smaller")
    console.print(head.append(f"; {percent(comparison.coverage)} of the bytes of its matrices are int8"))
    rows = f"{_count(comparison.samples, 'sample', 's')} in {_count(comparison.batches, 'batch', 'es')}"
    console.print(Text(f"inputs: {findings.inputs.source}; {rows}"))
    verdict = judged(comparison)
    if verdict is not None:
        words = Text.assemble("int8 against float: ", (verdict.words, _STYLES[verdict.level]))
        console.print(words.append(f" ({metric_name(verdict.metric)}: {verdict.meaning})"))
    for warning in findings.warnings:
        console.print(Text(f"note: {warning}", style="yellow"))
    console.print()


def _task_table(comparison: Comparison) -> Table | None:
    if not comparison.task:
        return None
    title = f"task: {shown(comparison.task_name)}"
    result = table("metric", "value", "95 % interval", "better", right=("value",), title=title)
    for row in metric_rows(comparison.task):
        better = row["better"].removesuffix(" is better")
        result.add_row(row["name"], row["value"], "" if row["interval"] == "n/a" else row["interval"], better)
    return result


def _output_table(comparison: Comparison) -> Table:
    title = _title("outputs", len(comparison.outputs))
    result = table("output", "SQNR", "error", "cosine", "largest difference", title=title)
    for column in result.columns[1:4]:
        column.justify = "right"
    for row in output_rows(comparison.outputs)[:WORST]:
        result.add_row(row["name"], row["sqnr"], row["error"], row["cosine"], row["difference"])
    return result


def _layer_table(comparison: Comparison) -> Table:
    numbers = ("weight", "own", "drifted")
    title = _title("int8 layers, the largest error of their own first", len(comparison.modules))
    result = table("layer", "kind", *numbers, right=numbers, title=title)
    for module in worst_first(comparison.modules)[:WORST]:
        result.add_row(*_layer_cells(module))
    result.caption = (
        "weight: its SQNR; own: error of the output where the inputs are those of the float model; drifted: "
        "where they are those of the int8 model"
    )
    result.caption_justify = "left"
    return result


def _layer_cells(module: ModuleDrift) -> tuple[str, ...]:
    weight = module.weight
    return (
        shown(module.name) or "(the model itself)",
        module.kind,
        decibels(weight.sqnr_db) if weight else "n/a",
        noise(module.own.sqnr_db) if module.own else "n/a",
        noise(module.drifted.sqnr_db) if module.drifted else "n/a",
    )


def _blame_table(comparison: Comparison) -> Table | None:
    if not comparison.blame:
        return None
    unit = f"{number(comparison.drift)} {comparison.drift_unit}"
    title = f"to blame for the drift, {unit}{_of(len(comparison.blame))}"
    numbers = ("share", "drift without", "bytes to keep it float")
    result = table("layer", *numbers, right=numbers, title=title)
    for blame in comparison.blame[:WORST]:
        name = shown(blame.name) or "(the model itself)"
        result.add_row(name, percent(blame.share), number(blame.drift_without), size(blame.bytes_added))
    if comparison.blame_untried:
        result.caption = f"{len(comparison.blame_untried)} layers with less error of their own were not tried"
        result.caption_justify = "left"
    return result


def _kept_table(comparison: Comparison) -> Table | None:
    if not comparison.kept_float:
        return None
    result = table("weight", "why", title=_title("kept float", len(comparison.kept_float)))
    for name, reason in comparison.kept_float[:WORST]:
        result.add_row(shown(name), shown(reason))
    return result


def _count(count: int, noun: str, plural: str) -> str:
    return f"{count} {noun if count == 1 else noun + plural}"


def _title(what: str, count: int) -> str:
    return f"{what}{_of(count)}"


def _of(count: int) -> str:
    return f" (the first {WORST} of {count})" if count > WORST else ""


def _some(names: list[str]) -> str:
    more = f", ... ({len(names) - 3} more)" if len(names) > 3 else ""
    return ", ".join(shown(name) for name in names[:3]) + more
