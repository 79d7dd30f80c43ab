"""`w8a16 inspect PATH`: what a file holds, from its header alone."""

import json
import os
import zlib

import pytest
import safetensors.torch
import torch
from torch import nn

import w8a16
from support.files import Block, edit_manifest, read_raw, saved_block, write_raw
from support.sharded import split_checkpoint
from w8a16.convert import size


@pytest.fixture
def block(tmp_path):
    torch.manual_seed(0)
    return saved_block(tmp_path)[1]


def test_json_of_a_quantized_file(run, block):
    document = run("inspect", block, "--json").json
    assert document["path"] == str(block)
    (data,) = document["parts"]
    assert (data["place"], data["files"]) == (".", ["block.safetensors"])
    assert data["file_bytes"] == block.stat().st_size
    assert (data["quantized"], data["int8_modules"], data["tensors"]) == (True, 3, 11)
    assert (data["sources"], data["ties"]) == ([None], {})
    weights = {row["name"]: row for row in data["weights"]}
    assert weights["first"] == {
        "name": "first",
        "verdict": "int8",
        "shape": [64, 32],
        "dtype": "float32",
        "float_bytes": 64 * 32 * 4,
        "bytes": 64 * 32 + 64 * 4,
        "sqnr_db": None,
        "largest_error": None,
        "file": "block.safetensors",
        "note": "",
    }
    assert weights["embedding"] == {
        "name": "embedding",
        "verdict": "int8",
        "shape": [16, 32],
        "dtype": "float32",
        "float_bytes": 16 * 32 * 4,
        "bytes": 16 * 32 + 16 * 4,
        "sqnr_db": None,
        "largest_error": None,
        "file": "block.safetensors",
        "note": "",
    }
    assert weights["counter"]["verdict"] == "other"
    assert sum(row["bytes"] for row in data["weights"]) == len(read_raw(block)[1])


def test_table_of_a_quantized_file(run, block):
    lines = run("inspect", block).out.splitlines()
    assert lines[0] == f"{block}: {size(block.stat().st_size)}, 11 tensors, quantized by w8a16"
    rows = [line.split() for line in lines]
    assert ["int8", "1", "64x32", "float32", "8.19", "kB", "2.30", "kB", "first"] in rows
    assert ["int8", "1", "8x64", "float32", "2.05", "kB", "544", "B", "second"] in rows
    assert ["int8", "1", "16x32", "float32", "2.05", "kB", "576", "B", "embedding"] in rows
    assert any("total:" in row and row[0] == "8" for row in rows)


def test_weights_that_stayed_float_say_why(run, tmp_path):
    file = w8a16.save(w8a16.quantize(Block(), exclude="embedding"), tmp_path)
    weights = {row["name"]: row for row in run("inspect", file, "--json").json["parts"][0]["weights"]}
    assert weights["embedding.weight"]["verdict"] == "float"
    assert weights["embedding.weight"]["note"] == "not_converted"
    rows = [line.split() for line in run("inspect", file).out.splitlines()]
    (embedding,) = [row for row in rows if "embedding.weight" in row]
    assert embedding[:8] == ["float", "1", "16x32", "float32", "2.05", "kB", "2.05", "kB"]


def test_weights_that_lie_in_another_way_are_shown_as_the_float_weights(run, tmp_path):
    """The shape of the float weight, and each weight of a module by its own name."""
    tables = nn.ParameterDict({"a": torch.randn(2, 3, 16), "b": torch.randn(4, 16)})
    model = nn.ModuleDict({"up": nn.ConvTranspose1d(4, 6, 3, groups=2), "tables": tables})
    file = w8a16.save(w8a16.quantize(model), tmp_path)
    weights = {row["name"]: row for row in run("inspect", file, "--json").json["parts"][0]["weights"]}
    assert (weights["up"]["shape"], weights["up"]["bytes"]) == ([4, 3, 3], 36 + 6 * 4)
    assert (weights["tables.a"]["shape"], weights["tables.a"]["bytes"]) == ([2, 3, 16], 96 + 6 * 4)
    assert (weights["tables.b"]["shape"], weights["tables.b"]["float_bytes"]) == ([4, 16], 256)
    assert weights["up.bias"]["verdict"] == "float"


def test_a_folder_is_its_file(run, block):
    block.rename(block.with_name("model.safetensors"))
    assert run("inspect", block.parent, "--json").json["parts"][0]["int8_modules"] == 3


def test_a_folder_without_the_file(run, tmp_path):
    result = run("inspect", tmp_path)
    assert result.code == 3
    assert result.err.startswith(
        f"error: {tmp_path}: no model.safetensors and no model.safetensors.index.json"
    )


def test_a_float_file(run, tmp_path):
    file = tmp_path / "float.safetensors"
    safetensors.torch.save_file(Block(torch.bfloat16).state_dict(), file)
    data = run("inspect", file, "--json").json["parts"][0]
    assert (data["quantized"], data["int8_modules"]) == (False, 0)
    assert {row["verdict"] for row in data["weights"]} == {"float", "other"}
    out = run("inspect", file).out
    assert "no w8a16 manifest: a float or foreign checkpoint" in out.replace("\n", " ")
    assert "64x32 bfloat16" in out


def stack(tmp_path, layers=12):
    model = nn.ModuleDict({"layers": nn.Sequential(*[nn.Linear(16, 16) for _ in range(layers)])})
    return w8a16.save(w8a16.quantize(model), tmp_path)


def test_like_layers_are_one_line(run, tmp_path):
    rows = [line.split() for line in run("inspect", stack(tmp_path)).out.splitlines()]
    assert f"int8 12 16x16 float32 {size(12 * 1024)} {size(12 * 320)} layers.*".split() in rows
    assert sum("16x16" in row for row in rows) == 1


def test_all_lists_every_tensor(run, tmp_path):
    rows = [line.split() for line in run("inspect", stack(tmp_path), "--all").out.splitlines()]
    names = {row[-1] for row in rows if row}
    assert {f"layers.{n}" for n in range(12)} | {f"layers.{n}.bias" for n in range(12)} <= names


def test_shared_tensors_are_counted_once(run, tmp_path):
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False))
    model[1].weight = model[0].weight
    data = run("inspect", w8a16.save(w8a16.quantize(model), tmp_path), "--json").json["parts"][0]
    assert [(row["bytes"], row["note"]) for row in data["weights"]] == [
        (320, ""),
        (0, "shares the tensors of another module"),
    ]
    assert data["ties"] == {"1.int8_weights": "0.int8_weights", "1.scales": "0.scales"}


def test_the_tensors_themselves_are_not_read(run, block):
    """Only the header and the size count: with other data the answer is the same."""
    before = run("inspect", block).out
    header, data = read_raw(block)
    with block.open("r+b") as file:
        file.seek(-len(data), os.SEEK_END)
        file.write(b"\xff" * len(data))
    assert run("inspect", block).out == before
    assert header


EVIL = "evil\x1b[31m\u202e\n[red]x"


def evil_file(path, notes=None):
    info = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    return write_raw(path, {EVIL: info}, bytes(16))


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_hostile_names_are_escaped(run, tmp_path, options):
    out = run("inspect", evil_file(tmp_path / "x.safetensors"), *options).out
    assert all(character.isprintable() for character in out.replace("\n", ""))
    assert "evil\\x1b[" in out
    assert "[red]x" in out.replace("\n", "").replace(" ", "")


def test_hostile_names_in_json(run, tmp_path):
    result = run("inspect", evil_file(tmp_path / "x.safetensors"), "--json")
    assert result.out.isascii()
    assert "\x1b" not in result.out
    assert result.json["parts"][0]["weights"][0]["name"] == EVIL


def test_hostile_reasons_are_escaped(run, block):
    edit_manifest(block, lambda m: m["kept_float"].update({"embedding.weight": EVIL}))
    out = run("inspect", block).out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_80_columns(run, block):
    assert max(map(len, run("inspect", block).out.splitlines()[1:])) <= 80


def test_broken_file(run, block):
    block.write_bytes(block.read_bytes()[:-1])
    result = run("inspect", block)
    assert result.code == 3
    assert "the file is cut short: download it again" in result.err


def test_newer_format(run, block):
    edit_manifest(block, lambda m: json.dumps({"format": "w8a16", "format_version": 99}))
    result = run("inspect", block)
    assert result.code == 3
    assert "written by a newer w8a16 (format 99; this one reads up to 3)" in result.err


def test_errors_are_shown(run, bert, dst):
    """The lowest SQNR and the largest error of like layers; half-steps are at most one and a rounding."""
    assert run("quantize", bert, dst).code == 0
    rows = run("inspect", dst, "--json").json["parts"][0]["weights"]
    int8 = [row for row in rows if row["verdict"] == "int8"]
    assert int8
    assert all(30 < row["sqnr_db"] < 60 for row in int8)
    assert all(0.9 < row["largest_error"] <= 1 + 2**-15 for row in int8)
    assert all(row["sqnr_db"] is None for row in rows if row["verdict"] != "int8")
    query = [row for row in int8 if row["name"].endswith("attention.self.query")]
    assert len(query) == 2
    lines = run("inspect", dst).out.splitlines()
    sqnr, worst = min(row["sqnr_db"] for row in query), max(row["largest_error"] for row in query)
    same_shape = [line.split() for line in lines if "32x32" in line]
    assert [f"{sqnr:.1f}", f"{worst:.4f}"] in [row[6:8] for row in same_shape]
    assert max(map(len, lines[1:])) <= 80


def test_several_files_are_one_checkpoint(run, block, tmp_path):
    folder = split_checkpoint(block, tmp_path / "sharded", lambda name: int(name.startswith("second")))
    (data,) = run("inspect", folder, "--json").json["parts"]
    assert (data["int8_modules"], data["tensors"]) == (3, 11)
    assert data["files"] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = {row["name"]: row["file"] for row in data["weights"]}
    assert (files["first"], files["second"]) == tuple(data["files"])
    assert f"{folder}: " in run("inspect", folder).out
    assert "2 files, 11 tensors" in run("inspect", folder).out


def test_a_folder_of_models_has_a_section_each(run, block, tmp_path):
    for name in ("text_encoder", "unet"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "model.safetensors").write_bytes(block.read_bytes())
    parts = run("inspect", tmp_path / "tree", "--json").json["parts"]
    assert [part["place"] for part in parts] == ["text_encoder", "unet"]
    assert run("inspect", tmp_path / "tree").out.count("quantized by w8a16") == 2


def test_the_source_is_shown(run, bert, dst):
    assert run("quantize", bert, dst).code == 0
    (source,) = run("inspect", dst, "--json").json["parts"][0]["sources"]
    content = (bert / "model.safetensors").read_bytes()
    crc = f"{zlib.crc32(content):08x}"
    assert source == {"name": "bert", "file": "model.safetensors", "bytes": len(content), "crc32": crc}
