"""The study's page and charts: made from the results alone, the same each time, and careful with words."""

from __future__ import annotations

import copy
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from study.report.examples import HOSTILE
from study.report.study_example import SCENARIOS, results
from study.report.test_pages import assert_tables_are_rectangular
from w8a16.study.report import study_charts, study_page
from w8a16.study.report.study_page import loss_text
from w8a16.study.report.study_results import Loss, chosen, largest_size, rows_of

ALL = ["loss.svg", "textbook.svg", "tails.svg", "trend.svg", "variants.svg"]


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return results()


@pytest.fixture(scope="module")
def charts(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return study_charts(data, tmp_path_factory.mktemp("study") / "charts")


def test_charts_are_files_of_their_own(charts: list[Path]) -> None:
    assert sorted(path.name for path in charts) == sorted(ALL)
    for path in charts:
        root = ET.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("aria-label")
        text = path.read_text(encoding="utf-8")
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r"https?://(?!www\.w3\.org/)|20\d\d-\d\d-\d\d", text)
        assert [title for _, title, *_ in SCENARIOS] == [t for _, t, *_ in SCENARIOS if f">{t}<" in text]


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return results(("small", "medium"), seeds=1, scenarios=1)


def test_the_same_results_give_the_same_bytes(small: dict[str, Any], tmp_path: Path) -> None:
    charts, again = (study_charts(copy.deepcopy(small), tmp_path / name) for name in "ab")
    assert len(charts) == 5
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in charts]
    assert study_page(small, charts[:1]) == study_page(copy.deepcopy(small), charts[:1])


def test_the_page_shows_every_part(data: dict[str, Any], charts: list[Path]) -> None:
    page = study_page(data, charts)
    assert assert_tables_are_rectangular(page) == 7
    assert sorted(re.findall(r"\]\(charts/([a-z]+\.svg)\)", page)) == sorted(ALL)
    assert "```sh\nw8a16 study\n```" in page
    assert "| 61 % |" in page
    assert "Not measured: sdnq: not installed." in page
    assert "Of 9 models, 9 are shown to be worse with the textbook recipe" in page


def test_every_shown_cost_is_listed_and_no_other(data: dict[str, Any]) -> None:
    page = study_page(data)
    section = page.split("### Where 8 bits cost something")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    int8 = chosen(rows_of(data), variant="int8")
    costs = [row for row in int8 if row.loss_same_dtype and row.loss_same_dtype.low > 0]
    assert 0 < len(costs) < len(int8)
    assert len(lines) == len(costs)
    for line, row in zip(lines, costs, strict=True):
        assert line.startswith(f"| {row.title} | {row.size} | {row.dtype} | {loss_text(row.loss_same_dtype)}")
    assert f"Of {len(int8)} int8 models" in page
    assert f"{len(costs)} are shown to be worse" in page


def test_without_a_shown_cost_the_page_says_so(data: dict[str, Any]) -> None:
    changed = copy.deepcopy(data)
    for cell in changed["pooled"]:
        for row in cell["rows"]:
            row["loss"] = row["loss_same_dtype"] = {"value": 0.0, "low": -0.001, "high": 0.001}
    page = study_page(changed)
    assert "None of the 27 intervals excludes 0 on the bad side." in page
    assert "0 are shown to be worse, 0 to be better" in page


def test_repair_is_counted(data: dict[str, Any]) -> None:
    changed = copy.deepcopy(data)
    for number, row in enumerate(row for cell in changed["pooled"] for row in cell["tails"]):
        low = {"float": -1.0, "int8": 0.01, "repaired": -0.5 if number % 2 else 0.5}[row["variant"]]
        row["loss"] = {"value": low + 0.1, "low": low, "high": low + 1}
    rows = rows_of(changed, "tails")
    mended = sum(row.loss is not None and row.loss.low < 0 for row in chosen(rows, variant="repaired"))
    assert 0 < mended < 18
    page = study_page(changed)
    assert f"Of 18 models with outliers, 18 have a shown loss in int8; of these, {mended} have none" in page


def test_a_quick_study_of_one_size(tmp_path: Path) -> None:
    data = results(sizes=("small",), seeds=1, scenarios=1)
    data["settings"]["quick"] = True
    for cell in (*data["cells"], *data["pooled"]):
        cell["peers"] = []
    charts = study_charts(data, tmp_path)
    assert "trend.svg" not in [path.name for path in charts]
    page = study_page(data, charts)
    assert "w8a16 study --quick\n" in page
    assert "### By size" not in page
    assert "## Other libraries" not in page


def test_the_command_names_what_is_not_usual() -> None:
    data = results(sizes=("small", "large"), seeds=2)
    assert "w8a16 study --size small --size large --seeds 2\n" in study_page(data)


def test_models_that_could_not_be_scored(small: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(small)
    for cell in (*changed["cells"], *changed["pooled"]):
        for row in cell["rows"]:
            if (row["dtype"], row["variant"]) in (("float16", "int8"), ("bfloat16", "textbook")):
                row |= {"score": None, "loss": None, "loss_same_dtype": None, "note": "NaN or Inf on 3 of 9"}
        for row in cell["tails"]:
            row |= {"score": None, "loss": None, "note": "no channel can be scaled"}
    page = study_page(changed, study_charts(changed, tmp_path))
    assert "2 could not be scored" in page
    assert "NaN or Inf on 3 of 9" in page
    assert not (tmp_path / "tails.svg").exists()
    assert not re.search(r"\b(None|nan)\b", page)


def test_hostile_titles(small: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(small)
    for scenario in changed["scenarios"]:
        scenario |= {"title": HOSTILE, "source": HOSTILE}
    page = study_page(changed)
    assert "<script" not in page
    assert assert_tables_are_rectangular(page) == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        charts = study_charts(changed, tmp_path)
    assert [ET.parse(path).getroot().tag for path in charts] == ["{http://www.w3.org/2000/svg}svg"] * 5


def test_the_largest_size_is_by_name(data: dict[str, Any]) -> None:
    rows = rows_of(data)
    assert largest_size(rows, "text-gpt") == "large"
    assert largest_size([row for row in rows if row.size != "large"], "text-gpt") == "medium"


def test_losses() -> None:
    assert Loss(1, 0.5, 2).shown
    assert not Loss(1, -0.5, 2).shown
    assert Loss(-1, -2, -0.5).gain
    assert not Loss(0, 0, 0).shown
    assert not Loss(0, 0, 0).gain
