"""What `w8a16 quantize` wrote is loaded by transformers itself; `dequantize` leaves no trace of it."""

import json

import pytest
import torch

import w8a16
import w8a16.integrations.transformers
from support.hub_models import make, outputs
from w8a16.integrations.int8_note import add_note, remove_note

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers


@pytest.mark.parametrize("name", ["llama", "t5", "mixtral", "gpt2", "bert_masked"])
def test_from_pretrained_and_back(run, tmp_path, name):
    make(name).save_pretrained(tmp_path / "float")
    assert run("quantize", tmp_path / "float", tmp_path / "int8").code == 0
    config = json.loads((tmp_path / "int8/config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "w8a16"
    model, info = type(make(name)).from_pretrained(tmp_path / "int8", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted = w8a16.quantize(make(name))
    for one, two in zip(outputs(model, name), outputs(wanted, name), strict=True):
        assert torch.equal(one, two)
    assert run("dequantize", tmp_path / "int8", tmp_path / "back").code == 0
    assert (tmp_path / "back/config.json").read_bytes() == (tmp_path / "float/config.json").read_bytes()


def test_quantized_by_names(run, tmp_path):
    """Where the names are those of the model it works as well; where they are not, it is refused."""
    for name in ("llama", "mixtral"):
        make(name).save_pretrained(tmp_path / name)
        assert run("quantize", "--by-name", tmp_path / name, tmp_path / f"{name}-int8").code == 0
    model = type(make("llama")).from_pretrained(tmp_path / "llama-int8")
    for one, two in zip(
        outputs(model, "llama"), outputs(w8a16.quantize(make("llama")), "llama"), strict=True
    ):
        assert torch.equal(one, two)
    with pytest.raises(w8a16.W8A16Error, match="quantize the float model again"):
        type(make("mixtral")).from_pretrained(tmp_path / "mixtral-int8")


@pytest.mark.parametrize("text", ['{\n  "a": 1\n}\n', '{"a": 1}', "{}", ' {"a": {"b": 2}}\n\n', "{\n}"])
def test_the_note_comes_and_goes(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text)
    add_note(tmp_path)
    config = json.loads(file.read_text())
    assert config.pop("quantization_config")["quant_method"] == "w8a16"
    assert config == json.loads(text)
    once = file.read_text()
    add_note(tmp_path)
    assert file.read_text() == once
    remove_note(tmp_path)
    assert file.read_text() == text


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"quantization_config": {"quant_method": "fp8"}}'])
def test_other_configs_are_left_alone(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    add_note(tmp_path)
    remove_note(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_note_that_transformers_wrote_goes_too(tmp_path):
    held = {"quant_method": "w8a16", "manifest": {}}
    (tmp_path / "config.json").write_text(json.dumps({"a": 1, "quantization_config": held}))
    remove_note(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}
    (tmp_path / "config.json").unlink()
    remove_note(tmp_path)
    assert not list(tmp_path.iterdir())
