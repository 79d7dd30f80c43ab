"""Checkpoints made from tensor names alone: with a model at hand, its own modules say what they are."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import w8a16
from support.files import edit_manifest, on_meta
from w8a16.checkpoint import open_checkpoint
from w8a16.errors import CheckpointError
from w8a16.layers import QuantizedModule


def tree_of(state: dict[str, torch.Tensor]) -> nn.Module:
    """What names and shapes alone tell: matrices are linear layers, the rest parameters of plain modules."""
    root = nn.Module()
    for name, tensor in state.items():
        *path, own = name.split(".")
        module = root
        for part in path[:-1] if own == "weight" and tensor.dim() == 2 else path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        if own == "weight" and tensor.dim() == 2:
            layer = nn.Linear(tensor.shape[1], tensor.shape[0], bias=f"{name[:-6]}bias" in state)
            layer.weight = nn.Parameter(tensor)
            module.add_module(path[-1], layer)
        elif tensor.is_floating_point():
            module.register_parameter(own, nn.Parameter(tensor))
        else:
            module.register_buffer(own, tensor)
    return root


def save_by_names(state: dict[str, torch.Tensor], folder: Path) -> tuple[nn.Module, Path]:
    """A checkpoint as it is made without the model's classes, and the tree it was made from."""
    # A bias comes after its weight, and finds the layer that the weight has made.
    ordered = dict(sorted(state.items(), key=lambda item: not item[0].endswith(".weight")))
    tree = w8a16.quantize(tree_of({name: tensor.clone() for name, tensor in ordered.items()}))
    file = w8a16.save(tree, folder)

    def forget(manifest):
        manifest.update(origin="names", ties={}, non_persistent_buffers=[])

    return tree, edit_manifest(file, forget)


def stored_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without second names of tied tensors, as files have it."""
    seen: set[int] = set()
    return {
        name: tensor.detach()
        for name, tensor in model.state_dict(keep_vars=True).items()
        if id(tensor) not in seen and not seen.add(id(tensor))
    }


def kinds(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if isinstance(module, QuantizedModule)}


def llama():
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).eval()


def bert():
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    return transformers.BertForMaskedLM(config).eval()


def gpt2():
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config).eval()


TOKENS = torch.tensor([[1, 5, 9, 63]])


@pytest.mark.parametrize("build", [llama, bert])
def test_layers_of_the_usual_layout_get_their_own_kind(tmp_path, build):
    """The same model as if it had been quantized by its classes: tied weights, kinds, and bits."""
    model = build()
    _, file = save_by_names(stored_state(model), tmp_path)
    loaded = w8a16.load(build(), file)
    expected = w8a16.quantize(model)
    assert kinds(loaded) == kinds(expected)
    assert [type(m) for m in loaded.modules()] == [type(m) for m in expected.modules()]
    state, wanted = loaded.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert loaded.get_output_embeddings().int8_weights is loaded.get_input_embeddings().int8_weights
    with torch.inference_mode():
        assert torch.equal(loaded(TOKENS).logits, expected(TOKENS).logits)


def test_onto_the_int8_model(tmp_path):
    model = llama()
    _, file = save_by_names(stored_state(model), tmp_path)
    expected = w8a16.quantize(model)
    target = w8a16.quantize(llama())
    loaded = w8a16.load(target, file)
    assert loaded.lm_head.int8_weights is loaded.model.embed_tokens.int8_weights
    assert torch.equal(loaded.lm_head.int8_weights, expected.lm_head.int8_weights)


def test_another_layout_is_held_in_storage(tmp_path):
    """GPT-2's layers are stored turned, which no name tells: each row is an input channel."""
    model = gpt2()
    tree, file = save_by_names(stored_state(model), tmp_path)
    assert open_checkpoint(file).manifest.modules["transformer.h.0.attn.c_attn"].kind == "linear"
    loaded = w8a16.load(gpt2(), file)
    layer, guessed = loaded.transformer.h[0].attn.c_attn, tree.transformer.h._modules["0"].attn.c_attn
    assert "Conv1D" in type(layer).__name__
    assert torch.equal(layer.int8_weights, guessed.int8_weights)
    assert torch.equal(layer.weight.detach() + 0, guessed.weight.detach() + 0)
    wanted = gpt2()
    state = {name: tensor + 0 for name, tensor in tree_weights(tree).items()}
    wanted.load_state_dict(state, strict=False)
    wanted.tie_weights()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(TOKENS).logits, wanted(TOKENS).logits, rtol=1e-5, atol=1e-5)


def tree_weights(tree):
    """The float values that an int8 tree stands for."""
    return w8a16.dequantize(tree).state_dict()


def test_square_weights_stored_turned_are_not_taken_for_the_usual_ones(tmp_path):
    """Only the layout tells them apart: the shapes are the same."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = transformers.pytorch_utils.Conv1D(48, 48)

        def forward(self, x):
            return self.layer(x)

    model = Turned()
    _, file = save_by_names(stored_state(model), tmp_path)
    loaded = w8a16.load(Turned(), file)
    weight = model.layer.weight.detach()
    half_step = weight.abs().amax(1, keepdim=True) / 127 / 2
    assert ((loaded.layer.weight - weight).abs() <= half_step * (1 + 2**-15)).all()
    x = torch.randn(3, 48)
    torch.testing.assert_close(loaded(x), x @ (loaded.layer.weight + 0) + model.layer.bias)


def test_buffers_of_older_files_are_taken_as_such(tmp_path):
    model = bert()
    positions = {"bert.embeddings.position_ids": torch.arange(512)[None]}
    _, file = save_by_names(stored_state(model) | positions, tmp_path)
    assert torch.equal(w8a16.load(bert(), file).bert.embeddings.position_ids, torch.arange(512)[None])


def test_what_is_missing_is_still_named(tmp_path):
    state = stored_state(llama())
    del state["model.norm.weight"]
    _, file = save_by_names(state, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight: missing in the checkpoint"):
        w8a16.load(llama(), file)


def test_what_the_model_does_not_know_is_still_named(tmp_path):
    _, file = save_by_names(stored_state(llama()) | {"extra.weight": torch.randn(64, 64)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"extra: int8 in the checkpoint, not in the model"):
        w8a16.load(llama(), file)


def test_other_origins_are_not_guessed_at(tmp_path):
    """There a kind is a fact, and another one is a mistake."""
    _, file = save_by_names(stored_state(gpt2()), tmp_path)
    edit_manifest(file, lambda manifest: json.dumps({**manifest, "origin": "classes"}))
    with pytest.raises(CheckpointError, match=r"c_attn: expected a Linear, found a Conv1D"):
        w8a16.load(gpt2(), file)


def test_onto_a_skeleton(tmp_path):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(32, 16)
            self.lstm = nn.LSTM(16, 16)
            self.head = nn.Linear(16, 32, bias=False)
            self.head.weight = self.embedding.weight

    model = Model()
    _, file = save_by_names(stored_state(model), tmp_path)
    loaded = w8a16.load(on_meta(Model), file)
    expected = w8a16.quantize(model)
    assert [type(m) for m in loaded.modules()] == [type(m) for m in expected.modules()]
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in expected.state_dict().items())
    assert loaded.head.int8_weights is loaded.embedding.int8_weights
