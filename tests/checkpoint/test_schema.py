"""docs/format.schema.json is what is written, and no laxer than what is read."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import w8a16
from support.files import edit_manifest, read_raw, saved_block
from support.golden import golden_model
from w8a16.checkpoint import ORIGINS, open_checkpoint, open_shards
from w8a16.checkpoint.by_name import skeleton_from_names
from w8a16.checkpoint.streaming import plan_checkpoint
from w8a16.core import FLOAT_DTYPES
from w8a16.errors import CheckpointError

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "format.schema.json").read_text(encoding="utf-8"))
PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
VALID = jsonschema.Draft202012Validator(SCHEMA)


def manifest_of(file):
    return json.loads(read_raw(file)[0]["__metadata__"]["w8a16"])


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_saved_models(tmp_path):
    model = nn.Sequential(nn.LSTM(16, 16), nn.Linear(16, 16), nn.Linear(16, 16))
    model[2].weight = model[1].weight
    for i, each in enumerate([golden_model(), w8a16.quantize(model)]):
        VALID.validate(manifest_of(w8a16.save(each, tmp_path / f"{i}.safetensors")))
    VALID.validate(manifest_of(w8a16.save(golden_model(), tmp_path / "named.safetensors", source="bert")))


def test_streamed_checkpoints(tmp_path):
    """With error figures; a weight of zeros loses nothing, which is no number in JSON."""
    file = tmp_path / "model.safetensors"
    state = {"a.weight": torch.randn(64, 32), "b.weight": torch.zeros(64, 32), "b.bias": torch.zeros(64)}
    save_file(state, file)
    shards = open_shards(file)
    (tmp_path / "int8").mkdir()
    plan_checkpoint(shards, skeleton_from_names(shards), source_name="x").run(tmp_path / "int8")
    manifest = manifest_of(tmp_path / "int8" / "model.safetensors")
    VALID.validate(manifest)
    figures = {path: record["weights"]["weight"] for path, record in manifest["modules"].items()}
    assert figures["b"] == {"shape": [64, 32], "sqnr_db": 999.99, "largest_error": 0.0}
    assert 30 < figures["a"]["sqnr_db"] < 60
    assert manifest["source"]["bytes"] == file.stat().st_size
    record = open_checkpoint(tmp_path / "int8").manifest.modules["b"].weights["weight"]
    assert record.sqnr_db == float("inf")


def test_the_example_of_the_page():
    example = PAGE.split("```json\n")[1].split("```")[0]
    VALID.validate(json.loads(example))


def test_the_page_the_schema_and_the_code_name_the_same():
    assert SCHEMA["properties"]["origin"]["enum"] == list(ORIGINS)
    dtypes = SCHEMA["$defs"]["module"]["properties"]["weight_dtype"]["enum"]
    assert set(dtypes) == {str(dtype).removeprefix("torch.") for dtype in FLOAT_DTYPES}
    for field in (*SCHEMA["properties"], *SCHEMA["$defs"]["weight"]["properties"], *ORIGINS):
        assert f"`{field}`" in PAGE, field


WEIGHT = ["modules", "first", "weights", "weight"]
WRONG = {
    "another format": (["format"], "w4a16"),
    "version as a text": (["format_version"], "2"),
    "no ties": (["ties"], None),
    "no origin": (["origin"], None),
    "another origin": (["origin"], "a dream"),
    "hidden twice": (["non_persistent_buffers"], ["positions", "positions"]),
    "checksum too short": (["checksums", "first.bias"], "abc"),
    "checksum in capitals": (["checksums", "first.bias"], "9AE0DAAF"),
    "source a text": (["source"], "bert"),
    "source incomplete": (["source"], {"name": "bert"}),
    "dtype": (["modules", "first", "weight_dtype"], "int4"),
    "no weights": (["modules", "first", "weights"], {}),
    "name with a dot": (["modules", "first", "weights", "a.b"], {"shape": [64, 32]}),
    "shape of one": ([*WEIGHT, "shape"], [64]),
    "negative size": ([*WEIGHT, "shape"], [64, -32]),
    "lead 0": ([*WEIGHT, "lead"], 0),
    "swapped a number": ([*WEIGHT, "swapped"], 1),
    "groups of rows": ([*WEIGHT, "groups"], 2),
    "unknown field": ([*WEIGHT, "zero_point"], 3),
    "figure a text": ([*WEIGHT, "sqnr_db"], "41"),
}


@pytest.mark.parametrize("case", WRONG)
def test_schema_and_reader_refuse_the_same(tmp_path, case):
    _, file = saved_block(tmp_path)
    assert VALID.is_valid(manifest_of(file))
    *path, last = WRONG[case][0]

    def spoil(manifest):
        place = manifest
        for name in path:
            place = place[name]
        if WRONG[case][1] is None:
            del place[last]
        else:
            place[last] = WRONG[case][1]

    edit_manifest(file, spoil)
    assert not VALID.is_valid(manifest_of(file))
    with pytest.raises(CheckpointError):
        open_checkpoint(file)
