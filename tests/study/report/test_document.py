"""The JSON report: versioned, strict, and enough to make the pages again."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from study.report.examples import comparison, drift, full, heavy_tailed
from w8a16.errors import CheckpointError, UsageError
from w8a16.study import LinearShape, Measurement, Timing
from w8a16.study.report import (
    Report,
    SpeedRow,
    read_report,
    report_json,
    report_markdown,
    write_report,
)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = full()
    path = tmp_path / "report.json"
    path.write_text(report_json(report))
    again = read_report(path)
    assert again == report
    assert report_markdown(again) == report_markdown(report)


def test_notes_come_back_and_are_none_where_a_report_has_none() -> None:
    report = dataclasses.replace(full(), notes=("random inputs",))
    data = json.loads(report_json(report))
    assert Report.from_dict(data) == report
    del data["notes"]
    assert Report.from_dict(data) == full()


def test_numbers_that_json_does_not_have_come_back() -> None:
    report = Report(comparison(1, outputs=(("y", drift(math.inf)),)))
    text = report_json(report)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = Report.from_dict(json.loads(text))
    assert again.comparison.outputs[0][1].sqnr_db == math.inf


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "expected a report"),
        ('{"format": "other"}', "expected a report"),
        ('{"format": "w8a16-report", "version": 2}', "version 1, got 2"),
        ('{"format": "w8a16-report", "version": 1}', "missing or out of place"),
        ("{", "expected a JSON report"),
    ],
)
def test_what_is_no_report_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        read_report(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format", "start"),
    [
        ("a.html", None, "<!DOCTYPE html>"),
        ("a.MD", None, "# BertModel"),
        ("a.json", None, "{"),
        ("a.txt", "markdown", "# BertModel"),
        ("a.html", "json", "{"),
    ],
)
def test_the_suffix_or_the_argument_decides(
    name: str, format: str | None, start: str, tmp_path: Path
) -> None:
    path = write_report(comparison(2), tmp_path / name, format=format)
    assert path == tmp_path / name
    assert path.read_text(encoding="utf-8").lstrip().startswith(start)


@pytest.mark.parametrize(("name", "format"), [("a.pdf", None), ("a", None), ("a.html", "pdf")])
def test_other_formats_are_refused(name: str, format: str | None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="html, markdown, json"):
        write_report(comparison(2), tmp_path / name, format=format)
    assert not (tmp_path / name).exists()


def test_measurements_become_rows(tmp_path: Path) -> None:
    shape = LinearShape(8, 4, names=("a", "b"))
    measured = Measurement(shape, 3, torch.bfloat16, Timing((2e-3, 4e-3, 9e-3)), Timing((1e-3,)))
    path = write_report(comparison(2), tmp_path / "r.json", worst=heavy_tailed(), speed=[measured])
    report = read_report(path)
    assert report.speed == (SpeedRow("8x4", 2, 3, "bfloat16", 4e-3, 1e-3),)
    assert report.speed[0].speedup == 4
    assert report.worst == heavy_tailed()
    write_report(report, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
