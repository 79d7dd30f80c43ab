"""Values without a code: named with tensor, count and first index, or kept float; nothing is written."""

import math

import pytest
import torch
from torch import nn

from support.streaming import (
    assert_as_in_memory,
    in_turn,
    skeleton_of,
    stored_state,
    stream,
    tensors_in,
    write_checkpoint,
)
from w8a16.checkpoint import open_checkpoint
from w8a16.checkpoint.skeleton import Piece
from w8a16.checkpoint.streaming import Options, plan_checkpoint
from w8a16.convert import Recipe
from w8a16.errors import CheckpointError, WeightValueError

PROBLEM = "values without an int8 code: "
KEEP = Options(on_nonfinite="keep-float")
HINT = (
    "; nothing was written; on_nonfinite='keep-float' (--on-nonfinite keep-float) leaves such weights as "
    "they are"
)
CUTS = {"one block": None, "blocks": (512, 640), "rows": (160, 160), "parts of rows": (16, 160)}


@pytest.fixture(params=CUTS.items(), ids=CUTS.keys())
def cut(request, cut_small):
    if request.param[1]:
        cut_small(*request.param[1])


def model(**poison):
    """`name=[(index, value), ...]`: values put into the weight of that layer."""
    torch.manual_seed(0)
    built = nn.ModuleDict(
        {
            "rows": nn.Linear(40, 30),
            "columns": nn.ConvTranspose1d(10, 8, 4),
            "grouped": nn.ConvTranspose1d(20, 4, 4, groups=2),
            "short": nn.Linear(40, 30).bfloat16(),
            "wide": nn.Linear(40, 30).double(),
        }
    )
    with torch.no_grad():
        for name, values in poison.items():
            for index, value in values:
                built[name].weight[index] = value
    return built


def written(folder, options=None, shards=1, **poison):
    state = stored_state(model(**poison))
    found = write_checkpoint(state, folder / "float", in_turn(state, shards) if shards > 1 else None)
    return stream(found, skeleton_of(model(**poison)), folder / "int8", options, threads=2)


def refusal(folder, **poison):
    with pytest.raises(WeightValueError) as caught:
        written(folder, shards=3, **poison)
    with pytest.raises(CheckpointError):  # what is there is no checkpoint
        open_checkpoint(folder / "int8")
    return str(caught.value)


@pytest.mark.parametrize(
    "layer, index, value",
    [
        ("rows", (0, 0), math.nan),
        ("rows", (17, 23), math.inf),
        ("rows", (29, 39), -math.inf),
        ("short", (3, 1), math.nan),
        ("wide", (29, 39), math.inf),
        ("columns", (0, 0, 0), -math.inf),
        ("columns", (7, 5, 2), math.nan),
        ("columns", (9, 7, 3), math.inf),
        ("grouped", (19, 1, 3), math.nan),
        ("grouped", (12, 1, 2), -math.inf),
    ],
    ids=str,
)
def test_the_first_index(cut, layer, index, value, tmp_path):
    text = refusal(tmp_path, **{layer: [(index, value)]})
    total = {"columns": 320, "grouped": 160}.get(layer, 1200)
    what = "NaN, Inf or too large for a float32 scale" if layer == "wide" else "NaN or Inf"
    assert text == (
        f"{layer}.weight: values without an int8 code: 1 of {total} values is {what}, the first at "
        f"{list(index)} ({value}){HINT}"
    )


def test_several_in_several_blocks_and_tensors(cut, tmp_path):
    text = refusal(
        tmp_path,
        rows=[((29, 0), math.inf), ((2, 38), math.nan), ((2, 39), math.inf), ((17, 3), -math.inf)],
        columns=[((9, 0, 0), math.nan), ((3, 7, 1), math.inf)],
        wide=[((4, 4), 1e300), ((5, 0), math.nan)],
    )
    assert text == (
        "\n  columns.weight: values without an int8 code: 2 of 320 values are NaN or Inf, the first at "
        "[3, 7, 1] (inf)"
        "\n  rows.weight: values without an int8 code: 4 of 1200 values are NaN or Inf, the first at "
        "[2, 38] (nan)"
        "\n  wide.weight: values without an int8 code: 2 of 1200 values are NaN, Inf or too large for a "
        "float32 scale, the first at [4, 4] (1e+300)" + HINT
    )


def test_all_of_a_tensor(cut, tmp_path):
    text = refusal(tmp_path, short=[(slice(None), math.nan)])
    assert "1200 of 1200 values are NaN or Inf, the first at [0, 0] (nan)" in text


def test_keep_float_keeps_exactly_those(cut, tmp_path):
    poison = {"rows": [((29, 0), math.inf)], "columns": [((3, 7, 1), math.nan)], "wide": [((4, 4), 1e300)]}
    written(tmp_path, KEEP, shards=3, **poison)
    assert_as_in_memory(tmp_path / "int8", model(**poison), KEEP)
    manifest = open_checkpoint(tmp_path / "int8").manifest
    assert manifest.kept_float == dict.fromkeys(["rows.weight", "columns.weight", "wide.weight"], "nonfinite")
    assert manifest.modules.keys() == {"short", "grouped"}


def test_a_bias_and_a_norm_may_hold_anything(cut, tmp_path):
    layer = nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30))
    with torch.no_grad():
        layer[0].bias[3] = layer[1].weight[2] = math.nan
    for options in (None, KEEP):
        folder = tmp_path / str(options is None)
        stream(
            write_checkpoint(stored_state(layer), folder / "float"),
            skeleton_of(nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30))),
            folder / "int8",
            options,
        )
        assert tensors_in(folder / "int8")["0.bias"][3].isnan()


def test_an_excluded_weight_is_not_looked_at(cut, tmp_path):
    written(tmp_path, Options(Recipe(exclude=("rows",))), rows=[((29, 0), math.inf)])
    assert open_checkpoint(tmp_path / "int8").manifest.kept_float == {"rows.weight": "excluded"}


def test_tied_weights_are_kept_together(cut, tmp_path):
    def tied():
        torch.manual_seed(0)
        built = nn.ModuleDict(
            {
                "embedding": nn.Embedding(30, 40),
                "middle": nn.Linear(40, 40, bias=False),
                "head": nn.Linear(40, 30, bias=False),
            }
        )
        built["head"].weight = built["embedding"].weight
        with torch.no_grad():
            built["head"].weight[4, 5] = math.inf
        return built

    names = ("head.weight", "middle.weight")  # the shared one under its later name
    shards = write_checkpoint({name: tied().state_dict()[name] for name in names}, tmp_path / "float")
    skeleton = skeleton_of(tied(), sources={name: (Piece(name),) for name in names})
    stream(shards, skeleton, tmp_path / "int8", KEEP)
    assert_as_in_memory(tmp_path / "int8", tied(), KEEP)
    manifest = open_checkpoint(tmp_path / "int8").manifest
    assert manifest.ties == {"head.weight": "embedding.weight"}
    assert manifest.kept_float == {"embedding.weight": "nonfinite"}


def test_a_stack_of_parts(cut, tmp_path):
    """The index is one of the stored tensor that holds the value."""

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 8, 40))

    stored = {str(i): torch.randn(8, 40) for i in range(3)}
    stored["1"][5, 7] = stored["2"][0, 1] = math.nan
    pieces = {"table": tuple(Piece(str(i), (i, 0, 0)) for i in range(3))}
    shards = write_checkpoint(stored, tmp_path / "float")
    with pytest.raises(WeightValueError) as caught:
        stream(shards, skeleton_of(Stack(), sources=pieces), tmp_path / "int8")
    assert "\n  1: values without an int8 code: 1 of 320 values is NaN or Inf, the first at [5, 7]" in str(
        caught.value
    )
    assert "\n  2: values without" in str(caught.value)
    skeleton = skeleton_of(Stack(), sources=pieces)
    stream(shards, skeleton, tmp_path / "kept", KEEP)
    assert tensors_in(tmp_path / "kept")["table"].shape == (3, 8, 40)


class Two(nn.Module):
    """Two weights whose rows are stored in one tensor."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(8, 40))
        self.second = nn.Parameter(torch.zeros(2, 10, 40))


@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
def test_the_index_in_a_tensor_that_is_used_in_parts(cut, transposed, tmp_path):
    """It counts from the beginning of what is stored, not of the part."""
    stacks = torch.randn(3, 40, 10) if transposed else torch.randn(3, 10, 40)
    stacks[1, 2, 3] = stacks[2, 9, 7] = math.nan
    matrix = torch.randn(28, 40)
    matrix[9, 11] = matrix[20, 1] = math.nan
    tensors = {"stacks": stacks, "matrix": matrix}
    pieces = {
        "first": (Piece("matrix", rows=(20, 28)),),
        "second": (Piece("stacks", (0, 0, 0), transposed, rows=(1, 3)),),
    }
    shards = write_checkpoint(tensors, tmp_path / "float")
    with pytest.raises(WeightValueError) as caught:
        stream(shards, skeleton_of(Two(), sources=pieces), tmp_path / "int8")
    assert "matrix: values without an int8 code: 1 of 1120 values is NaN or Inf, the first at [20, 1]" in str(
        caught.value
    )
    assert (
        "stacks: values without an int8 code: 2 of 1200 values are NaN or Inf, the first at [1, 2, 3]"
        in str(caught.value)
    )


def test_the_plan_says_why_a_weight_is_kept(cut, tmp_path):
    poison = {"rows": [((29, 3), math.inf), ((18, 2), math.nan)], "columns": [((3, 7, 1), math.nan)]}
    shards = write_checkpoint(stored_state(model(**poison)), tmp_path / "float")
    plan = plan_checkpoint(shards, skeleton_of(model(**poison)), KEEP).plan
    assert {row.name: row.sentence for row in plan.rows if row.reason == "nonfinite"} == {
        "rows.weight": f"{PROBLEM}2 of 1200 values are NaN or Inf, the first at [18, 2] (nan)",
        "columns.weight": f"{PROBLEM}1 of 320 values is NaN or Inf, the first at [3, 7, 1] (nan)",
    }


def test_a_computed_weight(tmp_path):
    def build():
        torch.manual_seed(0)
        normed = nn.utils.parametrizations.weight_norm(nn.Linear(40, 30))
        return nn.ModuleDict({"normed": normed, "plain": nn.Linear(40, 30)})

    def poisoned():
        built = build()
        with torch.no_grad():
            built["normed"].parametrizations.weight.original1[3, 4] = math.nan
        return built

    shards = write_checkpoint(stored_state(poisoned()), tmp_path / "float")
    with pytest.raises(WeightValueError, match="NaN or Inf, the first at "):
        stream(shards, skeleton_of(build()), tmp_path / "int8")
    stream(shards, skeleton_of(build()), tmp_path / "kept", KEEP)
    assert_as_in_memory(tmp_path / "kept", poisoned(), KEEP)
