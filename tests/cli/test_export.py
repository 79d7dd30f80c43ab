"""`w8a16 export`: a folder that is complete for others, and a report that names what is not int8."""

import json

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")


@pytest.fixture
def int8(run, tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
    )
    transformers.LlamaForCausalLM(config).bfloat16().save_pretrained(tmp_path / "float")
    (tmp_path / "float" / "tokenizer.json").write_text("{}")
    (tmp_path / "float" / "modeling_own.py").write_text("")
    assert run("quantize", tmp_path / "float", tmp_path / "int8").code == 0
    (tmp_path / "int8" / "code.py").write_text("")
    return tmp_path / "int8"


def test_the_report_and_the_folder(run, int8, tmp_path):
    result = run("export", int8, tmp_path / "out", "--to", "compressed-tensors")
    assert result.code == 0, result.err
    assert "7 layers are int8" in result.out
    assert "float again: lm_head.weight (head: " in result.out
    assert "float again: model.embed_tokens.weight (embedding: " in result.out
    assert "casts them to bfloat16, which changes weights by 0." in result.out
    assert "left out: code.py" in result.out
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_the_report_as_json(run, int8, tmp_path):
    result = run("export", int8, tmp_path / "out", "--to", "compressed-tensors", "--pack-head", "--json")
    assert result.code == 0, result.err
    report = result.json
    assert len(report["packed"]) == 8
    assert list(report["dequantized"]) == ["model.embed_tokens.weight"]
    assert report["scale_rounding"]["dtype"] == "bfloat16"
    assert 0 < report["scale_rounding"]["largest"] <= 2**-8
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert report["bytes_written"] == size
    assert report["files"] == ["model.safetensors", "config.json"]


def test_refusals(run, int8, tmp_path):
    assert run("export", int8, tmp_path / "out", "--to", "gguf").code == 2
    float_source = run("export", tmp_path / "float", tmp_path / "out", "--to", "compressed-tensors")
    assert float_source.code == 3
    assert "quantize it first" in float_source.err
    assert run("export", int8, int8, "--to", "compressed-tensors").code == 4
    assert not (tmp_path / "out").exists()


def test_scales_of_the_models_dtype(run, int8, tmp_path):
    arguments = ("export", int8, tmp_path / "out", "--to", "compressed-tensors", "--scales", "model-dtype")
    result = run(*arguments, "--float", tmp_path / "float")
    assert result.code == 0, result.err
    assert "made anew" in result.out
    assert "changes weights" not in result.out
    assert run(*arguments).code == 2
    assert run(*arguments[:-1], "float16", "--float", tmp_path / "float").code == 2
    assert run(*arguments[:-2], "--float", tmp_path / "float").code == 2
