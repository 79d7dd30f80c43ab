"""Models of several kinds on the command line: the folder loads back as what quantizing in memory gives."""

import copy

import pytest
import torch
from safetensors import safe_open

import w8a16
from support.files import assert_same_model
from w8a16.checkpoint import open_checkpoint
from w8a16.integrations.transformers import load_float, skeleton

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


def llama(tied):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, tie_word_embeddings=tied))


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=4)
    )


def mixtral():
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2)
    )


def t5():
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    )


MODELS = {
    "llama": lambda: llama(tied=False),
    "llama, tied": lambda: llama(tied=True),
    "gpt2": gpt2,
    "mixtral": mixtral,
    "t5": t5,
}


def stored_names(folder):
    names = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            names += opened.keys()
    return names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shard", [None, "20KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_it_loads_back(build, shard, dtype, run, tmp_path):
    torch.manual_seed(0)
    options = {} if shard is None else {"max_shard_size": shard}
    build().to(dtype).save_pretrained(tmp_path / "float", **options)
    assert (len(list((tmp_path / "float").glob("*.safetensors"))) > 2) == (shard is not None)
    result = run("quantize", tmp_path / "float", tmp_path / "int8")
    assert (result.code, result.err) == (0, "")
    expected = w8a16.quantize(load_float(tmp_path / "float"))
    loaded = w8a16.load(skeleton(tmp_path / "int8"), tmp_path / "int8")
    assert_same_model(loaded, expected)
    tokens = torch.tensor([[5, 17, 90, 3]])
    inputs = {"input_ids": tokens} | ({"decoder_input_ids": tokens} if build is t5 else {})
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, expected(**inputs).logits)


def test_experts_are_stored_one_by_one_and_become_stacks(run, tmp_path):
    mixtral().save_pretrained(tmp_path / "float", max_shard_size="20KB")
    assert any(".experts.2.w1.weight" in name for name in stored_names(tmp_path / "float"))
    assert run("quantize", tmp_path / "float", tmp_path / "int8").code == 0
    kinds = {record.kind for record in open_checkpoint(tmp_path / "int8").manifest.modules.values()}
    assert "experts" in kinds


def test_a_head_that_is_tied_is_stored_once(run, tmp_path):
    llama(tied=True).save_pretrained(tmp_path / "float", max_shard_size="20KB")
    assert run("quantize", tmp_path / "float", tmp_path / "int8").code == 0
    manifest = open_checkpoint(tmp_path / "int8").manifest
    assert manifest.ties["lm_head.int8_weights"] == "model.embed_tokens.int8_weights"
    assert not any(name.startswith("lm_head") for name in stored_names(tmp_path / "int8"))


def test_a_pipeline(run, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    from w8a16.integrations.diffusers import skeleton as diffusers_skeleton

    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    parts = {
        "text_encoder": transformers.CLIPTextModel(text),
        "unet": diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=8,
            attention_head_dim=8,
        ),
        "vae": diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, latent_channels=4),
    }
    pipeline = diffusers.StableDiffusionPipeline(
        **parts,
        tokenizer=None,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(tmp_path / "float")
    result = run("quantize", tmp_path / "float", tmp_path / "int8")
    assert result.code == 0
    for name, part in parts.items():
        build = skeleton if name == "text_encoder" else diffusers_skeleton
        loaded = w8a16.load(build(tmp_path / "int8" / name), tmp_path / "int8" / name)
        assert_same_model(loaded, w8a16.quantize(copy.deepcopy(part).eval()))
    assert (tmp_path / "int8" / "model_index.json").is_file()
    assert (tmp_path / "int8" / "scheduler" / "scheduler_config.json").is_file()
