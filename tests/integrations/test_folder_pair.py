"""A float folder and the int8 folder made from it: opened, found to belong together, checked."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import w8a16
from support.files import assert_same_model, change_config, change_weights
from support.pairs import tiny, write_pair
from w8a16.errors import CheckpointError, ResourceError, UsageError
from w8a16.integrations.folder_pair import open_pair
from w8a16.integrations.pair_check import check_pair
from w8a16.integrations.transformers_folders import load_float

pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    write_pair(tiny("BertModel"), folder)
    return folder


@pytest.fixture
def pair(template, tmp_path):
    return [shutil.copytree(template / name, tmp_path / name) for name in ("float", "int8")]


def notes_of(pair):
    return check_pair(open_pair(*pair), lambda done, total: None)


def test_a_good_pair(pair):
    opened = open_pair(*pair)
    assert opened.notes == ()
    steps = []
    assert check_pair(opened, lambda done, total: steps.append((done, total))) == ()
    assert steps[-1] == (opened.total_bytes, opened.total_bytes)
    assert_same_model(opened.load(), w8a16.quantize(load_float(pair[0])))


def test_an_int8_folder_without_a_config(pair):
    (pair[1] / "config.json").unlink()
    assert_same_model(open_pair(*pair).load(), w8a16.quantize(load_float(pair[0])))


def test_what_is_beside_each_other_in_memory(pair):
    """The float skeleton holds no weights."""
    opened = open_pair(*pair)
    assert all(tensor.is_meta for tensor in opened.skeleton.state_dict().values())
    assert opened.float_bytes < opened.total_bytes < 2 * opened.float_bytes
    # embeddings 3 x 32; in each of two blocks 4 x 32, 64, 32; the pooler
    assert opened.output_bytes == 4 * (3 * 32 + 2 * (4 * 32 + 64 + 32) + 32)


@pytest.mark.parametrize(
    "order, message",
    [
        ((1, 0), r"int8 is the int8 folder: expected FLOAT first, then QUANTIZED; swap the two"),
        ((0, 0), r"neither is int8; `w8a16 quantize .*float DST` makes the folder to compare"),
        ((1, 1), r"both are int8; expected first the float folder"),
    ],
    ids=["swapped", "float twice", "int8 twice"],
)
def test_wrong_order(pair, order, message):
    with pytest.raises(UsageError, match=message):
        open_pair(*(pair[i] for i in order))


def test_not_what_is_expected(pair, tmp_path):
    with pytest.raises(ResourceError, match="no such file"):
        open_pair(tmp_path / "none", pair[1])
    with pytest.raises(CheckpointError, match=r"FLOAT .*: a file; expected the folder"):
        open_pair(pair[0] / "model.safetensors", pair[1])
    (pair[0] / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json; expected a model folder"):
        open_pair(*pair)


def test_diffusers(pair):
    change_config(pair[0], _class_name="UNet2DModel")
    with pytest.raises(CheckpointError, match="a diffusers model; expected a transformers folder; in Python"):
        open_pair(*pair)
    (pair[1] / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"QUANTIZED .*: a diffusers pipeline"):
        open_pair(*pair)


def test_an_unknown_class(pair):
    for folder in pair:
        change_config(folder, architectures=["ZebraModel"])
    with pytest.raises(CheckpointError, match=r"ZebraModel: not a model class .*; in Python, w8a16\.compare"):
        open_pair(*pair)


def test_another_architecture(pair):
    change_config(pair[1], architectures=["LlamaForCausalLM"])
    with pytest.raises(CheckpointError, match=r"LlamaForCausalLM.*BertModel.*they do not belong together"):
        open_pair(*pair)


def test_another_size(pair, tmp_path):
    other, _ = write_pair(tiny("BertModel", intermediate_size=96), tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        open_pair(other, pair[1])
    assert "do not belong together: encoder.layer.0.intermediate.dense.weight is [96, 32], " in str(
        caught.value
    )
    assert "in QUANTIZED [64, 32]" in str(caught.value)


def test_fewer_layers(pair, tmp_path):
    other, _ = write_pair(tiny("BertModel", num_hidden_layers=1), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.1\..* \(FLOAT has no such weight\)"):
        open_pair(other, pair[1])


def test_another_checkpoint_of_the_same_size(pair, tmp_path):
    model = tiny("BertModel")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    other, _ = write_pair(model, tmp_path / "other")
    with pytest.raises(CheckpointError) as caught:
        check_pair(open_pair(other, pair[1]), lambda done, total: None)
    text = str(caught.value)
    assert (
        f"{pair[1]}: was not made from {other}: 16 of its 16 int8 weights are those of another model" in text
    )
    assert "half-steps" in text


def test_one_weight_of_another_model_is_a_note(pair):
    """A damaged layer is what a comparison is to find: it is no reason to refuse."""
    weight = load_file(pair[0] / "model.safetensors")["pooler.dense.weight"]
    change_weights(pair[0], pooler__dense__weight=weight.flip(0).contiguous())
    (note,) = notes_of(pair)
    assert note.startswith(
        "1 int8 weight is not that of FLOAT: pooler.dense.int8_weights: more than half a step"
    )


def test_a_bias_that_differs_is_a_note(pair):
    change_weights(pair[0], pooler__dense__bias=torch.ones(32))
    (note,) = notes_of(pair)
    assert note.startswith("1 tensor is not as in FLOAT: pooler.dense.bias: kept as it was, but not the same")


def test_a_config_that_differs_is_a_note(pair):
    method = {"quant_method": "w8a16"}  # what `w8a16 quantize` notes there
    change_config(pair[1], hidden_act="relu", transformers_version="0", quantization_config=method)
    (note,) = open_pair(*pair).notes
    assert note == "The configs differ in hidden_act; both models run with that of QUANTIZED."


def test_weights_that_cannot_be_streamed_are_loaded(tmp_path):
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "Step3p7VisionModel"):
        pytest.skip("this transformers has no Step3p7VisionModel")
    config = transformers.Step3p7VisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=28
    )
    torch.manual_seed(0)
    pair = write_pair(transformers.Step3p7VisionModel(config), tmp_path, tokenizer=False)
    opened = open_pair(*pair)
    assert opened.notes == (
        "Step3p7VisionModel computes weights when it is loaded, so the float model was held in memory.",
    )
    model = load_float(pair[0])
    for path, record in opened.checkpoint.manifest.modules.items():
        for name in record.weights:
            assert torch.equal(
                opened.weights(f"{path}.{name}"), model.get_submodule(path).get_parameter(name)
            )
