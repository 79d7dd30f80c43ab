"""Several files as one checkpoint: which file is meant, and that every tensor lies where the index says."""

import json

import pytest
import torch

from support.files import write_raw
from w8a16.checkpoint import open_shards
from w8a16.errors import CheckpointError, ResourceError, UsageError

INDEX = "model.safetensors.index.json"


def shard(folder, name, *tensors):
    """A file whose tensors lie in the opposite order of its header."""
    fields = {
        tensor: {"dtype": "F16", "shape": [2, 1], "data_offsets": [4 * place, 4 * place + 4]}
        for place, tensor in reversed(list(enumerate(tensors)))
    }
    return write_raw(folder / name, fields, bytes(4 * len(tensors)))


def index(folder, weight_map, name=INDEX):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def refusal(error, path, **options):
    with pytest.raises(error) as caught:
        open_shards(path, **options)
    name, _, text = str(caught.value).partition(": ")
    assert name.startswith(str(path))
    return text


@pytest.fixture
def sharded(tmp_path):
    shard(tmp_path, "model-2.safetensors", "c", "a")
    shard(tmp_path, "model-1.safetensors", "b", "d")
    two, one = "model-2.safetensors", "model-1.safetensors"
    index(tmp_path, {"a": two, "b": one, "c": two, "d": one})
    return tmp_path


def test_a_folder_with_an_index(sharded):
    shards = open_shards(sharded)
    assert (shards.path, shards.index) == (sharded, sharded / INDEX)
    assert [header.path.name for header in shards.headers] == ["model-1.safetensors", "model-2.safetensors"]
    assert list(shards.tensors) == ["b", "d", "c", "a"]  # by file, then by offset
    assert [info.start for info in shards.tensors.values()] == [
        shards.header_of(name).tensors[name].start for name in shards.tensors
    ]
    assert (shards.tensors["a"].dtype, shards.tensors["a"].shape) == (torch.float16, (2, 1))
    assert shards.header_of("a").path == sharded / "model-2.safetensors"
    with pytest.raises(KeyError):
        shards.header_of("z")


def test_an_index_by_its_own_name(sharded):
    assert open_shards(str(sharded / INDEX)).headers == open_shards(sharded).headers


def test_one_file(tmp_path):
    file = shard(tmp_path, "any.safetensors", "a")
    shards = open_shards(file)
    assert (shards.path, shards.index, list(shards.tensors)) == (file, None, ["a"])
    assert shards.header_of("a") is shards.headers[0]


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["any.safetensors"], "any.safetensors"),
        (["model.safetensors", "consolidated.safetensors"], "model.safetensors"),
        (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"], None),
    ],
)
def test_the_usual_names_come_first(tmp_path, names, chosen):
    for name in names:
        shard(tmp_path, name, "a")
    assert open_shards(tmp_path).headers[0].path.name == (chosen or names[-1])


def test_hidden_files_are_left_alone(tmp_path):
    shard(tmp_path, "any.safetensors", "a")
    (tmp_path / "._any.safetensors").write_bytes(b"not one")
    assert list(open_shards(tmp_path).tensors) == ["a"]


def test_an_index_comes_before_other_files(tmp_path):
    shard(tmp_path, "any.safetensors", "a")
    shard(tmp_path, "model.fp16-1.safetensors", "b")
    index(tmp_path, {"b": "model.fp16-1.safetensors"}, "model.fp16.safetensors.index.json")
    assert list(open_shards(tmp_path).tensors) == ["b"]


def test_a_choice_that_the_user_must_make(sharded):
    shard(sharded, "model.safetensors", "z")
    assert refusal(CheckpointError, sharded) == (
        f"holds model.safetensors, {INDEX}: choose one with weights=NAME (--weights NAME)"
    )
    assert list(open_shards(sharded, weights="model.safetensors").tensors) == ["z"]
    assert len(open_shards(sharded, weights=INDEX).headers) == 2
    assert len(open_shards(sharded, weights="model-1.safetensors").headers) == 1


def test_shards_without_an_index(tmp_path):
    for number in (1, 2):
        shard(tmp_path, f"model-{number}-of-2.safetensors", str(number))
    assert refusal(CheckpointError, tmp_path).endswith(
        "; shards of one checkpoint need their index (*.safetensors.index.json)"
    )


@pytest.mark.parametrize("weights", ["../x.safetensors", "", "x.bin", "a\\x.safetensors", "C:x.safetensors"])
def test_a_choice_outside_the_folder(sharded, weights):
    assert refusal(UsageError, sharded, weights=weights).startswith(f"weights={weights!r}: expected the name")


def test_a_choice_that_is_not_there(sharded):
    assert refusal(UsageError, sharded, weights="x.safetensors") == (
        f"no x.safetensors; found: model-1.safetensors, model-2.safetensors, {INDEX}"
    )
    file = sharded / "model-1.safetensors"
    assert refusal(UsageError, file, weights="x.safetensors").startswith("not a folder")


def test_no_weights(tmp_path):
    nothing = f"no model.safetensors and no {INDEX}"
    assert refusal(CheckpointError, tmp_path) == nothing
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert refusal(CheckpointError, tmp_path) == f"{nothing} (found pytorch_model.bin: pickle is never read)"
    assert refusal(CheckpointError, tmp_path / "pytorch_model.bin").endswith("; pickle is never read")
    assert refusal(ResourceError, tmp_path / "none") == "no such file or folder"


def test_tensors_that_are_not_where_the_index_says(sharded):
    shard(sharded, "model-3.safetensors", "c", "e")
    one, two, three = (f"model-{number}.safetensors" for number in (1, 2, 3))
    index(sharded, {"a": one, "b": one, "c": two, "f": three, "g": two})
    assert refusal(CheckpointError, sharded).splitlines() == [
        "does not match its shards:",
        f"  d: in {one}, but not in the index",
        f"  c: in several shards: {two}, {three}",
        f"  a: the index says {one}, but it is in {two}",
        f"  e: in {three}, but not in the index",
        f"  f: the index says {three}, but no shard has it",
        f"  g: the index says {two}, but no shard has it",
    ]
