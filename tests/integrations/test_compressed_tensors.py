"""Exported folders: what stock transformers makes of them, and what is in them to the bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import w8a16
from w8a16.checkpoint import open_shards
from w8a16.checkpoint.streaming import Options, plan_checkpoint
from w8a16.convert import Recipe
from w8a16.errors import CheckpointError, OutputRefusedError
from w8a16.integrations.compressed_tensors import export, plan_export, scale_rounding, unpack_rows
from w8a16.integrations.transformers import skeleton
from w8a16.integrations.transformers_folders import streaming_skeleton

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
}


def llama(**options):
    sizes = {**SIZES, "intermediate_size": 70, **options}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))


def mixtral():
    sizes = {**SIZES, "num_hidden_layers": 1, "intermediate_size": 64}
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes, num_local_experts=3, num_experts_per_tok=2)
    )


def qwen_moe():
    sizes = {**SIZES, "num_hidden_layers": 1, "intermediate_size": 64}
    return transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            **sizes, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8
        )
    )


def bert():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 61}
    return transformers.BertForMaskedLM(transformers.BertConfig(**sizes, intermediate_size=50))


BUILD = {
    "llama": llama,
    "llama, tied": lambda: llama(tie_word_embeddings=True),
    "mixtral": mixtral,
    "qwen3 moe": qwen_moe,
    "bert": bert,
}


def quantized(model, folder, recipe=None, shards="50KB"):
    """A float folder in several files, and the int8 folder made of it."""
    model.eval().save_pretrained(folder / "float", max_shard_size=shards)
    files = open_shards(folder / "float")
    work = plan_checkpoint(files, streaming_skeleton(folder / "float", files), Options(recipe or Recipe()))
    (folder / "int8").mkdir()
    work.run(folder / "int8")
    (folder / "int8" / "config.json").write_text((folder / "float" / "config.json").read_text())
    return folder / "int8"


def stored(folder):
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def stock(model, folder):
    """What transformers alone loads."""
    loaded, info = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return loaded.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=torch.arange(12).view(2, 6)).logits


@pytest.mark.parametrize("name", BUILD)
def test_stock_transformers_computes_what_our_int8_model_does(name, tmp_path):
    torch.manual_seed(0)
    model = BUILD[name]()
    folder = quantized(model, tmp_path)
    plan = export(folder, tmp_path / "out")
    ours = logits(w8a16.load(skeleton(folder), folder))
    theirs = logits(stock(model, tmp_path / "out"))
    assert ours.abs().max() > 0.1
    assert (ours - theirs).abs().max() < 1e-5
    assert (logits(model) - theirs).abs().max() > 1e-4, "int8, not float"
    assert len([key for key in stored(tmp_path / "out") if key.endswith(".weight_packed")]) == sum(
        len(choice.parts) for choice in plan.choices
    )


def test_codes_and_scales_are_the_same_to_the_bit(tmp_path):
    model = llama()
    folder = quantized(model, tmp_path)
    plan = export(folder, tmp_path / "out")
    before, after = stored(folder), stored(tmp_path / "out")
    packed = [key.removesuffix("_packed") for key in after if key.endswith(".weight_packed")]
    assert len(packed) == 14
    for key in packed:
        path, shape = key.removesuffix(".weight"), after[f"{key}_shape"].tolist()
        assert torch.equal(unpack_rows(after[f"{key}_packed"], shape[1]), before[f"{path}.int8_weights"])
        assert torch.equal(after[f"{key}_scale"], before[f"{path}.scales"][:, None])
    assert {choice.key for choice in plan.dequantized} == {"model.embed_tokens.weight", "lm_head.weight"}
    codes, scales = before["lm_head.int8_weights"], before["lm_head.scales"]
    assert torch.equal(after["lm_head.weight"], codes * scales[:, None])
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])


def test_the_files_keep_their_names_and_have_an_index(tmp_path):
    folder = quantized(llama(), tmp_path)
    export(folder, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    names = {file.name for file in (tmp_path / "out").glob("*.safetensors")}
    assert names == {file.name for file in folder.glob("*.safetensors")}
    assert len(names) > 1
    assert set(index["weight_map"]) == set(stored(tmp_path / "out"))
    for file in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert {key for key, name in index["weight_map"].items() if name == file.name} == set(
                opened.keys()
            )


def test_experts_have_the_names_of_published_checkpoints(tmp_path):
    folder = quantized(mixtral(), tmp_path)
    export(folder, tmp_path / "out")
    keys = {key for key in stored(tmp_path / "out") if "experts" in key}
    base = "model.layers.0.block_sparse_moe.experts"
    assert keys == {
        f"{base}.{expert}.w{number}.weight_{part}"
        for expert in range(3)
        for number in (1, 2, 3)
        for part in ("packed", "scale", "shape")
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert "model.layers.0.block_sparse_moe.gate" in config["ignore"]


def test_the_config_names_what_is_float(tmp_path):
    folder = quantized(llama(), tmp_path, Recipe(exclude=("*layers.1.mlp*",)))
    plan = export(folder, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["ignore"] == [
        "lm_head",
        "model.embed_tokens",
        *(f"model.layers.1.mlp.{name}_proj" for name in ("down", "gate", "up")),
    ]
    assert config == plan.config["quantization_config"]
    group = config["config_groups"]["group_0"]
    assert group["targets"] == ["Linear"]
    assert group["weights"] == {
        "num_bits": 8,
        "type": "int",
        "symmetric": True,
        "strategy": "channel",
        "group_size": None,
        "dynamic": False,
    }


def test_layers_that_servers_join_are_int8_all_or_none(tmp_path):
    model = llama()
    folder = quantized(model, tmp_path, Recipe(exclude=("model.layers.0.self_attn.k_proj",)))
    plan = export(folder, tmp_path / "out")
    reasons = {choice.key: choice.reason for choice in plan.dequantized if "layers.0" in choice.key}
    assert reasons == {
        f"model.layers.0.self_attn.{name}_proj.weight": "fused: servers join it with k_proj, which is float"
        for name in ("q", "v")
    }
    ours = logits(w8a16.load(skeleton(folder), folder))
    assert (ours - logits(stock(model, tmp_path / "out"))).abs().max() < 1e-5


def test_groups_are_groups_and_outliers_float(tmp_path):
    torch.manual_seed(0)
    model = llama(intermediate_size=64)
    recipe = Recipe(group_size={"*self_attn*": 16}, outliers={"*layers.0.mlp.down_proj": 2})
    folder = quantized(model, tmp_path, recipe)
    plan = export(folder, tmp_path / "out")
    assert {c.key: c.reason for c in plan.dequantized if "mlp" in c.key} == {
        "model.layers.0.mlp.down_proj.weight": "outliers: the format has no place for them"
    }
    groups = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"][
        "config_groups"
    ]
    assert {group["weights"]["strategy"]: group["weights"]["group_size"] for group in groups.values()} == {
        "group": 16,
        "channel": None,
    }
    # By name: vLLM would take a class before the names of the layers that it joins.
    assert all("Linear" not in group["targets"] for group in groups.values())
    assert groups["group_1"]["targets"] == [
        f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "koqv"
    ]
    ours = logits(w8a16.load(skeleton(folder), folder))
    assert (ours - logits(stock(model, tmp_path / "out"))).abs().max() < 1e-5


def test_the_head_is_int8_only_where_it_is_asked_for(tmp_path):
    folder = quantized(llama(), tmp_path)
    assert "lm_head.weight" in {choice.key for choice in plan_export(folder).dequantized}
    plan = plan_export(folder, pack_head=True)
    assert "lm_head.weight" not in {choice.key for choice in plan.dequantized}
    config = plan.config["quantization_config"]
    assert "lm_head" not in config["ignore"]
    assert config["config_groups"]["group_0"]["targets"] == ["Linear", "lm_head"]


def test_the_rounding_of_scales_is_measured(tmp_path):
    (tmp_path / "wide").mkdir()
    (tmp_path / "narrow").mkdir()
    assert scale_rounding(plan_export(quantized(llama(), tmp_path / "wide"))) is None
    folder = quantized(llama().bfloat16(), tmp_path / "narrow")
    measured = scale_rounding(plan_export(folder))
    scales = [value for key, value in stored(folder).items() if key.endswith("_proj.scales")]
    every = torch.cat(scales).double()
    change = ((every.bfloat16().double() - every) / every).abs()
    assert (measured.dtype, measured.scales) == (torch.bfloat16, every.numel())
    assert measured.largest == pytest.approx(change.max().item())
    assert measured.root_mean_square == pytest.approx(change.square().mean().sqrt().item())
    assert 2**-10 < measured.largest <= 2**-8


def test_bfloat16_weights_are_ours_to_the_bit(tmp_path):
    torch.manual_seed(0)
    model = llama().bfloat16()
    folder = quantized(model, tmp_path)
    export(folder, tmp_path / "out")
    theirs = stock(model, tmp_path / "out")
    before = stored(folder)
    path = "model.layers.0.mlp.down_proj"
    codes, scales = (before[f"{path}.{name}"] for name in ("int8_weights", "scales"))
    weight = theirs.get_submodule(path).weight
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, (codes * scales[:, None]).bfloat16())
    assert not torch.equal(weight, codes.bfloat16() * scales[:, None].bfloat16())


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda folder: folder / "float", CheckpointError, "quantize it first"),
        (lambda folder: folder / "int8" / "none", Exception, "no such folder"),
    ],
    ids=["float", "missing"],
)
def test_other_folders_are_refused(change, error, text, tmp_path):
    quantized(llama(), tmp_path)
    with pytest.raises(error, match=text):
        plan_export(change(tmp_path))


def test_a_folder_without_linear_layers_is_refused(tmp_path):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 61, "n_positions": 16}
    folder = quantized(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)), tmp_path)
    with pytest.raises(CheckpointError, match=r"no weight could stay int8 .*transposed_linear"):
        plan_export(folder)


def test_a_folder_that_exists_is_refused_and_errors_leave_nothing(tmp_path, monkeypatch):
    folder = quantized(llama(), tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputRefusedError, match="exists already"):
        export(folder, tmp_path / "out")
    before = sorted(Path(tmp_path).iterdir())
    monkeypatch.setattr("w8a16.integrations.compressed_tensors.write._write_config", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(folder, tmp_path / "other")
    assert sorted(Path(tmp_path).iterdir()) == before


def test_experts_beside_groups_are_told_by_a_pattern(tmp_path):
    torch.manual_seed(0)
    model = mixtral()
    folder = quantized(model, tmp_path, Recipe(group_size={"*self_attn*": 16}))
    plan = export(folder, tmp_path / "out")
    groups = plan.config["quantization_config"]["config_groups"]
    assert groups["group_0"]["targets"] == [r"re:.*\.experts($|\.\d+\.)"]
    assert groups["group_0"]["weights"]["strategy"] == "channel"
    ours = logits(w8a16.load(skeleton(folder), folder))
    assert (ours - logits(stock(model, tmp_path / "out"))).abs().max() < 1e-5


def test_what_transformers_could_not_load_is_refused_before_it_is_written(tmp_path, monkeypatch):
    folder = quantized(llama(), tmp_path)
    name = "w8a16.integrations.compressed_tensors.plan.published_names"
    monkeypatch.setattr(name, lambda model, keys: {key: f"lost.{key}" for key in keys})
    with pytest.raises(CheckpointError, match=r"cannot load LlamaForCausalLM .*missing keys.*--no-check"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    plan = export(folder, tmp_path / "out", check=False)
    assert not plan.checked
    monkeypatch.undo()
    assert plan_export(folder).checked


def test_weights_that_their_class_computes_are_refused(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.Wav2Vec2Config(
        **sizes,
        vocab_size=8,
        conv_dim=(8, 8),
        conv_stride=(2, 2),
        conv_kernel=(3, 3),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    model = transformers.Wav2Vec2ForCTC(config)
    (tmp_path / "all").mkdir()
    with pytest.raises(CheckpointError, match=r"pos_conv_embed.conv.weight; quantize again and exclude"):
        plan_export(quantized(model, tmp_path / "all"))
    (tmp_path / "others").mkdir()
    folder = quantized(model, tmp_path / "others", Recipe(exclude=("*pos_conv_embed*",)))
    export(folder, tmp_path / "out")
    stock(model, tmp_path / "out")


def test_transformers_unpacks_while_it_loads(tmp_path):
    """Else the code of many classes asks for `weight` while there is none: T5's, SigLIP's, Falcon's."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 50, "num_layers": 1, "num_heads": 4, "vocab_size": 61}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    folder = quantized(model, tmp_path)
    plan = export(folder, tmp_path / "out")
    assert plan.config["quantization_config"]["dequantize"] is True
    assert stock(model, tmp_path / "out").encoder.block[0].layer[0].SelfAttention.q.weight.shape == (32, 32)
