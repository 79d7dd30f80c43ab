"""Quantized checkpoints of several files: read as one, and refused where the files contradict each other."""

import json
import struct

import pytest
from torch import nn

import w8a16
from support.files import (
    Block,
    Untouched,
    assert_same_model,
    edit_header,
    edit_manifest,
    on_meta,
    read_raw,
    saved_block,
    write_raw,
)
from support.sharded import INDEX, shard_name, split_checkpoint
from w8a16.checkpoint import open_checkpoint
from w8a16.errors import CheckpointError, ResourceError

FIRST, SECOND = shard_name(0, 2), shard_name(1, 2)


class Recurrent(nn.Module):
    """A module with several int8 weights, and tied ones."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2)
        self.head = nn.Linear(16, 32, bias=False)
        self.head.weight = self.embedding.weight


@pytest.fixture
def sharded(tmp_path):
    """A quantized `Block` in two files."""
    model, file = saved_block(tmp_path)
    folder = split_checkpoint(file, tmp_path / "sharded", lambda name: int(name.startswith("second")))
    return model, folder


def test_they_load_as_one(sharded):
    model, folder = sharded
    assert_same_model(w8a16.load(Block(), folder), model)
    assert_same_model(w8a16.load(Block(), folder / INDEX), model)


def test_they_say_the_same_together_as_one_file(sharded, tmp_path):
    _, folder = sharded
    together, alone = open_checkpoint(folder), open_checkpoint(tmp_path / "block.safetensors")
    assert together.manifest == alone.manifest
    assert [set(part.modules) for part in together.parts] == [{"embedding", "first"}, {"second"}]


def test_one_file_of_several_can_be_opened_alone(sharded):
    _, folder = sharded
    assert set(open_checkpoint(folder / SECOND).manifest.modules) == {"second"}
    with pytest.raises(CheckpointError, match=r"first\.bias: missing in the checkpoint"):
        w8a16.load(Block(), folder / SECOND)


@pytest.mark.parametrize("skeleton", [False, True])
def test_weights_of_one_module_in_several_files(tmp_path, skeleton):
    model = w8a16.quantize(Recurrent())
    file = w8a16.save(model, tmp_path)
    folder = split_checkpoint(
        file, tmp_path / "sharded", lambda name: ("l1" in name) + 2 * ("reverse" in name)
    )
    parts = open_checkpoint(folder).parts
    assert [len(part.modules["lstm"].weights) for part in parts] == [2, 2]
    loaded = w8a16.load(on_meta(Recurrent) if skeleton else Recurrent(), folder)
    assert_same_model(loaded, model)
    assert loaded.head.int8_weights is loaded.embedding.int8_weights


def refusal(folder):
    target = Block()
    untouched = Untouched(target)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(target, folder)
    untouched.check()
    name, _, text = str(caught.value).partition(": ")
    return name, text


SECOND_RECORD = {"kind": "linear", "weight_dtype": "float32", "weights": {"weight": {"shape": [8, 64]}}}
CONTRADICTIONS = {
    "a reason": (
        lambda m: m["kept_float"].update({"x.weight": "dtype"}),
        lambda m: m["kept_float"].update({"x.weight": "option"}),
        [f"x.weight: {FIRST} and {SECOND} disagree"],
    ),
    "an origin": (
        lambda m: None,
        lambda m: m.update(origin="names"),
        [f"{SECOND}: its origin is 'names', that of {FIRST} is 'model'"],
    ),
    "a tie": (
        lambda m: m["ties"].update({"x.bias": "first.bias"}),
        lambda m: m["ties"].update({"x.bias": "second.scales"}),
        [f"x.bias: {FIRST} and {SECOND} disagree"],
    ),
    "a tie of what is stored elsewhere": (
        lambda m: m["ties"].update({"second.scales": "first.scales"}),
        lambda m: None,
        ["second.scales: tied to first.scales, but stored as well"],
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions(sharded, case):
    _, folder = sharded
    change_first, change_second, lines = CONTRADICTIONS[case]
    edit_manifest(folder / FIRST, lambda m: change_first(m) and None)
    edit_manifest(folder / SECOND, lambda m: change_second(m) and None)
    name, text = refusal(folder)
    assert name == str(folder / INDEX)
    assert text.splitlines() == [
        "the manifests of its files contradict each other:",
        *(f"  {line}" for line in lines),
    ]


@pytest.mark.parametrize(
    "field, value", [("kind", "embedding"), ("weight_dtype", "bfloat16"), ("weights", {"weight_hh_l0": None})]
)
def test_records_of_one_module_that_disagree(tmp_path, field, value):
    file = w8a16.save(w8a16.quantize(nn.Sequential(nn.LSTM(16, 16, num_layers=2))), tmp_path)
    folder = split_checkpoint(file, tmp_path / "sharded", lambda name: int("l1" in name))

    def change(manifest):
        record = manifest["modules"]["0"]
        record[field] = value if field != "weights" else record["weights"]

    def add(manifest):
        """The same weight in both parts, by a tie, which leads to the file that holds it."""
        record = manifest["modules"]["0"]
        record["weights"] = {**record["weights"], "weight_hh_l0": record["weights"]["weight_hh_l1"]}
        manifest["ties"] = {
            f"0.weight_hh_l0_{name}": f"0.weight_hh_l1_{name}" for name in ("int8_weights", "scales")
        }

    edit_manifest(folder / SECOND, change if field != "weights" else add)
    with pytest.raises(CheckpointError, match=rf"  0: {FIRST} and {SECOND} disagree"):
        open_checkpoint(folder)


def test_a_part_is_about_its_own_file(sharded):
    """So that every file can be understood alone."""
    _, folder = sharded
    edit_manifest(folder / FIRST, lambda m: m["modules"].update(second=SECOND_RECORD))
    name, text = refusal(folder)
    assert name == str(folder / FIRST)
    assert text.splitlines() == [
        "the manifest does not match the tensors:",
        "  second.int8_weights: in the manifest, but not in the file",
        "  second.scales: in the manifest, but not in the file",
    ]


def test_a_part_without_a_manifest(sharded):
    _, folder = sharded
    edit_header(folder / SECOND, lambda header: header["__metadata__"].pop("w8a16"))
    name, text = refusal(folder)
    assert name == str(folder / SECOND)
    assert text.startswith("not written by w8a16 (no manifest in the header)")


def test_a_part_of_a_newer_version(sharded):
    _, folder = sharded
    edit_manifest(folder / SECOND, lambda m: json.dumps({"format": "w8a16", "format_version": 4}))
    name, text = refusal(folder)
    assert name == str(folder / SECOND)
    assert text == "written by a newer w8a16 (format 4; this one reads up to 3)"


def test_a_missing_file(sharded):
    _, folder = sharded
    (folder / SECOND).unlink()
    target = Block()
    untouched = Untouched(target)
    with pytest.raises((CheckpointError, ResourceError), match=SECOND):
        w8a16.load(target, folder)
    untouched.check()


def test_a_mismatch_with_the_model_names_the_index(sharded):
    _, folder = sharded
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(nn.Sequential(nn.Linear(32, 64)), folder)
    assert str(caught.value).startswith(f"{folder / INDEX} does not fit Sequential:\n")


def test_wrong_scales_name_their_file(sharded):
    _, folder = sharded
    path = folder / SECOND
    header, data = read_raw(path)
    third = header["second.scales"]["data_offsets"][0] + 8
    write_raw(path, header, data[:third] + struct.pack("<f", -1.0) + data[third + 4 :])
    name, text = refusal(folder)
    assert name == str(path)
    assert text == "second.scales: expected finite positive scales, found -1.0 at [2]"
