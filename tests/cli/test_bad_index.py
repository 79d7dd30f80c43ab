"""Folders with an index of shards that `w8a16 quantize` cannot use: refused before anything is loaded."""

import json

import pytest

from support.files import checksums, write_raw

pytestmark = pytest.mark.transformers
INDEX = "model.safetensors.index.json"


@pytest.fixture
def refused(run, bert, dst):
    """Quantize with this index beside model-1.safetensors; return the message after the folder's name."""
    (bert / "model.safetensors").rename(bert / "model-1.safetensors")

    def refuse(index):
        (bert / INDEX).write_text(index if isinstance(index, str) else json.dumps(index))
        before = checksums(bert)
        result = run("quantize", bert, dst)
        assert (result.code, result.out) == (3, ""), result.err
        assert list(dst.parent.iterdir()) == []
        assert checksums(bert) == before
        return result.err.strip().removeprefix(f"error: {bert}/")

    return refuse


def weight_map(*names):
    return {"metadata": {}, "weight_map": {f"tensor {number}": name for number, name in enumerate(names)}}


@pytest.mark.parametrize(
    "index",
    ["{", "", "[]", "{}", "null", {"weight_map": []}, {"weight_map": {"a": None}}, "[" * 200_000],
    ids=repr,
)
def test_no_map_of_names(refused, index):
    assert refused(index).startswith(f"{INDEX}: expected a weight_map of tensor names to files: ")


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "C:x.safetensors", "a\\..\\b.safetensors"],
)
def test_names_outside_the_folder(refused, name):
    assert refused(weight_map("model-1.safetensors", name)) == f"{INDEX}: unsafe shard name: {name}"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "", "..", "x.safetensors.py"])
def test_names_of_other_files(refused, name):
    assert refused(weight_map(name)) == f"{INDEX}: shard names must end with .safetensors: {name}".strip()


def test_missing_shards_are_all_named(refused):
    names = [f"model-{number}.safetensors" for number in (1, 2, 3)]
    assert refused(weight_map(*names)) == (
        f"{INDEX}: missing shards: model-2.safetensors, model-3.safetensors"
    )


def test_broken_shard(refused, bert):
    write_raw(bert / "model-2.safetensors", "[]")
    names = ("model-1.safetensors", "model-2.safetensors")
    assert refused(weight_map(*names)) == "model-2.safetensors: the header is not a JSON object"


def test_a_shard_that_is_a_folder(run, bert, dst):
    (bert / "model.safetensors").unlink()
    (bert / "x.safetensors").mkdir()
    (bert / INDEX).write_text(json.dumps(weight_map("x.safetensors")))
    result = run("quantize", bert, dst)
    assert (result.code, result.err) == (5, f"error: {bert}/x.safetensors: not a regular file\n")


def test_hostile_names_are_escaped(refused):
    text = refused(weight_map("evil\x1b[31m.bin"))
    assert text.endswith("evil\\x1b[31m.bin")
