import copy

import pytest
from torch import nn

import w8a16
from support.twins import assert_unchanged, snapshot
from w8a16.errors import PatternError
from w8a16.layers import QuantizedModule


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.output = nn.Linear(16, 16), nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(16, 32)
        self.embedding = nn.Embedding(8, 16)


LINEAR = {"blocks.0.query", "blocks.0.output", "blocks.1.query", "blocks.1.output", "lm_head"}
ALL = {*LINEAR, "embedding"}


def converted(**patterns):
    model = w8a16.quantize(Model(), **patterns)
    return {path for path, m in model.named_modules() if isinstance(m, QuantizedModule)}


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("lm_head", {"lm_head"}),
        ("lm_head.weight", {"lm_head"}),
        ("blocks.0", {"blocks.0.query", "blocks.0.output"}),
        ("blocks", LINEAR - {"lm_head"}),
        ("blocks.*.query", {"blocks.0.query", "blocks.1.query"}),
        ("*.query", {"blocks.0.query", "blocks.1.query"}),
        ("blocks.[0]*", {"blocks.0.query", "blocks.0.output"}),
        (Block, LINEAR - {"lm_head"}),
        (nn.Linear, LINEAR),
        (nn.ModuleList, LINEAR - {"lm_head"}),
        (nn.Embedding, {"embedding"}),
        ("e*", {"embedding"}),
        ((nn.Linear, "embedding.weight"), ALL),
        (["lm_head", "blocks.1.*"], {"lm_head", "blocks.1.query", "blocks.1.output"}),
        (("lm_head", Block), LINEAR),
    ],
    ids=str,
)
def test_what_a_pattern_covers(pattern, names):
    assert converted(include=pattern) == names
    assert converted(exclude=pattern) == ALL - names


def test_no_patterns_convert_all():
    assert converted() == ALL
    assert converted(exclude=()) == ALL


def test_exclude_wins():
    assert converted(include="blocks", exclude="*.output") == {"blocks.0.query", "blocks.1.query"}


def test_a_class_above_the_layer_counts_subclasses_included():
    class Special(Block):
        pass

    model = nn.ModuleDict({"plain": Block(), "special": Special()})
    assert {row.reason for row in w8a16.plan(model, exclude=Block).rows} == {"excluded"}
    w8a16.quantize(model, exclude=Special)
    assert type(model["plain"].query) is w8a16.W8A16LinearLayer
    assert type(model["special"].query) is nn.Linear


def test_reasons_in_the_plan():
    rows = w8a16.plan(Model(), include="blocks", exclude="blocks.1").rows
    assert {row.name: row.reason for row in rows} == {
        "blocks.0.query.weight": "converted",
        "blocks.0.output.weight": "converted",
        "blocks.1.query.weight": "excluded",
        "blocks.1.output.weight": "excluded",
        "lm_head.weight": "not_included",
        "embedding.weight": "not_included",
    }


KINDS = {
    "a string": ("linear", LINEAR),
    "a list": (["linear"], LINEAR),
    "a tuple of two": (("linear", "embedding"), ALL),
    "another": ("embedding", {"embedding"}),
    "one that the model does not have": (["experts", "linear"], LINEAR),
    "none": ((), set()),
    "all": (None, ALL),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case):
    kinds, names = KINDS[case]
    assert converted(kinds=kinds) == names
    rows = w8a16.plan(Model(), kinds=kinds).rows
    assert {row.name.removesuffix(".weight") for row in rows if row.verdict == "int8"} == names
    others = [row for row in rows if row.verdict == "float"]
    assert all(row.sentence.endswith(f"asked for: {row.kind}") for row in others)
    assert {row.reason for row in others} <= {"kind_not_asked"}


def test_kinds_and_patterns_together():
    assert converted(kinds="linear", exclude="blocks") == {"lm_head"}
    assert converted(kinds=["linear", "embedding"], include=["e*", "lm_head"]) == {"embedding", "lm_head"}


@pytest.mark.parametrize("kinds", ["linaer", ["linear", "linaer"]])
@pytest.mark.parametrize("verb", [w8a16.plan, w8a16.quantize])
def test_an_unknown_kind_lists_the_known_ones(verb, kinds):
    model = Model()
    before = snapshot(model)
    with pytest.raises(PatternError) as caught:
        verb(model, kinds=kinds)
    known = ", ".join(kind.name for kind in w8a16.layers.KINDS)
    assert known.startswith("linear, transposed_linear, ")
    assert str(caught.value) == f"kinds: expected some of {known}; got 'linaer'"
    assert caught.value.exit_code == 2
    assert_unchanged(model, before)


def test_a_tied_weight_is_spared_where_one_of_its_kinds_was_not_asked_for():
    model = Model()
    model.lm_head.weight = nn.Parameter(model.embedding.weight.repeat(4, 1))
    model.embedding.weight = model.lm_head.weight
    (row,) = (row for row in w8a16.plan(model, kinds="linear").rows if row.aliases)
    assert (row.reason, row.verdict) == ("kind_not_asked", "float")
    w8a16.quantize(model, kinds="linear")
    assert model.lm_head.weight is model.embedding.weight


ERRORS = [
    (
        {"exclude": "lm_haed"},
        "exclude: nothing in the model is named 'lm_haed'; "
        "did you mean lm_head, lm_head.bias, lm_head.weight?",
    ),
    (
        {"include": "zzz"},
        "include: nothing in the model is named 'zzz'; there are blocks, blocks.0, blocks.0.query, "
        "blocks.0.output, blocks.0.norm, blocks.1, blocks.1.query, blocks.1.output, ...",
    ),
    (
        {"include": nn.Conv2d},
        "include: no module is a Conv2d; "
        "the model has Block, Embedding, LayerNorm, Linear, Model, ModuleList",
    ),
    ({"include": "lm_head", "exclude": "lm_head"}, "both included and excluded: 'lm_head'"),
    ({"include": [Block, "lm_head"], "exclude": Block}, "both included and excluded: Block"),
    (
        {"include": "embedding", "kinds": "linear"},
        "include: 'embedding' converts nothing "
        "(embedding.weight: not of the kinds that the caller asked for: embedding)",
    ),
    (
        {"include": ["lm_head", "blocks.0"], "exclude": "blocks"},
        "include: 'blocks.0' converts nothing (blocks.0.query.weight: excluded by the caller; "
        "blocks.0.output.weight: excluded by the caller)",
    ),
    (
        {"include": nn.LayerNorm},
        "include: LayerNorm converts nothing (it has no weight with two dimensions)",
    ),
    (
        {"include": "lm_head.bias"},
        "include: 'lm_head.bias' converts nothing (it has no weight with two dimensions)",
    ),
    ({"include": 3}, "include: expected a name, a glob or a module class, got 3"),
    ({"exclude": ["lm_head", 3]}, "exclude: expected a name, a glob or a module class, got 3"),
    ({"include": [int]}, "include: expected a name, a glob or a module class, got <class 'int'>"),
]


@pytest.mark.parametrize("patterns, text", ERRORS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("verb", [w8a16.plan, w8a16.quantize])
def test_errors(verb, patterns, text):
    model = Model()
    before = snapshot(model)
    with pytest.raises(PatternError) as caught:
        verb(model, **patterns)
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == text
    assert_unchanged(model, before)


def test_patterns_on_a_model_that_is_quantized_already():
    """The names that the plan lists stay valid, so the same call can be repeated."""
    model = w8a16.quantize(Model(), include="lm_head")
    before = snapshot(model)
    for pattern in ("lm_head", "lm_head.weight", w8a16.W8A16LinearLayer):
        assert_unchanged(w8a16.quantize(copy.deepcopy(model), include=pattern), before)
    rows = w8a16.plan(model, exclude="lm_head.weight").rows
    assert {row.name for row in rows if row.verdict == "int8"} == ALL_NAMES


ALL_NAMES = {f"{name}.weight" for name in ALL}


@pytest.mark.parametrize("side", ["blocks.0.query", "blocks.1.query"])
def test_a_tied_weight_is_spared_or_included_with_all_its_names(side):
    model = Model()
    model.blocks[1].query.weight = model.blocks[0].query.weight
    spared = w8a16.quantize(copy.deepcopy(model), exclude=side)
    assert type(spared.blocks[0].query) is type(spared.blocks[1].query) is nn.Linear
    w8a16.quantize(model, include=side)
    assert model.blocks[0].query.int8_weights is model.blocks[1].query.int8_weights
    assert type(model.lm_head) is nn.Linear
