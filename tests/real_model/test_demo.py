"""The demo runs and prints each of its findings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.transformers
DEMO = Path(__file__).parents[2] / "examples" / "minilm.py"


def test_demo(minilm_folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, str(DEMO), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    text = result.stdout
    for heading in (
        "what happened to each weight",
        "bytes",
        "the worst 5 of 40",
        "embeddings",
        "time per forward",
    ):
        assert heading in text
    assert float(re.search(r"cosine, min\s+([\d.]+)", text)[1]) > 0.999
    assert float(re.search(r"linear layers in memory.*?([\d.]+)\s*$", text, flags=re.MULTILINE)[1]) < 0.30
    assert (tmp_path / "out" / "model.safetensors").is_file()
