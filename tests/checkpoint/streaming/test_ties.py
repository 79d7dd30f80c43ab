"""Tied weights: stored once, stored twice, in one file or in several."""

import pytest
import torch
from torch import nn

from support.streaming import assert_as_in_memory, skeleton_of, stream, tensors_in, write_checkpoint
from w8a16.checkpoint import open_checkpoint
from w8a16.checkpoint.skeleton import Piece
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.errors import CheckpointError


class Tied(nn.Module):
    """An embedding and a head that share their weight; two norms that share theirs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 40)
        self.middle = nn.Linear(40, 40)
        self.head = nn.Linear(40, 30, bias=False)
        self.head.weight = self.embedding.weight
        self.first, self.second = nn.LayerNorm(40), nn.LayerNorm(40)
        self.second.weight = self.first.weight


BODY = ("middle.weight", "middle.bias", "first.bias", "second.bias")
SHARED = {"embedding.weight": "head.weight", "first.weight": "second.weight"}


@pytest.fixture(params=[None, (512, 512), (16, 512)], ids=str)
def cut(request, cut_small):
    if request.param:
        cut_small(*request.param)


def stored(names):
    state = Tied().state_dict()
    return {name: state[name].clone() for name in (*BODY, *names)}


def skeleton(names):
    return skeleton_of(Tied(), sources={name: (Piece(name),) for name in (*BODY, *names)})


@pytest.mark.parametrize("names", [tuple(SHARED), tuple(SHARED.values())], ids=["first names", "last names"])
@pytest.mark.parametrize("apart", [False, True], ids=["one file", "two files"])
def test_stored_once(cut, names, apart, tmp_path):
    shard_of = (lambda name: int(name in names)) if apart else None
    shards = write_checkpoint(stored(names), tmp_path / "float", shard_of)
    stream(shards, skeleton(names), tmp_path / "int8")
    assert_as_in_memory(tmp_path / "int8", Tied())
    modules = open_checkpoint(tmp_path / "int8").manifest.modules
    embedding, head = (modules[name].weights["weight"] for name in ("embedding", "head"))
    assert embedding.sqnr_db is not None
    assert (head.sqnr_db, head.largest_error) == (embedding.sqnr_db, embedding.largest_error)


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "two files"])
def test_stored_twice_with_the_same_values(cut, apart, tmp_path):
    names = (*SHARED, *SHARED.values())
    shard_of = (lambda name: int(name.startswith(("head", "second")))) if apart else None
    shards = write_checkpoint(stored(names), tmp_path / "float", shard_of)
    work = plan_checkpoint(shards, skeleton(names))
    assert work.duplicates == {alias: name for name, alias in SHARED.items()}
    (tmp_path / "int8").mkdir()
    work.run(tmp_path / "int8", threads=2)
    assert_as_in_memory(tmp_path / "int8", Tied())
    assert open_checkpoint(tmp_path / "int8").manifest.ties == {
        "head.int8_weights": "embedding.int8_weights",
        "head.scales": "embedding.scales",
        "second.weight": "first.weight",
    }


@pytest.mark.parametrize("name", SHARED.values())
@pytest.mark.parametrize("apart", [False, True], ids=["one file", "two files"])
def test_stored_twice_with_different_values(cut, name, apart, tmp_path):
    names = (*SHARED, *SHARED.values())
    tensors = stored(names)
    tensors[name].view(-1)[-1] += 1e-6
    shard_of = (lambda name: int(name.startswith(("head", "second")))) if apart else None
    shards = write_checkpoint(tensors, tmp_path / "float", shard_of)
    original = next(first for first, second in SHARED.items() if second == name)
    with pytest.raises(CheckpointError) as caught:
        stream(shards, skeleton(names), tmp_path / "int8")
    assert str(caught.value) == (
        f"{tmp_path / 'float'}: Tied has one tensor where the files hold two with different values: "
        f"{name} and {original}"
    )


def test_a_file_with_nothing_but_copies_of_tied_weights_is_not_written(tmp_path):
    names = (*SHARED, *SHARED.values())
    shards = write_checkpoint(stored(names), tmp_path / "float", lambda name: int(name in SHARED.values()))
    outcome = stream(shards, skeleton(names), tmp_path / "int8")
    assert outcome.files == ("model-00001-of-00002.safetensors", "model.safetensors.index.json")
    assert "head.int8_weights" not in tensors_in(tmp_path / "int8")
    assert_as_in_memory(tmp_path / "int8", Tied())
