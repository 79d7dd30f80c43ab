"""The HTML and Markdown pages: whole, safe with hostile names, and good at the edges."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re

import pytest
import torch

from study.report.examples import HOSTILE, comparison, drift, full, module, weight_error
from study.report.html_check import checked
from w8a16.study.metrics import Metric, sqnr_db
from w8a16.study.report import Report, report_html, report_json, report_markdown

SHOWN = (
    HOSTILE.replace("\n", "\\n")
    .replace("\x1b", "\\x1b")
    .replace("\u202e", "\\u202e")
    .replace("\u202c", "\\u202c")
)


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(full())


def hostile() -> Report:
    """Every string of a comparison is hostile."""
    own = comparison(2)
    modules = tuple(
        dataclasses.replace(module(place, HOSTILE), kind=HOSTILE, note=HOSTILE) for place in range(2)
    )
    blame = tuple(dataclasses.replace(item, name=HOSTILE, tied=(HOSTILE,)) for item in own.blame)
    changed = dataclasses.replace(
        own,
        model=HOSTILE,
        outputs=((HOSTILE, drift(30)),),
        task_name=HOSTILE,
        task={HOSTILE: Metric(1.0, 0.5, 1.5, HOSTILE)},
        modules=modules,
        drift_unit=HOSTILE,
        blame=blame,
        blame_untried=(HOSTILE,),
        kept_float=((HOSTILE, HOSTILE),),
    )
    report = full()
    assert report.worst is not None
    speed = tuple(dataclasses.replace(row, shape=HOSTILE, dtype=HOSTILE) for row in report.speed)
    return Report(changed, dataclasses.replace(report.worst, name=HOSTILE), speed, (HOSTILE,))


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    parsed = checked(page)
    assert parsed.count("svg") == 6, "three charts for two widths"
    assert parsed.count("h1") == 1
    assert parsed.count("table") == parsed.count("caption") >= 5
    assert all(attributes.get("aria-label") for tag, attributes in parsed.elements if tag == "svg")
    assert "default-src 'none'" in page


def test_the_page_says_what_was_found(page: str) -> None:
    text = checked(page).text
    assert "On these inputs the int8 model is very close." in text
    assert "Decided by KL divergence: the float model's own text has a 0.042 % higher perplexity" in text
    assert "3.9x smaller" in text
    assert "0.00042 nats/token" in text
    assert "no difference shown: the interval contains 0" in text
    assert "8.8 of 1,000 are not the same" in text
    assert "0.0268 ms" in text


def test_the_same_bytes_can_be_made_from_the_json_alone(page: str) -> None:
    again = Report.from_dict(json.loads(report_json(full())))
    assert report_html(again) == page
    assert not re.search(r"20\d\d-\d\d-\d\d", page), "a date"


def test_charts_have_dark_colours_for_all_their_light_ones(page: str) -> None:
    drawn = set(re.findall(r"(fill|stroke): (#[0-9a-f]{6})", page.split("</style>", 1)[1]))
    assert drawn
    assert {f'[style*="{part}: {color}"]' in page for part, color in drawn} == {True}


def test_hostile_names_are_shown_and_do_nothing() -> None:
    text = report_html(hostile())
    parsed = checked(text)
    assert parsed.text.count("<script>alert(1)</script>") >= 12
    assert html.escape("<script>") in text
    assert f"<h1>{html.escape(SHOWN, quote=False)}" in text.replace("&#34;", '"'), (
        "escaped twice or not at all"
    )
    assert SHOWN in parsed.text


def test_notes_and_tied_layers_are_said() -> None:
    tied = dataclasses.replace(comparison(2).blame[0], tied=("lm_head",))
    noted = dataclasses.replace(module(1), own=None, note="called twice with other shapes")
    found = comparison(2, blame=(tied,), blame_untried=("encoder.last",), modules=(module(0), noted))
    report = Report(found, notes=("random inputs (x): nothing about the quality of answers",))
    for make in (report_html, report_markdown):
        text = re.sub("<[^>]*>", "", make(report)).replace("\\", "")
        assert text.index("random inputs (x)") < text.index("On these inputs the int8 model")
        assert "shares its weight: lm_head" in text
        assert "called twice with other shapes" in text
        assert "encoder.last" in text


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def assert_tables_are_rectangular(text: str) -> int:
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    for table in tables:
        widths = {len(cells(line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    return len(tables)


def test_markdown_tables_are_rectangular() -> None:
    assert assert_tables_are_rectangular(report_markdown(full())) == 8


def test_hostile_names_in_markdown() -> None:
    text = report_markdown(hostile())
    assert assert_tables_are_rectangular(text) == 8
    assert "<script" not in text
    assert text.count("&lt;script") >= 12
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\\`\\*\\_\\\\n" in text


def test_one_layer_without_task_or_blame() -> None:
    report = Report(comparison(1, task={}, task_name="", blame=(), kept_float=()))
    parsed = checked(report_html(report))
    assert "Decided by SQNR of the outputs" in parsed.text
    assert "Layers to blame" not in parsed.text
    assert "The weights of one layer" not in parsed.text
    assert "Speed" not in parsed.text
    assert assert_tables_are_rectangular(report_markdown(report)) == 4


def test_weights_only() -> None:
    modules = tuple(
        dataclasses.replace(module(p), own=None, drifted=None, depth=None, note="") for p in range(3)
    )
    report = Report(comparison(3, task={}, outputs=(), modules=modules, blame=(), batches=0, samples=0))
    text = checked(report_html(report)).text
    assert "The weights were compared; no outputs were." in text
    assert "3 layers were not reached by these inputs" in text


def test_a_model_of_500_layers_stays_readable() -> None:
    text = report_html(full(500))
    parsed = checked(text)
    first = text[: text.index("480 more layers")]
    assert len(re.findall(r'<th scope="row" class="name">encoder', first)) == 20
    assert len(text) < 600_000
    strip = text[text.index('aria-label="Error of the weights and outputs of 500') :]
    assert strip[: strip.index("</svg>")].count("<path") < 60
    assert "The 20 layers with the largest errors of their own, of 500" in parsed.text


def test_nothing_differs_anywhere() -> None:
    exact = drift(math.inf)
    modules = tuple(
        dataclasses.replace(module(p), own=exact, drifted=exact, weight=weight_error("w", math.inf))
        for p in range(3)
    )
    task = {"kl": Metric(0.0, 0.0, 0.0), "top1_agreement": Metric(1.0, 1.0, 1.0, "", "higher")}
    outputs = (("logits", exact),)
    report = Report(comparison(3, modules=modules, outputs=outputs, task=task, drift=0.0))
    text = checked(report_html(report)).text
    assert "very close" in text
    assert "exact" in text


def test_nan_is_never_close() -> None:
    nan = drift(math.nan)
    task = {"kl": Metric(math.nan, None, None, "nats/token")}
    report = Report(comparison(2, outputs=(("logits", nan),), task=task))
    text = checked(report_html(report)).text
    assert "the int8 model is clearly different" in text
    assert "n/a" in text


def test_a_cost_that_is_shown_is_at_least_measurable() -> None:
    task = {
        "agreement": Metric(0.995, 0.99, 0.999, "", "higher"),
        "accuracy_difference": Metric(-0.01, -0.015, -0.004, "", "higher"),
    }
    text = checked(report_html(Report(comparison(2, task=task)))).text
    assert "close, with measurable differences" in text
    assert "Decided by Accuracy difference: worse than float: the interval excludes 0" in text


def test_a_wide_interval_decides_nothing_but_is_named() -> None:
    task = {
        "cosine": Metric(0.9994, 0.9992, 0.9996, "", "higher"),
        "neighbours_in_common_at_1": Metric(0.94, 0.84, 1.0, "", "higher"),
        "kl": Metric(0.004, 0.002, 0.006, "nats", "lower"),
    }
    for make in (report_html, report_markdown):
        text = make(Report(comparison(2, task=task)))
        assert "the int8 model is close, with measurable differences" in text
        assert "Decided by Cosine: 1.98 degrees apart" in text
        assert "By Neighbours in common at 1 it might be clearly different" in text
        assert "By Cosine" not in text


def test_figures_of_a_task_that_is_not_known_are_those_of_the_outputs() -> None:
    task = {"logits sqnr": Metric(33.0, unit="dB", better="higher")}
    outputs = (("logits", drift(33.0)),)
    text = checked(report_html(Report(comparison(2, task=task, task_name="any", outputs=outputs)))).text
    assert "Metrics of the task" not in text
    assert "Decided by SQNR of the outputs: the error is 2.2 % of the output" in text


def test_metrics_without_intervals_have_no_line() -> None:
    task = {"cosine": Metric(0.9998, None, None, "", "higher")}
    parsed = checked(report_html(Report(comparison(2, task=task))))
    assert "0.9998" in parsed.text
    assert "95 % interval" not in parsed.text.split("How to read")[1]


def test_the_error_of_rounding_to_bfloat16_is_what_the_page_says() -> None:
    x = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0))
    assert 55.5 < sqnr_db(x, x.bfloat16().float()) < 56.5
