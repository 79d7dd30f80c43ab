"""The weights of a float folder, one at a time, are those that transformers loads."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.pairs import tiny
from w8a16.checkpoint import open_shards
from w8a16.errors import CheckpointError, ResourceError
from w8a16.integrations.float_source import FloatSource
from w8a16.integrations.transformers_folders import load_float, streaming_skeleton

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

SPEECH = {
    "vocab_size": 32,
    "conv_dim": [16, 16],
    "conv_stride": [8, 8],
    "conv_kernel": [16, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
MODELS = {
    "plain": ("BertModel", {}),
    "tied": ("LlamaForCausalLM", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "experts stored one by one": ("MixtralForCausalLM", {"num_key_value_heads": 1, "num_local_experts": 3}),
    "parts of a stored tensor": ("NomicBertModel", {}),
    "computed": ("Wav2Vec2ForCTC", SPEECH),
}


def source_of(folder):
    shards = open_shards(folder)
    return FloatSource(streaming_skeleton(folder, shards), shards)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_is_the_one_that_transformers_loads(name, dtype, tmp_path):
    class_name, config = MODELS[name]
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, class_name):
        pytest.skip(f"this transformers has no {class_name}")
    tiny(class_name, **config).to(dtype).save_pretrained(tmp_path)
    source, model = source_of(tmp_path), load_float(tmp_path)
    checked = 0
    for key, tensor in model.state_dict().items():
        found = source(key)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), key
        assert torch.equal(found, tensor), key
        assert source.shape(key) == tuple(tensor.shape)
        checked += 1
    assert checked > 10
    for path, module in model.named_modules():
        if hasattr(module, "parametrizations"):
            assert torch.equal(source(f"{path}.weight"), module.weight)
            assert source.shape(f"{path}.weight") == tuple(module.weight.shape)
            checked += 100
    assert (checked > 100) == (name == "computed")


def test_a_weight_that_is_asked_for_again_is_read_again(tmp_path):
    tiny("BertModel").save_pretrained(tmp_path)
    source = source_of(tmp_path)
    first = source("pooler.dense.weight")
    first.zero_()
    assert float(source("pooler.dense.weight").abs().max()) > 0


@pytest.mark.parametrize("name", ["pooler.none", "nowhere.weight", "", "pooler.dense"])
def test_no_such_weight(name, tmp_path):
    tiny("BertModel").save_pretrained(tmp_path)
    source = source_of(tmp_path)
    assert source.shape(name) is None
    with pytest.raises(CheckpointError, match="BertModel has no weight "):
        source(name)


def test_a_file_that_was_changed_meanwhile(tmp_path):
    tiny("BertModel").save_pretrained(tmp_path)
    source = source_of(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(ResourceError, match="changed"):
        source("pooler.dense.weight")
