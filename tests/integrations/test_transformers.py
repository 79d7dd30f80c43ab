"""transformers folders: the float model, and the skeleton that an int8 file is loaded into."""

import sys

import pytest
import torch

import w8a16
from support.files import assert_same_model, change_config
from support.skeletons import assert_same_hidden_buffers
from w8a16.errors import CheckpointError, MissingExtraError, ResourceError
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
INPUTS = {"input_ids": torch.tensor([[1, 5, 9, 63]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}


def bert(dtype=torch.float32):
    return transformers.BertModel(transformers.BertConfig(**TINY)).to(dtype).eval()


def llama():
    """Rotary frequencies are outside the state dict, head and embedding are one Parameter, no biases."""
    config = transformers.LlamaConfig(**TINY, num_key_value_heads=1, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def saved(tmp_path):
    def save(model):
        model.save_pretrained(tmp_path / "float")
        return tmp_path / "float"

    torch.manual_seed(0)
    return save


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_load_float_gives_what_was_saved(saved, dtype):
    model = bert(dtype)
    loaded = folders.load_float(saved(model))
    assert_same_model(loaded, model)
    assert type(loaded) is transformers.BertModel
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {dtype}


def test_load_float_takes_a_text_too(saved):
    model = bert()
    assert_same_model(folders.load_float(str(saved(model))), model)


@pytest.mark.parametrize("build", [bert, llama, lambda: bert(torch.bfloat16)])
def test_the_skeleton_has_no_weights_but_the_hidden_buffers(saved, build):
    model = build()
    skeleton = folders.skeleton(saved(model))
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    assert_same_hidden_buffers(skeleton, model)
    assert not skeleton.training
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}
    assert {n: (t.shape, t.dtype) for n, t in skeleton.state_dict().items()} == shapes


def test_the_skeleton_needs_no_weights(saved):
    folder = saved(bert())
    (folder / "model.safetensors").unlink()
    assert len(folders.skeleton(folder).state_dict()) == len(bert().state_dict())


@pytest.mark.parametrize("build", [bert, llama, lambda: bert(torch.bfloat16)])
def test_an_int8_folder_becomes_the_quantized_model(saved, build):
    """The whole promise: the same bits, without the float weights ever being made."""
    model = build()
    folder = saved(model)
    w8a16.save(w8a16.quantize(model), folder)
    loaded = w8a16.load(folders.skeleton(folder), folder)
    assert_same_model(loaded, model)
    with torch.no_grad():
        expected, found = model(**INPUTS)[0], loaded(**INPUTS)[0]
    assert torch.equal(found, expected)


def test_tied_head_of_a_skeleton_is_tied_after_loading(saved):
    model = w8a16.quantize(llama())
    folder = saved(llama())
    w8a16.save(model, folder)
    loaded = w8a16.load(folders.skeleton(folder), folder)
    assert loaded.lm_head.int8_weights is loaded.model.embed_tokens.int8_weights
    assert loaded.lm_head.scales is loaded.model.embed_tokens.scales


def test_the_quantized_folder_is_no_float_folder(saved):
    model = bert()
    folder = saved(model)
    w8a16.save(w8a16.quantize(model), folder)
    with pytest.raises(CheckpointError, match="already quantized by w8a16; expected float weights"):
        folders.load_float(folder)


@pytest.mark.parametrize("function", [folders.load_float, folders.skeleton])
def test_errors_of_both(saved, function, tmp_path, monkeypatch):
    with pytest.raises(ResourceError, match="no such folder; expected a model folder"):
        function(tmp_path / "none")
    folder = saved(bert())
    change_config(folder, architectures=["ZebraModel"])
    with pytest.raises(CheckpointError, match="architectures ZebraModel: not a model class of transformers"):
        function(folder)
    change_config(folder, architectures=None)
    with pytest.raises(CheckpointError, match="no architectures: which model class is it"):
        function(folder)
    change_config(folder, architectures=["BertModel"])
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError) as caught:
        function(folder)
    assert str(caught.value) == (
        f"reading {folder} needs transformers, which is not installed: pip install 'w8a16[transformers]'"
    )


@pytest.mark.parametrize(
    "function",
    [
        folders.load_float,
        folders.skeleton,
    ],
)
def test_config_of_wrong_types(saved, function):
    folder = saved(bert())
    change_config(folder, hidden_size="many")
    with pytest.raises(CheckpointError, match=r"transformers cannot (load|build) it: "):
        function(folder)
