"""The manifest inside a file: unknown, incomplete or untrue ones are refused, with the reason."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

import w8a16
from support.files import Block, edit_manifest, read_raw, refusal, saved_block, write_raw
from w8a16.checkpoint import (
    ModuleRecord,
    Source,
    WeightRecord,
    open_checkpoint,
    read_header,
    read_manifest,
)
from w8a16.convert import Recipe
from w8a16.errors import CheckpointError
from w8a16.layers import Layout


def test_what_is_recorded(tmp_path):
    file = w8a16.save(w8a16.quantize(Block(), exclude="second"), tmp_path, source="bert-base")
    manifest = open_checkpoint(file).manifest
    assert manifest.modules == {
        "embedding": ModuleRecord("embedding", torch.float32, {"weight": WeightRecord(Layout(), (16, 32))}),
        "first": ModuleRecord("linear", torch.float32, {"weight": WeightRecord(Layout(), (64, 32))}),
    }
    assert manifest.kept_float == {"second.weight": "not_converted"}
    assert manifest.non_persistent_buffers == ("positions",)
    assert manifest.source == Source("bert-base")
    assert manifest.origin == "model"


def test_reasons_of_the_executed_plan(tmp_path):
    from w8a16.convert import execute

    model = Block()
    executed = execute(model, Recipe(exclude="second"))
    manifest = open_checkpoint(w8a16.save(model, tmp_path, executed=executed)).manifest
    assert manifest.kept_float == {"second.weight": "excluded"}


def test_float_file(tmp_path):
    file = tmp_path / "float.safetensors"
    safetensors.torch.save_file(Block().state_dict(), file, metadata={"format": "pt"})
    assert refusal(file) == (
        "not written by w8a16 (no manifest in the header): a float or foreign checkpoint; load it into the "
        "float model and call w8a16.quantize(model)"
    )


def test_newer_format(tmp_path):
    """It may be anything, so nothing else of it is looked at."""
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: json.dumps({"format": "w8a16", "format_version": 4}))
    assert refusal(file) == "written by a newer w8a16 (format 4; this one reads up to 3)"


@pytest.mark.parametrize(
    "field",
    [
        "format",
        "format_version",
        "modules",
        "kept_float",
        "ties",
        "non_persistent_buffers",
        "checksums",
        "source",
        "origin",
    ],
)
def test_missing_fields(tmp_path, field):
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: manifest.pop(field) and None)
    assert refusal(file) == f"the manifest cannot be understood: KeyError('{field}')"


NOT_UNDERSTOOD = {
    "not JSON": lambda m: "{",
    "empty": lambda m: "",
    "a list": lambda m: "[]",
    "null": lambda m: "null",
    "nested": lambda m: "[" * 200_000,
    "version is a text": lambda m: m.update(format_version="1"),
    "modules is a list": lambda m: m.update(modules=["first"]),
    "ties is a list": lambda m: m.update(ties=["a", "b"]),
    "reasons is a text": lambda m: m.update(kept_float="none"),
    "hidden is a number": lambda m: m.update(non_persistent_buffers=3),
    "hidden twice": lambda m: m["non_persistent_buffers"].append("positions"),
    "record is null": lambda m: m["modules"].update(first=None),
    "version 0": lambda m: m.update(format_version=0),
    "version a flag": lambda m: m.update(format_version=True),
    "version between": lambda m: m.update(format_version=1.5),
    "checksums is a list": lambda m: m.update(checksums=[]),
    "checksum a number": lambda m: m["checksums"].update({"first.bias": 17}),
    "checksum too short": lambda m: m["checksums"].update({"first.bias": "abc"}),
    "checksum in capitals": lambda m: m["checksums"].update({"first.bias": "9AE0DAAF"}),
    "source a text": lambda m: m.update(source="bert-base"),
    "source without a file": lambda m: m.update(source={"name": "x", "bytes": 1, "crc32": None}),
    "source of a negative size": lambda m: m.update(
        source={"name": "x", "file": "y", "bytes": -1, "crc32": None}
    ),
    "name of the source a number": lambda m: m.update(
        source={"name": 1, "file": "y", "bytes": 1, "crc32": None}
    ),
    "another origin": lambda m: m.update(origin="a dream"),
    "unknown kind": lambda m: m["modules"]["first"].update(kind="magic"),
    "kind is a list": lambda m: m["modules"]["first"].update(kind=["linear"]),
    "no kind": lambda m: m["modules"]["first"].pop("kind") and None,
    "unknown dtype": lambda m: m["modules"]["first"].update(weight_dtype="int4"),
    "another format": lambda m: m.update(format="w4a16"),
}


@pytest.mark.parametrize("case", NOT_UNDERSTOOD)
def test_not_understood(tmp_path, case):
    _, file = saved_block(tmp_path)
    edit_manifest(file, NOT_UNDERSTOOD[case])
    text = refusal(file)
    assert text.startswith("the manifest cannot be understood: ")
    for name, detail in {
        "unknown kind": "unknown layer kind 'magic'",
        "another format": "format 'w4a16'",
        "another origin": "origin 'a dream'; known: model, classes, names",
        "checksum in capitals": "checksum '9AE0DAAF': expected 8 lower-case hexadecimal digits",
        "hidden twice": "non_persistent_buffers names a buffer twice",
    }.items():
        assert (detail in text) == (case == name)


UNTRUE = {
    "module": (
        lambda m: m["modules"].update(third=m["modules"]["first"]),
        [f"third.{name}: in the manifest, but not in the file" for name in ("int8_weights", "scales")],
    ),
    "tie": (
        lambda m: m["ties"].update({"head.weight": "body.weight"}),
        ["head.weight: tied to body.weight, which is not in the file"],
    ),
    "no checksum": (
        lambda m: m["checksums"].pop("first.bias") and None,
        ["first.bias: has no checksum"],
    ),
    "checksum of nothing": (
        lambda m: m["checksums"].update({"third.bias": "00000000"}),
        ["third.bias: has a checksum, but is not in the file"],
    ),
    "hidden": (
        lambda m: m["non_persistent_buffers"].append("lost"),
        ["lost: in the manifest, but not in the file"],
    ),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_untrue(tmp_path, case):
    _, file = saved_block(tmp_path)
    change, lines = UNTRUE[case]
    edit_manifest(file, lambda manifest: change(manifest))
    assert refusal(file).splitlines() == [
        "the manifest does not match the tensors:",
        *(f"  {line}" for line in lines),
    ]


def rewrite(file, **tensors):
    """The same manifest, other tensors; None leaves one out."""
    with safetensors.safe_open(file, "pt") as opened:
        kept = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dict
        metadata = opened.metadata()
    kept.update(tensors)
    kept = {name: tensor for name, tensor in kept.items() if tensor is not None}
    safetensors.torch.save_file(kept, file, metadata=metadata)


CODES = torch.zeros(8, 16, dtype=torch.int8)
WRONG_TENSORS = {
    "int32 scales": (
        {"scales": torch.ones(8, dtype=torch.int32)},
        "scales: expected torch.float32 [8], found torch.int32 [8]",
    ),
    "half scales": (
        {"scales": torch.ones(8).half()},
        "scales: expected torch.float32 [8], found torch.float16 [8]",
    ),
    "column of scales": (
        {"scales": torch.ones(8, 1)},
        "scales: expected torch.float32 [8], found torch.float32 [8, 1]",
    ),
    "too few scales": (
        {"scales": torch.ones(7)},
        "scales: expected torch.float32 [8], found torch.float32 [7]",
    ),
    "no scales": ({"scales": None}, "scales: in the manifest, but not in the file"),
    "no codes": ({"int8_weights": None}, "int8_weights: in the manifest, but not in the file"),
    "uint8 codes": (
        {"int8_weights": CODES.to(torch.uint8)},
        "int8_weights: expected torch.int8 [8, 16], found torch.uint8 [8, 16]",
    ),
    "float codes": (
        {"int8_weights": CODES.float()},
        "int8_weights: expected torch.int8 [8, 16], found torch.float32 [8, 16]",
    ),
    "transposed codes": (
        {"int8_weights": CODES.t().contiguous()},
        "int8_weights: expected torch.int8 [8, 16], found torch.int8 [16, 8]",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
def test_wrong_tensors(tmp_path, wrong):
    tensors, text = WRONG_TENSORS[wrong]
    file = w8a16.save(w8a16.quantize(nn.Linear(16, 8)), tmp_path)
    rewrite(file, **tensors)
    assert refusal(file, nn.Linear(16, 8)) == f"the manifest does not match the tensors:\n  {text}"


@pytest.mark.parametrize("left_out", ["int8_weights", "scales"])
def test_orphans(tmp_path, left_out):
    """Codes or scales that no module of the manifest owns."""
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: manifest["modules"].pop("second") and None)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(Block(), file)
    lines = str(caught.value).splitlines()
    assert f"  second.{left_out}: unexpected, not in the model" in lines
    assert "  second.weight: missing in the checkpoint" in lines


def test_a_tie_that_is_also_stored(tmp_path):
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: manifest["ties"].update({"first.bias": "first.scales"}))
    assert refusal(file).endswith("\n  first.bias: tied to first.scales, but stored as well")


def test_duplicate_layout_of_the_same_file_is_read(tmp_path):
    """Another writer may pad, order and space the header as it likes."""
    model, file = saved_block(tmp_path)
    header, data = read_raw(file)
    write_raw(file, json.dumps(dict(reversed(header.items())), indent=3) + "\n", data)
    assert read_manifest(read_header(file)).modules.keys() == {"embedding", "first", "second"}
    assert torch.equal(w8a16.load(Block(), file).first.int8_weights, model.first.int8_weights)
