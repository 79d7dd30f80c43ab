"""Out to compressed-tensors and back: the same codes, scales and layers, experts as one stack again."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from w8a16.checkpoint import open_checkpoint, open_shards
from w8a16.checkpoint.streaming import Options, plan_checkpoint
from w8a16.convert import Recipe
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors import export
from w8a16.integrations.foreign_int8 import import_int8, plan_import
from w8a16.integrations.transformers_folders import streaming_skeleton

transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "intermediate_size": 48,
}
BUILD = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).bfloat16(),
    "mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2)
    ),
}


@pytest.fixture(params=BUILD)
def folders(request, tmp_path):
    torch.manual_seed(0)
    BUILD[request.param]().save_pretrained(tmp_path / "float", max_shard_size="50KB")
    files = open_shards(tmp_path / "float")
    recipe = Recipe(group_size={"*self_attn*": 16})
    (tmp_path / "int8").mkdir()
    plan_checkpoint(files, streaming_skeleton(tmp_path / "float", files), Options(recipe)).run(
        tmp_path / "int8"
    )
    (tmp_path / "int8" / "config.json").write_text((tmp_path / "float" / "config.json").read_text())
    export(tmp_path / "int8", tmp_path / "out")
    return tmp_path


def stored(folder):
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def test_what_was_packed_is_the_same_again(folders):
    import_int8(folders / "out", folders / "back")
    before, after = (open_checkpoint(folders / name).manifest for name in ("int8", "back"))
    first, second = stored(folders / "int8"), stored(folders / "back")
    layers = [path for path, record in before.modules.items() if record.kind in ("linear", "experts")]
    layers.remove("lm_head")
    assert set(after.modules) == set(layers)
    assert len(layers) >= 10
    for path in layers:
        assert after.modules[path].codes == before.modules[path].codes
        assert after.modules[path].weight_dtype == before.modules[path].weight_dtype
        keys = [key for key in first if key.rpartition(".")[0] == path]
        assert keys
        for key in keys:
            assert torch.equal(first[key], second[key]), key


@pytest.mark.parametrize("folders", ["mixtral"], indirect=True)
def test_a_stack_of_which_one_expert_is_float_is_refused(folders):
    (folders / "one").mkdir()
    whole = stored(folders / "out")
    layer = "model.layers.0.block_sparse_moe.experts.1.w2"
    for ending in ("packed", "scale", "shape"):
        del whole[f"{layer}.weight_{ending}"]
    whole[f"{layer}.weight"] = torch.zeros(32, 48)
    save_file(whole, folders / "one" / "model.safetensors")
    (folders / "one" / "config.json").write_text((folders / "out" / "config.json").read_text())
    with pytest.raises(CheckpointError, match="put together from parts of which some are float"):
        plan_import(folders / "one")
