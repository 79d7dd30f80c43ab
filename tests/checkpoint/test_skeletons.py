"""What surrounds the weights of the model that is loaded into: buffers, hooks, parametrizations, flags."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, weight_norm

import w8a16
from support.files import TOKENS, Block, Untouched, assert_same_model, on_meta, saved_block
from support.twins import mlp
from w8a16.errors import CheckpointError, W8A16Warning


def test_buffers_outside_the_state_dict_are_restored(tmp_path):
    """Position ids, rotary frequencies: a skeleton has lost them, and no state dict holds them."""
    _, file = saved_block(tmp_path)
    loaded = w8a16.load(on_meta(Block), file)
    assert torch.equal(loaded.positions, torch.arange(4.0))
    assert "positions" not in loaded.state_dict()


def test_buffers_that_the_model_has_are_kept(tmp_path):
    """A real model computes them itself, perhaps for another length: the file only fills what is lost."""
    _, file = saved_block(tmp_path)
    target = Block()
    target.positions = torch.full((4,), 0.5)
    assert torch.equal(w8a16.load(target, file).positions, torch.full((4,), 0.5))


def test_a_lost_buffer_that_the_file_lacks_is_named(tmp_path):
    """Saved without the buffer, loaded by a newer version of the model that has it."""

    def build():
        model = mlp()
        model.register_buffer("frequencies", torch.arange(3.0), persistent=False)
        return model

    file = w8a16.save(w8a16.quantize(mlp()), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(on_meta(build), file)
    assert str(caught.value).endswith(
        "frequencies: a buffer on the meta device that the checkpoint does not hold; build the skeleton "
        "with real buffers"
    )
    assert torch.equal(w8a16.load(build(), file).frequencies, torch.arange(3.0))


def test_hooks_flags_and_attributes_survive(tmp_path):
    model, file = saved_block(tmp_path)
    target = Block()
    calls = []
    target.first.register_forward_hook(lambda module, args, output: calls.append(module))
    target.first.note = "mine"
    target.first.eval()
    w8a16.load(target, file)
    target(TOKENS)
    assert calls == [target.first]
    assert target.first.note == "mine"
    assert (target.training, target.first.training, target.second.training) == (True, False, True)
    assert torch.equal(target(TOKENS), model(TOKENS))


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "legacy weight_norm": weight_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "machinery, skeleton",
    [
        *((machinery, False) for machinery in PARAMETRIZED),
        ("weight_norm", True),
        ("legacy weight_norm", True),  # torch cannot build "orthogonal" on the meta device
        ("spectral_norm", True),
    ],
)
def test_parametrized_linear(tmp_path, machinery, skeleton):
    """The int8 file holds the effective weight, so the machinery of the skeleton goes."""

    def build():
        return nn.Sequential(PARAMETRIZED[machinery](nn.Linear(16, 16)), nn.Linear(16, 8))

    model = w8a16.quantize(build())
    loaded = w8a16.load(on_meta(build) if skeleton else build(), w8a16.save(model, tmp_path))
    assert_same_model(loaded, model)
    assert not parametrize.is_parametrized(loaded[0])
    x = torch.randn(3, 16)
    assert torch.equal(loaded(x), model(x))


def test_a_refused_parametrized_model_is_not_touched(tmp_path):
    file = w8a16.save(w8a16.quantize(mlp(16, 16)), tmp_path)
    target = nn.Sequential(parametrizations.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 8)).train()
    untouched = Untouched(target)
    with pytest.raises(CheckpointError, match=r"1\.weight: missing"):
        w8a16.load(target, file)
    untouched.check()


@pytest.mark.parametrize("foreign", ["buffer", "parameter", "module"])
def test_foreign_tensors_on_a_linear(tmp_path, foreign):
    """A mask or an adapter that somebody registered on the layer survives quantize and save."""

    def build():
        layer = nn.Linear(16, 16)
        if foreign == "buffer":
            layer.register_buffer("mask", torch.ones(16))
        elif foreign == "parameter":
            layer.gain = nn.Parameter(torch.full((16,), 2.0))
        else:
            layer.adapter = nn.LayerNorm(16)
        return nn.Sequential(layer)

    model = w8a16.quantize(build())
    file = w8a16.save(model, tmp_path)
    assert_same_model(w8a16.load(build(), file), model)
    assert_same_model(w8a16.load(on_meta(build), file), model)


@pytest.mark.parametrize("other", [torch.ones(2, 2), torch.arange(4)])
def test_a_hidden_buffer_of_another_rank_or_dtype(tmp_path, other):
    """The file's would silently replace it, and the model would fail far from the cause."""
    _, file = saved_block(tmp_path)

    def build():
        model = Block()
        model.positions = other.to(model.positions.device)
        return model

    target = on_meta(build)
    untouched = Untouched(target)
    with pytest.raises(CheckpointError, match=r"positions: expected .*, found"):
        w8a16.load(target, file)
    untouched.check()


class Growing(nn.Module):
    """A position table outside the state dict that is enlarged for longer inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("positions", torch.ones(4, 8), persistent=False)
        self.scale = torch.ones(8)

    def forward(self, x):
        if len(x) > len(self.positions):
            self.positions = torch.ones(len(x), 8)
        return self.layer(x + self.positions[: len(x)])


def test_a_hidden_buffer_that_has_grown_is_no_mismatch(tmp_path):
    model = w8a16.quantize(Growing())
    x = torch.randn(6, 8)
    y = model(x)
    file = w8a16.save(model, tmp_path)
    with pytest.warns(W8A16Warning, match=r"^scale: plain tensor attributes without values"):
        loaded = w8a16.load(on_meta(Growing), file)
    assert torch.equal(loaded(x), y)


def test_plain_tensor_attributes_of_a_real_model_cause_no_warning(tmp_path):
    file = w8a16.save(w8a16.quantize(Growing()), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        w8a16.load(Growing(), file)
