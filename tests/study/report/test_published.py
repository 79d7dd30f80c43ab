"""docs/study.md is what the results beside it say, and nothing else."""

import json
from pathlib import Path

import pytest

from w8a16.study.report import study_page

pytest.importorskip("jinja2")
DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_was_made_from_the_results():
    results = json.loads((DOCS / "study" / "results.json").read_text())
    charts = sorted((DOCS / "study").glob("*.svg"))
    assert len(results["cells"]) == 90
    assert not results["settings"]["quick"]
    assert {path.stem for path in charts} == {"loss", "trend", "textbook", "variants", "tails"}
    assert (DOCS / "study.md").read_text(encoding="utf-8") == study_page(results, charts)
