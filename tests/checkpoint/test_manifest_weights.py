"""The records of the single weights in the manifest: layouts come back, nonsense is refused."""

import pytest
import torch
from torch import nn

import w8a16
from support.files import Untouched, assert_same_model, edit_manifest, on_meta, refusal, saved_block
from w8a16.checkpoint import open_checkpoint
from w8a16.errors import CheckpointError
from w8a16.layers import Layout


def every_layout():
    tables = nn.ParameterList([torch.randn(2, 3, 16), torch.randn(4, 16)])
    return nn.Sequential(nn.Linear(16, 8), nn.ConvTranspose1d(4, 6, 3, groups=2), tables)


@pytest.mark.parametrize("skeleton", [False, True])
def test_layouts_are_recorded_and_come_back(tmp_path, skeleton):
    model = w8a16.quantize(every_layout())
    manifest = open_checkpoint(w8a16.save(model, tmp_path)).manifest
    assert {path: record.codes for path, record in manifest.modules.items()} == {
        "0": {"weight": (Layout(), (8, 16))},
        "1": {"weight": (Layout(swapped=True, groups=2), (6, 2, 3))},
        "2": {"0": (Layout(lead=2), (2, 3, 16)), "1": (Layout(), (4, 16))},
    }
    loaded = w8a16.load(on_meta(every_layout) if skeleton else every_layout(), tmp_path)
    assert [layer.layouts for layer in loaded] == [layer.layouts for layer in model]
    assert_same_model(loaded, model)
    assert_same_model(w8a16.dequantize(loaded), w8a16.dequantize(model))


WRONG = {
    "shape null": {"shape": None},
    "shape a number": {"shape": 64},
    "shape a text": {"shape": "64"},
    "shape a record": {"shape": {"0": 64, "1": 32}},
    "shape empty": {"shape": []},
    "shape of one": {"shape": [64]},
    "shape endless": {"shape": [float("inf"), 32]},
    "shape of floats": {"shape": [64.0, 32.0]},
    "shape of nulls": {"shape": [None, None]},
    "shape of flags": {"shape": [True, True]},
    "shape nested": {"shape": [[64], [32]]},
    "negative size": {"shape": [64, -32]},
    "negative sizes": {"shape": [-64, -32]},
    "figure a text": {"sqnr_db": "41.9"},
    "figure endless": {"sqnr_db": float("inf")},
    "figure no number": {"largest_error": float("nan")},
    "figure a flag": {"largest_error": True},
    "lead 0": {"lead": 0},
    "lead negative": {"lead": -1},
    "lead 2 of 2": {"lead": 2},
    "lead beyond": {"lead": 7},
    "lead a text": {"lead": "1"},
    "lead a float": {"lead": 1.0},
    "lead a flag": {"lead": True},
    "lead null": {"lead": None},
    "lead a list": {"lead": [1]},
    "swapped a number": {"swapped": 1},
    "swapped a text": {"swapped": "true"},
    "swapped null": {"swapped": None},
    "groups 0": {"groups": 0, "swapped": True},
    "groups negative": {"groups": -2, "swapped": True},
    "groups not dividing": {"groups": 3, "swapped": True},
    "groups without swapped": {"groups": 2},
    "groups of a stack": {"groups": 2, "swapped": True, "lead": 2, "shape": [64, 32, 1]},
    "groups a float": {"groups": 1.0},
    "groups a flag": {"groups": True},
    "unknown field": {"axis": 0},
    "field without a name": {"": 0},
}
"""Changes of the record of `first.weight`, which is `{"shape": [64, 32]}`."""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_record_is_refused(tmp_path, case):
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: weights_of_first(manifest)["weight"].update(WRONG[case]))
    assert refusal(file).startswith("the manifest cannot be understood: ")


def weights_of_first(manifest):
    return manifest["modules"]["first"]["weights"]


def rename(manifest, name):
    weights = weights_of_first(manifest)
    weights[name] = weights.pop("weight")


NOT_UNDERSTOOD = {
    "no weights": lambda m: m["modules"]["first"].pop("weights") and None,
    "weights is empty": lambda m: m["modules"]["first"].update(weights={}),
    "weights is a list": lambda m: m["modules"]["first"].update(weights=["weight"]),
    "weights is a text": lambda m: m["modules"]["first"].update(weights="weight"),
    "weights is null": lambda m: m["modules"]["first"].update(weights=None),
    "weight is null": lambda m: weights_of_first(m).update(weight=None),
    "weight is a shape": lambda m: weights_of_first(m).update(weight=[64, 32]),
    "weight is a text": lambda m: weights_of_first(m).update(weight="shape"),
    "no shape": lambda m: weights_of_first(m).update(weight={"lead": 1}),
    "name is empty": lambda m: rename(m, ""),
    "name has a dot": lambda m: rename(m, "first.weight"),
    "name is a path": lambda m: rename(m, "parametrizations.weight.original"),
}


@pytest.mark.parametrize("case", NOT_UNDERSTOOD)
def test_not_understood(tmp_path, case):
    _, file = saved_block(tmp_path)
    edit_manifest(file, NOT_UNDERSTOOD[case])
    text = refusal(file)
    assert text.startswith("the manifest cannot be understood: ")
    for name, detail in {
        "weights is empty": "a module without weights",
        "name is empty": "weights named ['']",
        "name has a dot": "weights named ['first.weight']",
    }.items():
        assert (detail in text) == (case == name)


def test_the_names_of_wrong_weights_are_escaped(tmp_path):
    _, file = saved_block(tmp_path)
    edit_manifest(file, lambda manifest: rename(manifest, "evil.\x1b[31m"))
    text = refusal(file)
    assert "\x1b" not in text
    assert "evil." in text


def expected(name, dtype, shape, found):
    return f"first.{name}: expected torch.{dtype} {shape}, found torch.{dtype} {found}"


UNTRUE = {
    "shape": (
        {"weight": {"shape": [32, 64]}},
        [
            expected("int8_weights", "int8", [32, 64], [64, 32]),
            expected("scales", "float32", [32], [64]),
        ],
    ),
    "three dimensions": (
        {"weight": {"shape": [64, 32, 1]}},
        [expected("int8_weights", "int8", [64, 32, 1], [64, 32])],
    ),
    "sizes beyond memory": (
        {"weight": {"shape": [2**70, 32]}},
        [
            expected("int8_weights", "int8", [2**70, 32], [64, 32]),
            expected("scales", "float32", [2**70], [64]),
        ],
    ),
    "lead": (
        {"weight": {"shape": [64, 4, 8], "lead": 2}},
        [
            expected("int8_weights", "int8", [64, 4, 8], [64, 32]),
            expected("scales", "float32", [64, 4], [64]),
        ],
    ),
    "another weight": (
        {"table": {"shape": [64, 32]}},
        [
            f"first.{name}: in the manifest, but not in the file"
            for name in ("table_int8_weights", "table_scales")
        ],
    ),
}


@pytest.mark.parametrize("case", UNTRUE)
def test_untrue(tmp_path, case):
    _, file = saved_block(tmp_path)
    change, lines = UNTRUE[case]
    edit_manifest(file, lambda manifest: weights_of_first(manifest).update(change))
    assert refusal(file).splitlines() == [
        "the manifest does not match the tensors:",
        *(f"  {line}" for line in lines),
    ]


@pytest.mark.parametrize("quantized", [False, True])
def test_a_layout_that_the_kind_does_not_have(tmp_path, quantized):
    """The shapes of a square weight fit either way; its rows would be taken for columns."""
    file = w8a16.save(w8a16.quantize(nn.Sequential(nn.Linear(16, 16))), tmp_path)
    edit_manifest(file, lambda m: m["modules"]["0"]["weights"]["weight"].update(swapped=True))
    model = nn.Sequential(nn.Linear(16, 16))
    untouched = Untouched(w8a16.quantize(model) if quantized else model)
    with pytest.raises(CheckpointError) as caught:
        w8a16.load(model, file)
    untouched.check()
    lines = str(caught.value).splitlines()
    assert lines[1:] == ["  0: weight: the weight has another layout in the checkpoint"]
