"""The example of docs/peft.md runs, and shows what it is to show."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("peft")
pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers
EXAMPLE = Path(__file__).parents[2] / "examples" / "lora.py"


@pytest.mark.filterwarnings("ignore::w8a16.errors.W8A16Warning")
def test_lora(capsys):
    spec = importlib.util.spec_from_file_location("lora", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    figures = example.main(["--base-steps", "4", "--steps", "10"])
    assert "LoRA on int8, loss" in capsys.readouterr().out
    assert figures["LoRA on float, loss"] < figures["base, float, loss"] - 0.05, "nothing was learned"
    assert figures["loss, int8 to float"] == pytest.approx(1, abs=0.01)
    assert figures["LoRA on int8, merged, loss"] == pytest.approx(figures["LoRA on int8, loss"], rel=0.01)
    assert figures["memory of the base"] < 0.5
