"""benchmarks/checkpoint.py measures what it says: on checkpoints of a few megabytes, no time asserted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from w8a16.checkpoint import open_shards

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf-8")


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("files", [1, 4, 40])
def test_the_source_is_a_checkpoint_of_that_size(module, tmp_path, files):
    written = module("checkpoint_sources").llama(tmp_path / "float", 60_000_000, files)
    shards = open_shards(tmp_path / "float")
    assert abs(written - 60_000_000) < 6_000_000
    assert len(shards.headers) == files
    assert sum(info.size for info in shards.tensors.values()) == written
    assert {info.dtype for info in shards.tensors.values()} == {torch.bfloat16}
    with safe_open(shards.header_of("lm_head.weight").path, framework="pt") as file:
        weight = file.get_tensor("lm_head.weight").float()
    assert 0.019 < weight.std() < 0.021
    assert len(weight[:, :4].unique(dim=0)) > 0.9 * len(weight), "rows repeat"


def test_zeros_take_no_space(module, tmp_path):
    module("checkpoint_sources").llama(tmp_path / "float", 60_000_000, 2, zeros=True)
    taken = sum(file.stat().st_blocks * 512 for file in (tmp_path / "float").glob("*.safetensors"))
    assert taken < 1_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_that_of_the_process_and_its_children(module):
    processes = module("processes")
    held = torch.ones(100 << 20, dtype=torch.uint8)  # what this process holds must not count
    block = "b = bytearray(b'x') * (64 << 20); import time; time.sleep(0.5)"
    small = processes.python("-c", "import time; time.sleep(0.5)").peak_bytes
    large = processes.python("-c", block).peak_bytes
    both = processes.python(
        "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {block!r}])"
    )
    assert held.numel() > small
    assert 0 <= large - small - (64 << 20) < 8 << 20
    assert both.peak_bytes > large + small / 2
    with pytest.raises(processes.FailedError, match="no"):
        processes.python("-c", "raise SystemExit('no')")


@pytest.mark.slow
@pytest.mark.transformers
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_benchmark(tmp_path):
    pytest.importorskip("transformers")
    file = tmp_path / "checkpoint.json"
    options = (
        "--size",
        "20MB",
        "--rounds",
        "2",
        "--folder",
        str(tmp_path),
        "--json",
        str(file),
        "--markdown",
    )
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "checkpoint.py"), *options],
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    rows = {row["name"]: row for row in results["times"]}
    assert not [row["problem"] for row in rows.values() if row["problem"] and row["name"] != "llm-compressor"]
    assert all(len(rows[name]["runs"]) == 2 for name in list(rows)[:5])
    written = {name: rows[name]["output_bytes"] for name in rows if name.startswith("w8a16")}
    assert len(set(written.values())) <= 2, "the ways of quantizing differ"
    assert all(0.4 < size / results["source_bytes"] < 0.6 for size in written.values())
    assert [row["problem"] for row in results["memory"]] == [None] * 5
    assert [row["tensors"] for row in results["opening"]] == [100_000] * 2
    assert all(title in done.stdout for title in ("Loading, median", "Opening a checkpoint:"))
    assert next(line for line in done.stdout.splitlines() if line.startswith("| ")) in PAGE
    assert list(tmp_path.iterdir()) == [file], "the temporary folder stayed"
