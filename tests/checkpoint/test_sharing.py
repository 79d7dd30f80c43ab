"""Memory that is shared in the model is stored once, and shared again after loading."""

import pytest
import torch
from torch import nn

import w8a16
from support.files import assert_same_model, on_meta, read_raw
from w8a16.errors import CheckpointError


class TiedHead(nn.Module):
    """Embedding and head are one Parameter, as in most language models."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(64, 16)
        self.body = nn.Linear(16, 16)
        self.head = nn.Linear(16, 64, bias=False)
        self.head.weight = self.embedding.weight


def shared_module():
    layer = nn.Linear(16, 16)
    return nn.Sequential(layer, nn.GELU(), layer)


def tied_linears():
    model = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16, bias=False))
    model[2].weight = model[0].weight
    return model


def untied_linears():
    return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16, bias=False))


def stored_keys(file):
    return sorted(set(read_raw(file)[0]) - {"__metadata__"})


@pytest.mark.parametrize("skeleton", [False, True])
def test_shared_module(tmp_path, skeleton):
    model = w8a16.quantize(shared_module())
    file = w8a16.save(model, tmp_path)
    assert stored_keys(file) == ["0.bias", "0.int8_weights", "0.scales"]
    loaded = w8a16.load(on_meta(shared_module) if skeleton else shared_module(), file)
    assert loaded[0] is loaded[2]
    assert_same_model(loaded, model)


@pytest.mark.parametrize("build", [tied_linears, untied_linears])
@pytest.mark.parametrize("skeleton", [False, True])
def test_tied_linears_share_one_tensor(tmp_path, skeleton, build):
    """Also where the skeleton's constructor does not tie them: the file knows."""
    model = w8a16.quantize(tied_linears())
    file = w8a16.save(model, tmp_path)
    assert stored_keys(file) == ["0.bias", "0.int8_weights", "0.scales"]
    loaded = w8a16.load(on_meta(build) if skeleton else build(), file)
    assert loaded[0].int8_weights is loaded[2].int8_weights
    assert loaded[0].scales is loaded[2].scales
    assert_same_model(loaded, model)
    assert w8a16.save(loaded, tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("skeleton", [False, True])
@pytest.mark.parametrize("tied_in_the_target", [True, False])
def test_embedding_and_head_share_one_int8_table(tmp_path, skeleton, tied_in_the_target):
    def build():
        model = TiedHead()
        if not tied_in_the_target:
            model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        return model

    model = w8a16.quantize(TiedHead())
    file = w8a16.save(model, tmp_path)
    table = ["embedding.int8_weights", "embedding.scales"]
    assert stored_keys(file) == ["body.bias", "body.int8_weights", "body.scales", *table]
    loaded = w8a16.load(on_meta(build) if skeleton else build(), file)
    assert loaded.head.int8_weights is loaded.embedding.int8_weights
    assert loaded.head.scales is loaded.embedding.scales
    assert_same_model(loaded, model)
    assert w8a16.save(loaded, tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("skeleton", [False, True])
def test_tied_head_kept_float_is_one_parameter(tmp_path, skeleton):
    model = w8a16.quantize(TiedHead(), exclude="head")
    file = w8a16.save(model, tmp_path)
    assert stored_keys(file) == ["body.bias", "body.int8_weights", "body.scales", "embedding.weight"]
    loaded = w8a16.load(on_meta(TiedHead) if skeleton else TiedHead(), file)
    assert loaded.head.weight is loaded.embedding.weight
    assert isinstance(loaded.head.weight, nn.Parameter)
    assert_same_model(loaded, model)


@pytest.mark.parametrize("exclude", ["head", None])
def test_two_parameters_around_one_storage_are_stored_once(tmp_path, exclude):
    def build():
        model = TiedHead()
        model.head.weight = nn.Parameter(model.embedding.weight.data)
        return model

    file = w8a16.save(w8a16.quantize(build(), exclude=exclude), tmp_path)
    assert not any(key.startswith("head") for key in stored_keys(file))
    loaded = w8a16.load(build(), file)
    if exclude:
        assert loaded.head.weight is loaded.embedding.weight
    else:
        assert loaded.head.int8_weights is loaded.embedding.int8_weights


def test_equal_values_are_not_a_tie(tmp_path):
    """Only shared memory is shared again: two layers that happen to be equal stay two."""
    model = untied_linears()
    model[2].weight.data.copy_(model[0].weight)
    file = w8a16.save(w8a16.quantize(model), tmp_path)
    assert "2.int8_weights" in stored_keys(file)
    loaded = w8a16.load(untied_linears(), file)
    assert loaded[0].int8_weights is not loaded[2].int8_weights


def test_views_of_one_storage_are_stored_each(tmp_path):
    """Same storage, but another part of it: not the same tensor."""

    def build():
        model = nn.Sequential(nn.Linear(16, 16))
        both = torch.arange(8.0)
        model.register_buffer("low", both[:4])
        model.register_buffer("high", both[4:])
        return model

    model = w8a16.quantize(build())
    assert_same_model(w8a16.load(on_meta(build), w8a16.save(model, tmp_path)), model)


class WithTable(nn.Module):
    def __init__(self, table, persistent):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.register_buffer("table", table, persistent=persistent)


def sharing_a_table(persistent):
    table = torch.arange(4.0)
    return nn.Sequential(WithTable(table, persistent), WithTable(table, persistent))


@pytest.mark.parametrize("persistent", [True, False])
def test_buffer_shared_by_two_modules(tmp_path, persistent):
    """A position table made once and handed to every layer."""
    model = w8a16.quantize(sharing_a_table(persistent))
    file = w8a16.save(model, tmp_path)
    assert "0.table" in stored_keys(file)
    assert "1.table" not in stored_keys(file)
    loaded = w8a16.load(on_meta(lambda: sharing_a_table(persistent)), file)
    assert_same_model(loaded, model)


def test_two_layers_in_the_file_for_one_shared_module(tmp_path):
    """One of the two would be lost, so the model would not be the one that was saved."""
    file = w8a16.save(w8a16.quantize(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))), tmp_path)
    layer = nn.Linear(16, 16)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(nn.Sequential(layer, layer), file)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        f"1.{name}: the same tensor as 0.{name} in the model, another one in the checkpoint"
        for name in ("bias", "int8_weights", "scales")
    ]
