"""`from_pretrained` with a `W8A16Config`: as quantizing the loaded model, for every kind of layer."""

from __future__ import annotations

import json

import pytest
import torch

import w8a16
from support import hub_models
from support.hub_models import MODELS, make, outputs
from w8a16.checkpoint import read_header
from w8a16.errors import UsageError
from w8a16.integrations.transformers import W8A16Config, attach, from_pretrained, skeleton
from w8a16.layers import QuantizedModule

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers


@pytest.fixture
def folder(tmp_path):
    def save(model, name="float"):
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


def load(where, model_class, **options):
    model, info = model_class.from_pretrained(where, output_loading_info=True, **options)
    assert not info["missing_keys"], info["missing_keys"]
    assert not info["unexpected_keys"], info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model


def assert_same(model, other, name):
    ours, theirs = outputs(model, name), outputs(other, name)
    assert len(ours) == len(theirs) > 0
    for one, two in zip(ours, theirs, strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


def classes(model):
    return {
        path: (type(module), dict(module.layouts), module.weight_dtype)
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantizedModule)
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_on_load_is_quantize_after_load(name, dtype, folder):
    model_class, where = type(make(name)), folder(make(name))
    loaded = load(where, model_class, dtype=dtype, quantization_config=W8A16Config())
    wanted = w8a16.quantize(model_class.from_pretrained(where, dtype=dtype))
    assert classes(loaded) == classes(wanted) != {}
    state, expected = loaded.state_dict(), wanted.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert {name for name, _ in loaded.named_buffers()} == {name for name, _ in wanted.named_buffers()}
    assert_same(loaded, wanted, name)
    assert loaded.dtype == dtype


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_again_is_bit_equal(name, folder):
    model_class = type(make(name))
    first = load(folder(make(name, torch.bfloat16)), model_class, quantization_config=W8A16Config())
    where = folder(first, "int8")
    again = load(where, model_class)
    assert classes(again) == classes(first)
    assert again.state_dict().keys() == first.state_dict().keys()
    assert_same(again, first, name)
    twice = load(folder(again, "twice"), model_class)
    assert_same(twice, first, name)
    one, two = (read_header(place / "model.safetensors") for place in (where, where.parent / "twice"))
    assert one.metadata == two.metadata  # which holds a checksum for each tensor
    assert {key: info.dtype for key, info in one.tensors.items()} == {
        k: i.dtype for k, i in two.tensors.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_this_library_reads_what_transformers_saved(name, folder):
    first = load(folder(make(name)), type(make(name)), quantization_config=W8A16Config())
    where = folder(first, "int8")
    assert_same(w8a16.load(skeleton(where), where), first, name)


def test_tied_weights_stay_one_tensor(folder):
    first = load(folder(make("t5")), type(make("t5")), quantization_config=W8A16Config())
    again = load(folder(first, "int8"), type(first))
    for model in (first, again):
        tables = [model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens, model.lm_head]
        assert len({id(table.int8_weights) for table in tables}) == len({id(t.scales) for t in tables}) == 1
        model.tie_weights()
        assert len({id(table.int8_weights) for table in tables}) == 1


def test_a_tied_weight_that_is_stored_twice_is_tied(folder):
    from safetensors.torch import load_file, save_file

    where = folder(make("llama"))
    state = load_file(where / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    save_file(state, where / "model.safetensors", {"format": "pt"})
    model = load(where, type(make("llama")), quantization_config=W8A16Config())
    assert model.lm_head.int8_weights is model.model.embed_tokens.int8_weights


def test_rules(folder):
    where = folder(make("llama"))
    config = W8A16Config(include="model.layers.*", exclude="*.o_proj", kinds="linear")
    model = load(where, type(make("llama")), quantization_config=config)
    wanted = w8a16.quantize(make("llama"), "model.layers.*", "*.o_proj", kinds="linear")
    assert classes(model) == classes(wanted) != {}
    again = load(folder(model, "int8"), type(model))
    assert classes(again) == classes(model)
    assert_same(again, model, "llama")


def test_the_config_says_what_was_done(folder):
    model = load(folder(make("gpt2")), type(make("gpt2")), quantization_config=W8A16Config(exclude="lm_head"))
    config = json.loads((folder(model, "int8") / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "w8a16"
    assert "import w8a16.integrations.transformers" in config["note"]
    assert config["manifest"]["modules"]["transformer.h.0.attn.c_attn"]["kind"] == "transposed_linear"
    assert "recipe" not in config
    assert config["manifest"]["kept_float"] == {"transformer.wte.weight": "excluded"}  # tied to the head


def test_a_new_head_stays_float_and_trainable(folder):
    where = folder(make("bert"))
    model, info = transformers.BertForSequenceClassification.from_pretrained(
        where, quantization_config=W8A16Config(), output_loading_info=True
    )
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert type(model.classifier) is torch.nn.Linear
    assert model.classifier.weight.requires_grad
    assert isinstance(model.bert.pooler.dense, QuantizedModule)


def test_a_base_model_loads_from_the_whole_and_back(folder):
    whole = load(folder(make("llama")), type(make("llama")), quantization_config=W8A16Config())
    base = transformers.LlamaModel.from_pretrained(folder(whole, "int8"))
    wanted = whole.model(hub_models.IDS).last_hidden_state
    assert torch.equal(base(hub_models.IDS).last_hidden_state, wanted)
    inside = transformers.LlamaForCausalLM.from_pretrained(folder(base, "base"))
    assert torch.equal(inside.model(hub_models.IDS).last_hidden_state, wanted)


def test_sharded(folder, tmp_path):
    model = load(folder(make("llama")), type(make("llama")), quantization_config=W8A16Config())
    model.save_pretrained(tmp_path / "int8", max_shard_size="8KB")
    assert len(list((tmp_path / "int8").glob("*.safetensors"))) > 2
    assert_same(load(tmp_path / "int8", type(model)), model, "llama")
    with pytest.raises(w8a16.W8A16Error, match=r"save_pretrained.*max_shard_size"):
        w8a16.load(skeleton(tmp_path / "int8"), tmp_path / "int8")


def test_one_call(folder):
    where = folder(make("llama"))
    model = from_pretrained(where, exclude="lm_head", dtype=torch.bfloat16)
    assert type(model) is transformers.LlamaForCausalLM
    assert model.dtype == torch.bfloat16
    assert_same(from_pretrained(folder(model, "int8")), model, "llama")


def test_dequantize(folder):
    model = from_pretrained(folder(make("mixtral")))
    before = outputs(model, "mixtral")
    model.dequantize()
    assert not classes(model)
    for one, two in zip(before, outputs(model, "mixtral"), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    again = load(folder(model, "again"), type(model))
    assert "quantization_config" not in json.loads((folder(model, "again") / "config.json").read_text())
    assert_same(again, model, "mixtral")


@pytest.mark.parametrize("name", ["gpt2", "t5", "mixtral"])
def test_a_model_that_was_quantized_in_memory(folder, name):
    model = attach(w8a16.quantize(type(make(name)).from_pretrained(folder(make(name)))))
    assert_same(load(folder(model, "int8"), type(model)), model, name)


def test_only_int8_models_of_transformers_are_attached():
    with pytest.raises(UsageError, match=r"call w8a16\.quantize"):
        attach(make("bert"))
    with pytest.raises(UsageError, match="expected a model of transformers"):
        attach(torch.nn.Linear(2, 2))


def test_generate(folder):
    model = from_pretrained(folder(make("llama")))
    wanted = w8a16.quantize(make("llama"))
    options = {"max_new_tokens": 6, "do_sample": False}
    expected = wanted.generate(hub_models.IDS, **options)
    assert torch.equal(model.generate(hub_models.IDS, **options), expected)
    static = model.generate(hub_models.IDS, cache_implementation="static", **options)
    assert torch.equal(static, expected)
