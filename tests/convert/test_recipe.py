"""Recipes: stored as JSON, read strictly, and the same as the separate arguments."""

import json

import pytest
import torch
from torch import nn

import w8a16
from w8a16 import Recipe
from w8a16.errors import UsageError


def test_a_file_holds_the_whole_recipe(tmp_path):
    recipe = Recipe(["a.*"], "b", ["linear"], {"a.0": 128}, {"a.1": 4})
    recipe.save(tmp_path / "recipe.json")
    loaded = Recipe.load(tmp_path / "recipe.json")
    assert loaded == Recipe(["a.*"], ["b"], ["linear"], {"a.0": 128}, {"a.1": 4})
    assert json.loads((tmp_path / "recipe.json").read_text()) == loaded.to_dict()


def test_the_same_as_the_separate_arguments():
    def build():
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(64, 32), nn.Linear(32, 64), nn.Linear(64, 32))

    rules = {"include": ["0", "[12]"], "exclude": "2", "kinds": ["embedding", "linear"]}
    one, other = w8a16.quantize(build(), **rules), w8a16.quantize(build(), recipe=Recipe(**rules))
    assert [type(layer) for layer in one] == [type(layer) for layer in other]
    assert w8a16.plan(build(), **rules) == w8a16.plan(build(), recipe=Recipe(**rules))


def test_both_at_once_are_refused():
    with pytest.raises(UsageError, match="got both"):
        w8a16.quantize(nn.Linear(64, 64), exclude="x", recipe=Recipe())
    with pytest.raises(UsageError, match=r"expected a w8a16\.Recipe, got dict"):
        w8a16.plan(nn.Linear(64, 64), recipe={})


@pytest.mark.parametrize("number", [0, -4, True, 2.0, "128"])
def test_numbers_are_positive(number):
    with pytest.raises(UsageError, match="expected a positive number for 'a', got"):
        Recipe(group_size={"a": number})


def test_a_class_cannot_be_stored():
    with pytest.raises(UsageError, match="the class Linear cannot be stored"):
        Recipe(exclude=nn.Linear).to_dict()


@pytest.mark.parametrize(
    "text, reason",
    [
        ("[]", 'expected a recipe ("format": "w8a16-recipe"), got []'),
        ("{", "Expecting property name"),
        ('{"format": "w8a16-recipe", "format_version": 2}', "expected a recipe of format 1, got 2"),
        ('{"format": "w8a16-recipe", "format_version": 1, "grups": {}}', "unknown in a recipe: grups"),
        ('{"format": "w8a16-recipe", "format_version": 1, "exclude": "a"}', "expected a JSON array"),
        (
            '{"format": "w8a16-recipe", "format_version": 1, "outliers": {"a": -1}}',
            "a positive number",
        ),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_path(tmp_path, text, reason):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        Recipe.load(tmp_path / "r.json")
    assert reason in str(caught.value)
    assert "r.json" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        Recipe.load(tmp_path / "nothing.json")
