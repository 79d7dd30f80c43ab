"""The example of docs/transformers.md runs."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers
EXAMPLE = Path(__file__).parents[2] / "examples" / "text_generation.py"


def test_text_generation(capsys):
    spec = importlib.util.spec_from_file_location("text_generation", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    tokens = example.main(["--tokens", "4"])
    told = capsys.readouterr().out
    assert tokens.shape == (1, len("Once upon a time") + 4)
    assert "100% of the weights are int8" in told
    assert "the same tokens after loading again: True" in told
