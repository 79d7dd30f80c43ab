"""`w8a16 import`: a folder that the other commands take, and a report of what was found."""

import pytest
import torch

from support import foreign_int8 as foreign

transformers = pytest.importorskip("transformers")


@pytest.fixture
def theirs(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    foreign.write(transformers.LlamaForCausalLM(config), tmp_path / "theirs", "packed")
    (tmp_path / "theirs" / "tokenizer.json").write_text("{}")
    (tmp_path / "theirs" / "code.py").write_text("")
    return tmp_path / "theirs"


def test_the_report_and_the_folder(run, theirs, tmp_path):
    result = run("import", theirs, tmp_path / "ours")
    assert result.code == 0, result.err
    assert (
        "imported the codes of 7 int8 weights of compressed-tensors to the bit (LlamaForCausalLM)"
        in result.out
    )
    assert "2 weights are float in the source and stay float: lm_head.weight, model.embed" in result.out
    assert "left out: code.py" in result.out
    names = {file.name for file in (tmp_path / "ours").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert run("verify", tmp_path / "ours").code == 0
    assert run("inspect", tmp_path / "ours").code == 0
    assert run("export", tmp_path / "ours", tmp_path / "again", "--to", "compressed-tensors").code == 0
    back = run("dequantize", tmp_path / "ours", tmp_path / "float")
    assert back.code == 0, back.err


def test_the_report_as_json(run, theirs, tmp_path):
    report = run("import", theirs, tmp_path / "ours", "--json").json
    assert report["method"] == "compressed-tensors"
    assert len(report["imported"]) == 7
    assert report["kept_float"] == ["lm_head.weight", "model.embed_tokens.weight"]
    assert report["notes"] == report["ignored"] == []
    assert report["bytes_written"] == (tmp_path / "ours" / "model.safetensors").stat().st_size


def test_refusals(run, theirs, tmp_path):
    assert run("import", theirs, theirs).code == 4
    assert run("import", tmp_path / "missing", tmp_path / "ours").code == 5
    (tmp_path / "empty").mkdir()
    assert run("import", tmp_path / "empty", tmp_path / "ours").code == 3
    assert not (tmp_path / "ours").exists()


def test_quantize_says_which_command_takes_such_a_folder(run, theirs, tmp_path):
    result = run("quantize", theirs, tmp_path / "ours")
    assert result.code == 3
    assert "already quantized (compressed-tensors)" in result.err
    assert "w8a16 import takes over its int8 codes as they are" in result.err
