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
    "index, text",
    [
        ("{", 'the index is not a JSON object (expected " at character 1)'),
        ("", "the index is not a JSON object (expected { at character 0)"),
        ("[]", "the index is not a JSON object (expected { at character 0)"),
        ('{"metadata": ' + "[" * 200_000, "the index is nested too deep"),
        ("{}", "expected a weight_map of tensor names to file names"),
        ({"weight_map": {}}, "expected a weight_map of tensor names to file names"),
        ({"weight_map": []}, "weight_map: expected a map of tensor names to file names"),
        ({"weight_map": {"a": "b", "c": None}}, "weight_map: c: expected a file name"),
        ('{"weight_map": {"a": "x", "b": "y", "a": "z"}}', "duplicate key in the index: a"),
        ('{"metadata": {"total_size": NaN}}', "the index is not a JSON object (NaN is no JSON value)"),
        ('{"metadata": {"total_size": 1, "total_size": 1}}', "duplicate key in the index: total_size"),
    ],
    ids=range(11),
)
def test_no_map_of_names(refused, index, text):
    assert refused(index).startswith(f"{INDEX}: {text}")


@pytest.mark.parametrize(
    "name",
    [
        *("../x.safetensors", "/x.safetensors", "a/x.safetensors", "C:x.safetensors", "a\\..\\b.safetensors"),
        *(
            "\\\\srv\\s.safetensors",
            "",
            "..",
            "nul.safetensors",
            "x.safetensors:s",
            "evil\x1b[31m.safetensors",
        ),
    ],
)
def test_names_outside_the_folder(refused, name):
    assert refused(weight_map("model-1.safetensors", name)) == f"{INDEX}: unsafe shard name: {name!r}"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.safetensors.py", "safetensors"])
def test_names_of_other_files(refused, name):
    assert refused(weight_map(name)) == f"{INDEX}: shard names must end with .safetensors: {name}"


def test_missing_shards_are_all_named(refused):
    names = [f"model-{number}.safetensors" for number in (1, 2, 3)]
    assert refused(weight_map(*names)) == (
        f"{INDEX}: 2 of 3 shards are missing: model-2.safetensors, model-3.safetensors; download them again?"
    )


def test_tensors_that_are_elsewhere(refused, bert):
    """Every tensor of the one shard that is there is missing in the index."""
    text = refused(weight_map("model-1.safetensors"))
    assert text.startswith(f"{INDEX}: does not match its shards:\n  ")
    assert "\n  pooler.dense.weight: in model-1.safetensors, but not in the index\n" in text
    assert text.endswith("  tensor 0: the index says model-1.safetensors, but no shard has it")


def test_broken_shard(refused, bert):
    write_raw(bert / "model-2.safetensors", "[]")
    names = ("model-1.safetensors", "model-2.safetensors")
    assert refused(weight_map(*names)) == (
        "model-2.safetensors: the header is not a JSON object: it does not begin with {"
    )


def test_a_shard_that_is_a_folder(run, bert, dst):
    (bert / "model.safetensors").unlink()
    (bert / "x.safetensors").mkdir()
    (bert / INDEX).write_text(json.dumps(weight_map("x.safetensors")))
    result = run("quantize", bert, dst)
    assert (result.code, result.err) == (5, f"error: {bert}/x.safetensors: not a regular file\n")
