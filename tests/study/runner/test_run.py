"""Resuming, determinism, and what belongs to which settings."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace

import pytest
import torch

from support.toy_scenario import Interrupted, Toy
from w8a16.errors import CheckpointError, OutputRefusedError, UsageError
from w8a16.study.runner import CellKey, Settings, processor_seconds, run_study, study_results
from w8a16.study.runner import settings as settings_module
from w8a16.study.runner.folder import Folder

ONE = Settings(("small",), seeds=1, quick=True)
TWO = Settings(("small",), seeds=2, quick=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of two seeds: its folder and its results."""
    path = tmp_path_factory.mktemp("study")
    toy = Toy()
    run_study([toy], TWO, path)
    return path, study_results(Folder(path), TWO, [toy])


def test_every_row_has_a_score_and_losses(finished):
    _, results = finished
    assert [(cell["size"], cell["seed"]) for cell in results["cells"]] == [("small", 0), ("small", 1)]
    rows = {(row["dtype"], row["variant"]): row for row in results["cells"][0]["rows"]}
    assert {"float", "int8", "textbook", "bits_4"} <= {variant for _, variant in rows}
    assert {dtype for dtype, _ in rows} == {"float32", "bfloat16", "float16"}
    base, int8 = rows["float32", "float"], rows["float32", "int8"]
    assert base["loss"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert base["score"] < results["cells"][0]["baseline"], "the toy must have learnt"
    assert int8["bytes"] < base["bytes"] / 2
    assert int8["score"] - base["score"] == pytest.approx(int8["loss"]["value"])
    assert int8["loss"]["low"] <= int8["loss"]["value"] <= int8["loss"]["high"]
    assert abs(rows["float32", "bits_4"]["loss"]["value"]) > abs(int8["loss"]["value"])
    assert rows["bfloat16", "textbook"]["flip_rate"] > 0
    assert rows["float32", "textbook"]["flip_rate"] == 0
    same = rows["bfloat16", "int8"]
    float_bf16 = rows["bfloat16", "float"]
    assert same["score"] - float_bf16["score"] == pytest.approx(same["loss_same_dtype"]["value"])


def test_heavy_tails_cost_int8_something_and_repair_brings_it_back(finished):
    _, results = finished
    rows = {row["variant"]: row for row in results["cells"][0]["tails"]}
    assert rows["float"]["loss"]["value"] == 0, "the tails change nothing in float"
    assert abs(rows["int8"]["loss"]["value"]) > 3 * abs(rows["repaired"]["loss"]["value"])
    assert rows["repaired"]["sqnr_db"] >= rows["repaired"]["limit_db"] > rows["repaired"]["sqnr_db_before"]
    assert rows["repaired"]["bytes_added"] > 0


def test_the_results_are_strict_json_with_drift_and_the_time_elsewhere(finished):
    path, results = finished
    json.dumps(results, allow_nan=False)
    assert results["cells"][0]["drift"]["task"]
    assert "seconds" not in json.dumps(results)
    seconds = processor_seconds(Folder(path), TWO, [Toy()])
    assert set(seconds) == {"toy-small-0", "toy-small-1"}
    assert all(parts["rows"] > 0 for parts in seconds.values())


def test_the_same_study_elsewhere_gives_the_same_results(finished, tmp_path):
    torch.manual_seed(123)  # whatever the caller's random state is
    run_study([Toy()], TWO, tmp_path / "again")
    assert study_results(Folder(tmp_path / "again"), TWO, [Toy()]) == finished[1]


def test_several_processes_give_the_same_results(finished, tmp_path):
    events = []
    study = run_study(
        [Toy()], TWO, tmp_path / "processes", at_once=2, watch=lambda *event: events.append(event)
    )
    assert study_results(study.folder, TWO, [Toy()]) == finished[1]
    assert set(study.measured) == {CellKey("toy", "small", 0), CellKey("toy", "small", 1)}
    assert {key for key, what, share in events if share == 1} == set(study.measured)
    assert {"training", "float32 int8"} <= {what for _, what, _ in events}


def test_a_study_goes_on_where_it_was_interrupted(finished, tmp_path):
    with pytest.raises(Interrupted):
        run_study([Toy(fails_at=1)], TWO, tmp_path / "study")
    assert len(list((tmp_path / "study" / "cells").iterdir())) == 1
    with pytest.raises(CheckpointError, match="the cell toy-small-1 is missing: run the study again"):
        study_results(Folder(tmp_path / "study"), TWO, [Toy()])
    toy, events = Toy(), []
    study = run_study([toy], TWO, tmp_path / "study", watch=lambda *event: events.append(event))
    assert toy.trained == [("small", 1)], "the finished one is not trained again"
    assert study.reused == [CellKey("toy", "small", 0)]
    assert (study.reused[0], "finished earlier", 1.0) in events
    assert study_results(study.folder, TWO, [toy]) == finished[1]


@pytest.mark.slow
def test_a_failure_in_another_process_comes_through_and_keeps_what_was_finished(tmp_path):
    settings = Settings(("small",), seeds=3, quick=True)
    with pytest.raises(Interrupted):
        run_study([Toy(fails_at=2)], settings, tmp_path / "study", at_once=2)
    assert not list((tmp_path / "study").rglob("*.part"))


def test_a_trained_model_is_kept_even_if_its_cell_was_not_finished(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("w8a16.study.runner.cell.ScoredModel", interrupted)
        with pytest.raises(Interrupted):
            run_study([Toy()], ONE, tmp_path)
    assert not list((tmp_path / "cells").iterdir())
    toy = Toy()
    run_study([toy], ONE, tmp_path)
    assert toy.trained == []
    assert "training (found)" in processor_seconds(Folder(tmp_path), ONE, [toy])["toy-small-0"]


def test_nothing_half_written_counts(tmp_path, monkeypatch):
    def interrupted(self, target):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", interrupted)
        with pytest.raises(Interrupted):
            run_study([Toy()], ONE, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_other_settings_make_other_cells(finished, monkeypatch):
    path, _ = finished
    key = CellKey("toy", "small", 0)
    folder = Folder(path)
    assert folder.read_cell(TWO, key) is not None
    assert folder.read_cell(ONE, key) is not None, "more seeds do not change a cell"
    assert folder.read_cell(Settings(("small",), 2, quick=False), key) is None
    monkeypatch.setattr(settings_module, "versions", lambda: {"torch": "another"})
    assert folder.read_cell(TWO, key) is None


def test_docstrings_and_comments_do_not_change_the_fingerprint_of_code(tmp_path):
    one, two, three = (tmp_path / name for name in ("one.py", "two.py", "three.py"))
    one.write_text('"""A."""\n\n\ndef f():\n    """B."""\n    return 1  # C\n')
    two.write_text("def f():\n    return 1\n")
    three.write_text("def f():\n    return 2\n")
    digests = [settings_module._without_docstrings(path) for path in (one, two, three)]
    assert digests[0] == digests[1] != digests[2]


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputRefusedError, match="expected an empty folder or one of a study"):
        run_study([Toy()], ONE, tmp_path)
    with pytest.raises(OutputRefusedError, match="expected a folder for the study, found a file"):
        run_study([Toy()], ONE, tmp_path / "letter.txt")


def test_nothing_to_do_is_a_mistake(tmp_path):
    for arguments in (([], ONE, 1), ([Toy()], Settings(("small",), 0), 1), ([Toy()], ONE, 0)):
        scenarios, settings, at_once = arguments
        with pytest.raises(UsageError, match="expected at least 1, got 0"):
            run_study(scenarios, settings, tmp_path / "none", at_once=at_once)


def test_the_largest_cells_come_first():
    sizes = [key.size for _, key in Settings(seeds=1).cells([Toy()])]
    assert sizes == ["large", "medium", "small"]


def test_a_model_that_overflows_has_a_note_instead_of_a_loss(tmp_path):
    class Broken(Toy):
        def evaluate(self, model, seed, dtype):
            scores = super().evaluate(model, seed, dtype)
            values = scores.values.clone()
            values[3] = math.nan if dtype == torch.float16 else values[3]
            return replace(scores, values=values)

    run_study([Broken()], ONE, tmp_path)
    rows = study_results(Folder(tmp_path), ONE, [Broken()])["pooled"][0]["rows"]
    broken = [row for row in rows if row["dtype"] == "float16"]
    assert broken
    assert all(row["score"] is None and row["loss"] is None for row in broken)
    assert broken[0]["note"] == "NaN or Inf on 1 of 60 examples"


def test_code_that_is_edited_while_a_study_runs_does_not_part_it(monkeypatch):
    settings, key = Settings(("small",), 1), CellKey("toy", "small", 0)
    before = settings.cell_fingerprint(key), settings.model_fingerprint(key)
    monkeypatch.setattr(settings_module, "code", lambda room: f"edited {room}")
    there = pickle.loads(pickle.dumps(settings))  # what another process is given
    assert (there.cell_fingerprint(key), there.model_fingerprint(key)) == before
    assert Settings(("small",), 1).cell_fingerprint(key) != before[0]
    assert Settings(("small",), 1).model_fingerprint(key) != before[1]
