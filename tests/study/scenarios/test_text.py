"""The three text models: their data, a few steps of training, and the whole of it behind the slow marker."""

from __future__ import annotations

import math

import pytest
import torch

import w8a16
from w8a16.study.scenarios import scenario_named, text_embedding
from w8a16.study.scenarios.docstrings import question_answer_pairs
from w8a16.study.scenarios.text_data import (
    bits_per_byte,
    documentation,
    pair_frequencies,
    random_blocks,
    spread_blocks,
)
from w8a16.study.scenarios.training import Schedule

NAMES = ("text-embedding", "text-gpt", "text-gru")


def ignore(done: int, total: int) -> None:
    """No progress."""


@torch.no_grad()
def outputs(model, batch):
    found = model(**batch) if isinstance(batch, dict) else model(batch)
    return found if isinstance(found, torch.Tensor) else found.logits


def few_steps(name, monkeypatch):
    scenario = scenario_named(name)
    if name == "text-embedding":
        monkeypatch.setattr(text_embedding, "_PAIRS", 20)
    else:
        schedules = {size: Schedule(4, 1e-3) for size in scenario.sizes}
        monkeypatch.setattr(type(scenario), "schedules", schedules)
    return scenario


def test_the_held_out_text_shares_no_paragraph_with_the_rest():
    text, held_out = documentation()
    assert len(text) > 200_000
    assert 30_000 < len(held_out) < len(text) / 2
    pages = [bytes(part.tolist()).decode() for part in (text, held_out)]
    known, asked = (set(page.split("\n\n")) for page in pages)
    assert not known & asked
    assert len(asked) > 100


def test_bits_per_byte_of_a_uniform_guess_is_eight():
    blocks = torch.randint(256, (3, 10), generator=torch.Generator().manual_seed(0))
    assert bits_per_byte(torch.zeros(3, 10, 256), blocks).tolist() == pytest.approx([8.0] * 3)
    sure = torch.nn.functional.one_hot(blocks.roll(-1, dims=1), 256) * 100.0
    assert bits_per_byte(sure, blocks).max() < 1e-6


def test_pair_frequencies_are_probabilities_and_find_the_usual_neighbour():
    table = pair_frequencies(documentation()[0]).exp()
    assert torch.allclose(table.sum(-1), torch.ones(256, dtype=torch.float64))
    assert chr(int(table[ord("q")].argmax())) == "u"


def test_blocks_come_from_the_text():
    text = torch.arange(1000)
    drawn = random_blocks(text, 5, 7, torch.Generator().manual_seed(0))
    assert torch.equal(drawn - drawn[:, :1], torch.arange(7).expand(5, 7))
    with pytest.raises(ValueError, match="expected at least 3 x 7 bytes of text, got 20"):
        spread_blocks(torch.arange(20), 3, 7)


def test_questions_do_not_contain_their_answers():
    pairs = question_answer_pairs()
    assert len(pairs) >= 300
    assert len({question for question, _ in pairs}) == len({answer for _, answer in pairs}) == len(pairs)
    assert not any(answer in question or question in answer for question, answer in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_model_scores_and_inputs(name, monkeypatch):
    scenario = few_steps(name, monkeypatch)
    first, again = (scenario.train("small", 1, True, ignore) for _ in range(2))
    for (key, one), two in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), key
    scores = scenario.evaluate(first, 1, torch.float32)
    assert torch.equal(scores.values, scenario.evaluate(again, 1, torch.float32).values)
    assert not first.training
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}
    assert len(scores.values) == (20 if name == "text-embedding" else 64)
    other = scenario.evaluate(first, 2, torch.float32)
    assert len(other.values) == len(scores.values)
    assert torch.equal(other.values, scores.values) == (name != "text-embedding")


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_int8_and_in_half_precision(name, monkeypatch):
    scenario = few_steps(name, monkeypatch)
    model = scenario.train("small", 0, True, ignore)
    (batch,) = scenario.batches(1, 0)
    before, answered = scenario.evaluate(model, 0, torch.float32), outputs(model, batch)
    w8a16.quantize(model.bfloat16(), strict=True)
    after, now = scenario.evaluate(model, 0, torch.bfloat16), outputs(model, batch)
    assert after.mean == pytest.approx(before.mean, rel=0.1)
    assert now.shape == answered.shape
    assert 0 < float((now.float() - answered).norm() / answered.norm()) < 0.1


def test_the_pretrained_encoder_beats_counting_common_words():
    scenario = scenario_named("text-embedding")
    scores = scenario.evaluate(scenario.train("large", 0, False, ignore), 0, torch.float32)
    assert scores.mean > 1.5 * scenario.baseline(0) > 0.1
    assert 0 < float(scores.values.min()) <= float(scores.values.max()) <= 1


def test_the_seeds_of_the_encoder_share_no_text():
    scenario = scenario_named("text-embedding")
    texts = [
        {tuple(row) for b in scenario.batches(16, seed) for row in b["input_ids"].tolist()}
        for seed in (0, 1, 2)
    ]
    assert all(len(each) == 64 for each in texts)
    assert len(texts[0] | texts[1] | texts[2]) == 192


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "medium", "large"])
@pytest.mark.parametrize("name", ["text-gpt", "text-gru"])
def test_a_trained_model_beats_the_frequencies_of_pairs(name, size):
    scenario = scenario_named(name)
    model = scenario.train(size, 0, False, ignore)
    score = scenario.evaluate(model, 0, torch.float32).mean
    assert 1 < score < scenario.baseline(0) - 0.5 < math.log2(256)
