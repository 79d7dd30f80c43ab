"""Repair end to end: budgets kept on the real int8 model, few bytes spent, and what is refused."""

import copy
import json
import math
import weakref

import pytest
import torch
from torch import nn

import w8a16
from w8a16.convert import Recipe, quantize
from w8a16.errors import BudgetError, ComparisonError, ModuleError, UsageError, WeightValueError
from w8a16.study.repair import Budget, repair, workbench, write_repair
from w8a16.study.variants import inject_tails


class Block(nn.Module):
    """A pre-norm transformer block, written out."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.o(torch.softmax(self.q(h) @ self.k(h).mT, -1) @ self.v(h))
        return x + self.down(torch.relu(self.up(self.norm2(x))))


def heavy_tailed(width, layers):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block(width) for _ in range(layers)), nn.Linear(width, 50)).eval()
    inputs = [torch.randn(4, 8, width) for _ in range(2)]
    inject_tails(model, inputs[0])
    return model, inputs


def small():
    return heavy_tailed(64, 1)


@torch.no_grad()
def sqnr(model, quantized, inputs):
    """Written anew: signal over noise of all batches, in decibels."""
    noise = sum(float((model(x).double() - quantized(x).double()).square().sum()) for x in inputs)
    signal = sum(float(model(x).double().square().sum()) for x in inputs)
    return 10 * math.log10(signal / noise) if noise else math.inf


def follow(model, recipe):
    return quantize(copy.deepcopy(model), recipe=recipe)


def test_a_heavy_tailed_model_is_repaired_for_less_than_five_percent():
    model, inputs = heavy_tailed(256, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = repair(model, inputs, Budget("sqnr_db", 40))
    plain = follow(model, None)
    assert sqnr(model, plain, inputs) == pytest.approx(found.value_before)
    assert found.value_before < 30
    repaired = follow(model, found.recipe)
    assert sqnr(model, repaired, inputs) == pytest.approx(found.value)
    assert found.value >= 40
    assert 0 < found.share_added <= 0.05
    assert found.bytes_added == sum(choice.bytes_added for choice in found.choices)
    assert found.bytes_added == stored_bytes(repaired) - stored_bytes(plain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def stored_bytes(model):
    return sum(t.numel() * t.element_size() for t in (*model.buffers(), *model.parameters()))


def test_the_report_is_measured_and_says_why():
    model, inputs = small()
    found = repair(model, inputs, Budget("sqnr_db", 40))
    assert len(found.choices) == 7
    assert sum(choice.share for choice in found.choices) == pytest.approx(1)
    upgraded = [choice for choice in found.choices if choice.held != "int8"]
    assert upgraded
    assert all("% of the drift; leaves " in choice.reason for choice in upgraded if choice.held != "float")
    prices = [point.bytes_added for point in found.curve]
    assert prices == sorted(prices)
    assert len(found.curve) > 8
    assert [point.real for point in found.curve].count(True) >= 2
    last = [p for p in found.curve if p.real and p.bytes_added == found.bytes_added]
    assert [point.value for point in last] == [found.value]
    values = [point.value for point in found.frontier]
    assert values == sorted(values)
    assert values[0] == found.value_before
    text = str(found)
    assert "sqnr_db at least 40: plain int8 has" in text
    assert "1 outlier a row" in text
    assert f"of {len(found.choices)} weights stay plain int8" in text


def test_each_point_of_the_curve_is_what_its_configuration_gives():
    """The simulation and the real int8 model agree where both were measured."""
    model, inputs = small()
    found = repair(model, inputs, Budget("sqnr_db", 38))
    simulated = {p.bytes_added: p.value for p in found.curve if not p.real}
    pairs = [(p.value, simulated[p.bytes_added]) for p in found.frontier if p.real]
    pairs += [(found.value, v) for b, v in simulated.items() if b == found.bytes_added]
    assert pairs
    assert all(min(abs(a - b) for b in simulated.values()) < 0.01 for a, _ in pairs)


@pytest.mark.parametrize(
    "budget, upgrades",
    [
        (Budget("kl", 1e-6), ("outliers", "groups", "float")),
        (Budget("cosine", 0.9999), ("outliers",)),
        (Budget("top1", 0.99), ("outliers", "float")),
        (Budget("sqnr_db", 35), ("groups", "float")),
        (Budget("sqnr_db", 35), "float"),
    ],
)
@torch.no_grad()
def test_every_measure_and_every_set_of_upgrades(budget, upgrades):
    model, inputs = small()
    found = repair(model, inputs, budget, upgrades=upgrades)
    quantized = follow(model, found.recipe)
    ours = torch.cat([model(x).double().flatten(0, 1) for x in inputs])
    theirs = torch.cat([quantized(x).double().flatten(0, 1) for x in inputs])
    p, q = ours.softmax(-1), theirs.softmax(-1)
    anew = {
        "kl": float((p * (p / q).log()).sum(-1).mean()),
        "cosine": float(torch.cosine_similarity(ours, theirs).mean()),
        "top1": float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
        "sqnr_db": sqnr(model, quantized, inputs),
    }
    assert found.value == pytest.approx(anew[budget.metric], rel=1e-9, abs=1e-12)
    assert found.value <= budget.limit if budget.metric == "kl" else found.value >= budget.limit
    assert found.value_before != found.value
    kinds = {choice.held.split()[-1] for choice in found.choices} - {"int8"}
    allowed = {"outliers": {"row"}, "groups": {"64", "32", "128"}, "float": {"float"}}
    names = [upgrades] if isinstance(upgrades, str) else upgrades
    assert kinds <= set().union(*(allowed[name] for name in names))


def test_a_budget_that_is_kept_already_costs_nothing():
    model, inputs = small()
    found = repair(model, inputs, Budget("sqnr_db", 5))
    assert found.recipe == Recipe()
    assert (found.bytes_added, len(found.curve)) == (0, 1)
    assert found.value == found.value_before > 5
    assert {choice.held for choice in found.choices} == {"int8"}
    assert "7 of 7 weights stay plain int8" in str(found)


def test_a_budget_of_nothing_at_all_leaves_everything_float():
    model, inputs = small()
    found = repair(model, inputs, Budget("kl", 0.0))
    assert found.value == 0
    assert {choice.held for choice in found.choices} == {"float"}
    assert w8a16.plan(model, recipe=found.recipe).coverage == 0


def test_what_cannot_be_bought_is_refused_with_the_best_that_was_reached():
    model, inputs = small()
    with pytest.raises(
        BudgetError, match=r"no recipe reaches kl at most -1; the best had 0 for \d+ more bytes"
    ):
        repair(model, inputs, Budget("kl", -1))
    with pytest.raises(BudgetError, match=r"sqnr_db at least 90; the best had (\d+).* allow upgrades="):
        repair(model, inputs, Budget("sqnr_db", 90), upgrades=("outliers", "groups"))


def test_a_score_of_the_callers_own():
    model, inputs = small()
    with torch.no_grad():
        targets = [model(x) for x in inputs]
    asked = []

    def loss(candidate):
        asked.append(type(candidate))
        return max(float((candidate(x) - t).abs().max()) for x, t in zip(inputs, targets, strict=True))

    found = repair(model, inputs, Budget(loss, 0.02))
    assert found.metric == "loss"
    assert found.value <= 0.02 < found.value_before
    with torch.no_grad():
        assert loss(follow(model, found.recipe)) == found.value
    assert len(asked) > 10


def test_a_figure_of_a_task():
    model, inputs = small()
    found = repair(model, inputs, Budget("largest_difference", 0.02), task="any")
    repaired = follow(model, found.recipe)
    with torch.no_grad():
        largest = max(float((model(x) - repaired(x)).abs().max()) for x in inputs)
    assert found.value == pytest.approx(largest)
    assert found.value <= 0.02 < found.value_before


def test_twice_the_same():
    model, inputs = small()
    first = repair(model, inputs, Budget("sqnr_db", 38))
    torch.manual_seed(99)
    assert repair(model, inputs, Budget("sqnr_db", 38)).to_dict() == first.to_dict()


def test_one_copy_of_the_model_at_a_time(monkeypatch):
    model, inputs = small()
    copies = []

    def deepcopy(value):
        assert not any(alive() is not None for alive in copies)
        result = copy.deepcopy(value)
        copies.append(weakref.ref(result))
        return result

    monkeypatch.setattr(workbench, "copy", type("copy", (), {"deepcopy": staticmethod(deepcopy)}))
    repair(model, inputs, Budget("sqnr_db", 38))
    assert len(copies) >= 2


def test_progress_goes_on():
    model, inputs = small()
    seen = []
    repair(model, inputs, Budget("sqnr_db", 38), progress=lambda *step: seen.append(step))
    weights = [step for step in seen if step[0] == "weights"]
    assert weights == [("weights", n, 7) for n in range(1, 8)]
    assert [done for what, done, _ in seen if what == "search"] == list(range(1, len(seen) - 6))
    assert all(done <= total for _, done, total in seen)


def test_it_is_written_as_quantize_takes_it(tmp_path):
    model, inputs = small()
    found = repair(model, inputs, Budget("sqnr_db", 38))
    write_repair(found, tmp_path / "recipe.json", tmp_path / "curve.json")
    recipe = Recipe.load(tmp_path / "recipe.json")
    assert sqnr(model, follow(model, recipe), inputs) == pytest.approx(found.value)
    data = json.loads((tmp_path / "curve.json").read_text())
    assert data["value"] == found.value
    assert len(data["curve"]) == len(found.curve)
    assert data["share_added"] == found.share_added


def test_it_adds_to_a_recipe_that_selects():
    model, inputs = small()
    start = Recipe(exclude="0.o", kinds="linear")
    found = repair(model, inputs, Budget("sqnr_db", 38), recipe=start)
    assert [choice.name for choice in found.choices].count("0.o.weight") == 0
    assert len(found.choices) == 6
    assert found.recipe.exclude[0] == "0.o"
    assert found.recipe.kinds == "linear"
    assert sqnr(model, follow(model, start), inputs) == pytest.approx(found.value_before)
    assert sqnr(model, follow(model, found.recipe), inputs) == pytest.approx(found.value)
    plans = [w8a16.plan(model, recipe=recipe).bytes_after for recipe in (start, found.recipe)]
    assert plans == [found.bytes_before, found.bytes_after]
    assert repair(model, inputs, Budget("sqnr_db", 5), recipe=start).recipe == start


def test_infinite_values_are_strings_in_json():
    model, inputs = small()
    found = repair(model, inputs, Budget("sqnr_db", 200))
    assert found.value == math.inf
    assert found.to_dict()["value"] == "inf"
    json.dumps(found.to_dict(), allow_nan=False)


def test_bad_input_is_refused():
    model, inputs = small()
    kl = Budget("kl", 0.1)
    with pytest.raises(UsageError, match="expected at least one batch, got none"):
        repair(model, [], kl)
    with pytest.raises(UsageError, match="expected an iterable of batches, got one Tensor"):
        repair(model, inputs[0], kl)
    with pytest.raises(UsageError, match="batch 0 is empty"):
        repair(model, [torch.zeros(0, 8, 64)], kl)
    with pytest.raises(ComparisonError, match="cannot take batch 0"):
        repair(model, [torch.zeros(2, 8, 63)], kl)
    with pytest.raises(ComparisonError, match="NaN or Inf"):
        repair(model, [inputs[0] * math.inf], kl)
    with pytest.raises(
        UsageError, match="expected one of kl, cosine, sqnr_db, top1; got 'bleu'; pass a task"
    ):
        repair(model, inputs, Budget("bleu", 0.1))
    with pytest.raises(
        UsageError, match=r"one of kl, cosine, sqnr_db, top1, .*largest_difference; got 'bleu'$"
    ):
        repair(model, inputs, Budget("bleu", 0.1), task="any")
    with pytest.raises(UsageError, match=r"some of outliers, groups, float; got outlier$"):
        repair(model, inputs, kl, upgrades=("outlier",))
    with pytest.raises(UsageError, match="some of outliers, groups, float; got none"):
        repair(model, inputs, kl, upgrades=())
    with pytest.raises(UsageError, match=r"only selects weights, got one that holds 0.q finer"):
        repair(model, inputs, kl, recipe=Recipe(outliers={"0.q": 4}))
    with pytest.raises(ModuleError, match="no weight of this model would become int8"):
        repair(nn.LayerNorm(64), inputs, kl)
    with pytest.raises(ComparisonError, match="expected a float tensor among the model's outputs"):
        repair(Labels(), inputs, kl)
    with torch.no_grad():
        model[0].q.weight[0, 0] = math.nan
    with pytest.raises(WeightValueError, match=r"0.q.weight: .*nan"):
        repair(model, inputs, kl)


class Labels(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 8)

    def forward(self, x):
        return self.layer(x).argmax(-1)
