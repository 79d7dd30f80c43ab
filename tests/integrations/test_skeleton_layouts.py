"""Checkpoints that are laid out in other ways than their class has its tensors."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.files import change_config
from support.skeletons import assert_leads_to
from w8a16.checkpoint import open_shards
from w8a16.checkpoint.skeleton import Piece
from w8a16.errors import CheckpointError
from w8a16.integrations import transformers as folders

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}


def bert(class_name="BertModel", **config):
    return getattr(transformers, class_name)(transformers.BertConfig(**TINY, **config))


def llama(tied=True):
    config = transformers.LlamaConfig(**TINY, num_key_value_heads=1, tie_word_embeddings=tied)
    return transformers.LlamaForCausalLM(config)


def mixtral():
    config = transformers.MixtralConfig(**TINY, num_key_value_heads=1, num_local_experts=3)
    return transformers.MixtralForCausalLM(config)


@pytest.fixture
def rewritten(tmp_path):
    """Save a model, change the tensors of its file, and return the folder."""

    def save(model, change):
        torch.manual_seed(0)
        model.save_pretrained(tmp_path / "model")
        file = tmp_path / "model" / "model.safetensors"
        save_file(change(load_file(file)), file, {"format": "pt"})
        return tmp_path / "model"

    return save


def renamed(change):
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def skeleton_and_shards(folder):
    shards = open_shards(folder)
    return folders.streaming_skeleton(folder, shards), shards


def assert_same_as_loaded(folder):
    skeleton, shards = skeleton_and_shards(folder)
    assert_leads_to(skeleton, shards, folders.load_float(folder))
    return skeleton


@pytest.mark.parametrize(
    "model, change",
    [
        (bert(), lambda name: f"bert.{name}"),
        (bert(), lambda name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")),
        (bert("BertForMaskedLM"), lambda name: name.replace("Norm.weight", "Norm.gamma")),
        (llama(tied=False), lambda name: name),
    ],
    ids=["prefix added", "gamma and beta", "gamma in a task model", "untied"],
)
def test_other_names(rewritten, model, change):
    skeleton = assert_same_as_loaded(rewritten(model, renamed(change)))
    assert skeleton.ignored == ()


def test_a_base_model_in_a_checkpoint_without_its_prefix(rewritten):
    """A task model, from the names of the base model."""
    head = {"classifier.weight": torch.ones(2, 32), "classifier.bias": torch.ones(2)}
    folder = rewritten(bert(), lambda tensors: {**tensors, **head})
    change_config(folder, architectures=["BertForTokenClassification"])
    # The pooler belongs to the base model only.
    with pytest.raises(CheckpointError, match=r"has no place for 2 tensors of the folder: pooler\.dense"):
        skeleton_and_shards(folder)
    file = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "pooler" not in k}, file, {"format": "pt"})
    skeleton = assert_same_as_loaded(folder)
    name = "encoder.layer.0.attention.self.query.weight"
    assert skeleton.sources[f"bert.{name}"] == (Piece(name),)


def test_experts_that_are_stored_one_by_one(rewritten):
    folder = rewritten(mixtral(), dict)
    skeleton = assert_same_as_loaded(folder)
    stored = "model.layers.1.block_sparse_moe.experts.{}.{}.weight"
    assert skeleton.sources["model.layers.1.mlp.experts.gate_up_proj"] == (
        *(Piece(stored.format(e, "w1"), (e, 0, 0)) for e in range(3)),
        *(Piece(stored.format(e, "w3"), (e, 64, 0)) for e in range(3)),
    )
    assert skeleton.sources["model.layers.1.mlp.experts.down_proj"] == tuple(
        Piece(stored.format(e, "w2"), (e, 0, 0)) for e in range(3)
    )


def test_an_expert_is_missing(rewritten):
    gone = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    folder = rewritten(mixtral(), lambda tensors: {k: v for k, v in tensors.items() if k != gone})
    with pytest.raises(CheckpointError, match=r"down_proj is \[2, 32, 64\], expected \[3, 32, 64\]"):
        skeleton_and_shards(folder)


def test_projections_that_are_stored_as_one(rewritten):
    if not hasattr(transformers, "NomicBertModel"):
        pytest.skip("this transformers has no NomicBertModel")
    skeleton = assert_same_as_loaded(
        rewritten(transformers.NomicBertModel(transformers.NomicBertConfig(**TINY)), dict)
    )
    stored = "encoder.layers.0.attn.Wqkv.weight"
    found = [skeleton.sources[f"layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert found == [(Piece(stored, rows=rows),) for rows in ((0, 32), (32, 64), (64, 96))]


def test_what_cannot_be_put_together(rewritten):
    if not hasattr(transformers, "Step3p7VisionModel"):
        pytest.skip("this transformers has no Step3p7VisionModel")
    config = transformers.Step3p7VisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=28
    )
    folder = rewritten(transformers.Step3p7VisionModel(config), dict)
    with pytest.raises(CheckpointError) as caught:
        skeleton_and_shards(folder)
    assert "Step3p7VisionModel computes " in str(caught.value)
    assert "in a way that cannot be streamed: " in str(caught.value)
    assert "load the model, call w8a16.quantize on it, and save it with w8a16.save" in str(caught.value)


@pytest.mark.parametrize(
    "model, old",
    [
        (bert(), {"embeddings.position_ids": torch.arange(16)[None]}),
        (llama(), {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(8) for i in range(2)}),
    ],
    ids=["position ids", "rotary frequencies"],
)
def test_buffers_of_older_classes_are_ignored(rewritten, model, old):
    skeleton = assert_same_as_loaded(rewritten(model, lambda tensors: {**tensors, **old}))
    assert set(skeleton.ignored) == set(old)


def test_a_tied_tensor_that_is_stored_twice(rewritten):
    def add_head(tensors):
        return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}

    skeleton = assert_same_as_loaded(rewritten(llama(), add_head))
    assert skeleton.model.lm_head.weight is skeleton.model.model.embed_tokens.weight
    for key in ("model.embed_tokens.weight", "lm_head.weight"):
        assert skeleton.sources[key] == (Piece(key),)


def test_tied_by_the_class_but_stored_with_other_values(rewritten):
    def add_head(tensors):
        head = tensors["model.embed_tokens.weight"].clone()
        head[-1, -1] += 1  # the very last value
        return {**tensors, "lm_head.weight": head}

    skeleton = assert_same_as_loaded(rewritten(llama(), add_head))
    assert skeleton.model.lm_head.weight is not skeleton.model.model.embed_tokens.weight


def test_a_tied_tensor_that_is_stored_under_its_other_name(rewritten):
    folder = rewritten(llama(), renamed(lambda name: name.replace("model.embed_tokens", "lm_head")))
    skeleton = assert_same_as_loaded(folder)
    assert skeleton.sources["lm_head.weight"] == (Piece("lm_head.weight"),)
    assert "model.embed_tokens.weight" not in skeleton.sources


def test_every_tensor_keeps_its_own_dtype(rewritten):
    def mix(tensors):
        return {k: v if "Norm" in k else v.bfloat16() for k, v in tensors.items()}

    skeleton, shards = skeleton_and_shards(rewritten(bert(), mix))
    found = {key: tensor.dtype for key, tensor in skeleton.model.state_dict().items()}
    assert found == {key: shards.tensors[key].dtype for key in found}
    assert set(found.values()) == {torch.float32, torch.bfloat16}


def test_two_stored_tensors_for_one_of_the_model(rewritten):
    folder = rewritten(bert(), lambda t: {**t, "bert.pooler.dense.bias": t["pooler.dense.bias"] + 1})
    with pytest.raises(CheckpointError, match=r"takes other tensors in the place of 1 of the folder: "):
        skeleton_and_shards(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda t: {k: v for k, v in t.items() if "pooler" not in k},
            r"needs 2 tensors that the folder lacks",
        ),
        (
            lambda t: {**t, "surplus.weight": torch.ones(3, 3)},
            r"has no place for 1 tensors .*: surplus\.weight",
        ),
        (
            lambda t: {**t, "pooler.dense.weight": torch.ones(32, 31)},
            r"needs other shapes: pooler\.dense\.weight is \[32, 31\], expected \[32, 32\]",
        ),
    ],
)
def test_files_that_do_not_fit(rewritten, change, message):
    with pytest.raises(CheckpointError, match=message):
        skeleton_and_shards(rewritten(bert(), change))


def test_no_weight_is_read_and_no_code_run(rewritten):
    """Only tied tensors that are stored twice are read, to compare them."""
    folder = rewritten(mixtral(), dict)
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_x.Model"})
    (folder / "modeling_x.py").write_text("raise SystemExit('was run')")
    shards = open_shards(folder)

    (folder / "model.safetensors").unlink()
    assert folders.streaming_skeleton(folder, shards).sources


def test_transformers_stays_silent(rewritten, capfd):
    folder = rewritten(bert(), lambda t: {**t, "surplus.weight": torch.ones(3, 3)})
    capfd.readouterr()
    with pytest.raises(CheckpointError):
        skeleton_and_shards(folder)
    assert capfd.readouterr() == ("", "")
