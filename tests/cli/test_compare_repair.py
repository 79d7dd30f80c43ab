"""`w8a16 compare ... --repair`: from a drift that is too large to a recipe, and to a folder that keeps it."""

import json

import pytest
import torch

from support.pairs import write_tokenizer
from w8a16 import Recipe
from w8a16.cli.compare_repair import spared

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.transformers

TINY = {"vocab_size": 64, "n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 32}


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """A GPT-2 in which a few input channels of two layers are far larger than the others."""
    folder = tmp_path_factory.mktemp("gpt2") / "float"
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY)).eval()
    block = model.transformer.h[0]
    with torch.no_grad():
        model.transformer.wte.weight.mul_(20)
        block.mlp.c_fc.weight.mul_(10)[3] *= 40  # a Conv1D: rows are input channels
        block.mlp.c_proj.weight.mul_(10)[5] *= 40
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("the name of this class is a value the type an object is of a class\n" * 4)
    return file


def test_from_drift_to_a_recipe_to_a_folder_that_keeps_the_budget(run, floats, text, tmp_path):
    plain, repaired, recipe = (tmp_path / name for name in ("plain", "repaired", "recipe.json"))
    assert run("quantize", floats, plain, "--exclude", "*.attn.c_proj").code == 0
    before = run("compare", floats, plain, "--text", text, "--json").json["task"]["kl"]["value"]
    budget = f"kl={before / 20:.3g}"
    result = run("compare", floats, plain, "--text", text, "--repair", budget, "--recipe", recipe)
    assert result.code == 0, result.err
    flat = " ".join(result.out.split())
    assert f"next: w8a16 quantize {floats} DST --recipe {recipe}" in flat
    assert "weights to hold better" in flat
    assert "what more bytes buy" in flat
    assert Recipe.load(recipe).exclude[0] == "transformer.h.0.attn.c_proj.weight"
    made = run("quantize", floats, repaired, "--recipe", recipe)
    assert made.code == 0, made.err
    assert run("verify", repaired, "--source", floats).code == 0
    after = run("compare", floats, repaired, "--text", text, "--json").json
    assert 0 < after["task"]["kl"]["value"] <= before / 20
    assert "transformer.h.0.attn.c_proj.weight" in dict(after["kept_float"])


def test_a_recipe_with_groups_of_turned_weights_can_be_followed(run, floats, tmp_path):
    """GPT-2's weights lie with their rows along the columns of the file."""
    recipe, int8 = tmp_path / "recipe.json", tmp_path / "int8"
    Recipe(group_size={"*.c_fc": 32, "*.c_proj": 64}).save(recipe)
    assert run("quantize", floats, int8, "--recipe", recipe).code == 0
    assert run("verify", int8, "--source", floats).code == 0
    assert run("dequantize", int8, tmp_path / "back").code == 0


def test_json_has_the_repair_and_its_file(run, floats, text, tmp_path):
    int8, recipe = tmp_path / "int8", tmp_path / "recipe.json"
    assert run("quantize", floats, int8).code == 0
    asked = ("--text", text, "--repair", "kl=100", "--recipe", recipe, "--json")
    result = run("compare", floats, int8, *asked)
    assert result.code == 0, result.err
    assert all(json.loads(line)["event"] == "progress" for line in result.err.splitlines())
    found = result.json["repair"]
    assert (found["bytes_added"], found["file"]) == (0, str(recipe))
    assert found["value"] == pytest.approx(result.json["task"]["kl"]["value"], rel=1e-3)
    assert Recipe.load(recipe) == Recipe.from_dict(found["recipe"]) == Recipe()
    again = run("compare", floats, int8, *asked)
    assert again.code == 4
    assert "exists already" in again.json["error"]["message"]


def test_a_budget_that_nothing_keeps(run, floats, text, tmp_path):
    int8, recipe = tmp_path / "int8", tmp_path / "recipe.json"
    assert run("quantize", floats, int8).code == 0
    result = run("compare", floats, int8, "--text", text, "--repair", "cosine=1.1", "--recipe", recipe)
    assert result.code == 3
    assert "no recipe reaches cosine at least 1.1" in result.err
    assert "task: language" in result.out  # the comparison is not lost
    assert not recipe.exists()


@pytest.mark.parametrize(
    "options, code, message",
    [
        (("--repair", "kl=1"), 2, "expected --recipe FILE"),
        (("--recipe", "r.json"), 2, "add --repair BUDGET"),
        (("--repair", "kl", "--recipe", "r.json"), 2, "expected a metric and its limit"),
        (("--repair", "kl=1", "--recipe", "no/r.json"), 4, "no such folder"),
    ],
)
def test_what_is_refused_before_the_work(run, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    result = run("compare", "no-float", "no-int8", *options)
    assert (result.code, result.out) == (code, "")
    assert message in " ".join(result.err.split())


def test_only_what_was_spared_by_choice_stays_spared():
    kept = {"a.w[0]": "excluded", "b": "not_included", "c": "vector", "d": "kind_not_asked", "e": "shape"}
    assert spared(kept) == Recipe(exclude=["a.w[[]0]", "b", "d"])
    assert spared({"c": "vector"}) == Recipe()
