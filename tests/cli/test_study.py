"""`w8a16 study` on a toy: files, tables, JSON, resuming, and what it says about wrong options."""

import json

import pytest

import w8a16.cli.study as command
from support.toy_scenario import Toy


@pytest.fixture
def toy(monkeypatch):
    """A study whose only scenario is trained in a moment."""
    scenario = Toy()
    monkeypatch.setattr(command, "SCENARIOS", ("toy",))
    monkeypatch.setattr(command, "scenario_named", lambda name: {"toy": scenario}[name])
    return scenario


def test_a_quick_study_writes_results_page_and_charts_and_goes_on(run, toy, tmp_path):
    out = tmp_path / "study"
    first = run("study", "--quick", "--threads", 1, "--out", out)
    assert first.code == 0, first.err
    results = json.loads((out / "results.json").read_text())
    assert [(cell["scenario"], cell["size"], cell["seed"]) for cell in results["cells"]] == [
        ("toy", "small", 0)
    ]
    assert (out / "study.md").read_text().startswith("#")
    assert list((out / "charts").glob("*.svg"))
    assert "Loss against float32" in first.out
    assert "Heavy tails" in first.out
    assert "toy-small-0" in first.out
    environment = json.loads((out / "environment.json").read_text())
    assert environment["cells_measured"] == 1
    before = (out / "results.json").read_bytes()
    again = run("study", "--quick", "--threads", 1, "--out", out, "--json")
    assert again.code == 0, again.err
    assert toy.trained == [("small", 0)]
    assert again.json["cells"] == results["cells"]
    assert str(out / "study.md") in again.json["files"]
    assert (out / "results.json").read_bytes() == before


def test_progress_for_machines_names_each_step_once(run, toy, tmp_path):
    result = run("study", "--quick", "--threads", 1, "--out", tmp_path / "study", "--json")
    events = [json.loads(line) for line in result.err.splitlines()]
    steps = [event["what"] for event in events if event["cell"] == "toy-small-0"]
    assert steps[0] == "training"
    assert steps[-1] == "finished"
    assert "bfloat16 textbook" in steps
    assert len(steps) == len(set(steps))
    shares = [event["share"] for event in events]
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--scenario", "text-gtp"), "scenario 'text-gtp': expected one of text-embedding, text-gpt"),
        (("--size", "huge"), "--size: expected one of small, medium, large, got 'huge'"),
        (("--seeds", 0), "--seeds: expected at least 1, got 0"),
        (("--threads", 0), "--threads: expected at least 1, got 0"),
    ],
)
def test_wrong_options_name_the_right_ones(run, tmp_path, options, message):
    result = run("study", "--out", tmp_path / "study", *options)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "study").exists()


def test_a_missing_library_names_the_extra(run, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "matplotlib" else object())
    result = run("study", "--quick", "--out", tmp_path / "study")
    assert result.code == 3
    assert "needs matplotlib, which is not installed: pip install 'w8a16[study]'" in result.err


def test_a_folder_of_other_things_is_refused(run, toy, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    result = run("study", "--quick", "--threads", 1, "--out", tmp_path)
    assert result.code == 4
    assert "expected an empty folder or one of a study" in result.err
