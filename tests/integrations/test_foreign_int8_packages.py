"""What bitsandbytes, torchao and optimum-quanto themselves write is imported; where they are installed."""

import pytest
import torch
from safetensors.torch import load_file

import w8a16
from w8a16.integrations.foreign_int8 import import_int8
from w8a16.integrations.transformers import skeleton

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=101,
    )
    transformers.LlamaForCausalLM(config).bfloat16().eval().save_pretrained(tmp_path / "float")
    return tmp_path


def save_with(folder, config):
    """Quantized by transformers with a library's config."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder / "float", quantization_config=config, device_map="cpu"
    )
    model.save_pretrained(folder / "theirs")
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(10)[None]).logits.float()


def assert_imported(folder, theirs, method):
    plan = import_int8(folder / "theirs", folder / "ours")
    assert plan.found.method == method
    assert len(plan.found.weights) == 7
    before = load_file(folder / "theirs" / "model.safetensors")
    after = load_file(folder / "ours" / "model.safetensors")
    for name, weight in plan.found.weights.items():
        assert torch.equal(before[weight.codes], after[name.replace(".weight", ".int8_weights")])
    model = w8a16.load(skeleton(folder / "ours"), folder / "ours")
    difference = (logits(model) - theirs).abs().max() / theirs.abs().max()
    assert difference < 0.05  # their arithmetic is bfloat16, or int8 for activations, too


def test_bitsandbytes(folder):
    pytest.importorskip("bitsandbytes")
    model = save_with(folder, transformers.BitsAndBytesConfig(load_in_8bit=True))
    assert_imported(folder, logits(model), "bitsandbytes")


def test_torchao(folder):
    quantization = pytest.importorskip("torchao.quantization")
    model = save_with(folder, transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig()))
    assert_imported(folder, logits(model), "torchao")


def test_quanto(folder):
    quanto = pytest.importorskip("optimum.quanto")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "float")
    quantized = quanto.QuantizedModelForCausalLM.quantize(model, weights=quanto.qint8, exclude="lm_head")
    quantized.save_pretrained(folder / "theirs")
    assert_imported(folder, logits(quantized), "quanto")
