from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from w8a16.errors import MissingExtraError, ResourceError, UsageError
from w8a16.study.scenarios import espeak, scenario_named
from w8a16.study.scenarios.audio import word_errors
from w8a16.study.scenarios.espeak import Utterance, synthesise
from w8a16.study.scenarios.mel import log_mel
from w8a16.study.scenarios.recogniser import Recogniser, frames_after, letters_of, text_of
from w8a16.study.scenarios.speech import WORDS, phrases


def test_the_same_words_give_the_same_samples_and_a_faster_voice_fewer() -> None:
    wanted = [
        Utterance("seven", "en-us+f2", 120),
        Utterance("seven", "en-us+f2", 220),
        Utterance("go", "en+m3"),
    ]
    first, rate = synthesise(wanted)
    again, _ = synthesise(wanted)
    assert rate == 22050
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first[1]) < 0.8 * len(first[0])
    assert all(wave.dtype == torch.int16 and int(wave.abs().max()) > 1000 for wave in first)
    assert synthesise([])[0] == []


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(UsageError, match="no voice 'xx-nowhere'"):
        synthesise([Utterance("yes", "xx-nowhere")])


def test_a_missing_synthesiser_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtraError, match=r"espeakng-loader.*pip install 'w8a16\[study\]'"):
        synthesise([Utterance("yes", "en")])


def test_a_synthesiser_that_dies_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    child.write_text("raise SystemExit('out of breath')\n")
    monkeypatch.setattr(espeak, "_CHILD", child)
    with pytest.raises(ResourceError, match="ended with code 1: out of breath"):
        synthesise([Utterance("yes", "en")])
    child.write_text("""print('{"rate": 22050, "lengths": [5]}')\n""")
    with pytest.raises(ResourceError, match="sent 0 bytes of 10"):
        synthesise([Utterance("yes", "en")])


def test_held_out_phrases_come_from_other_voices() -> None:
    training, held_out = phrases(False), phrases(True)
    assert not set(training.voices) & set(held_out.voices)
    assert len(set(held_out.voices)) == 12
    assert (len(training.texts), len(held_out.texts)) == (1600, 300)
    for data in (training, held_out):
        assert set(" ".join(data.texts).split()) == set(WORDS)
        assert data.features.shape == (len(data.texts), int(data.lengths.max()), 40)
        assert bool(data.features.isfinite().all())
        longest_text = max(len(text) for text in data.texts)
        assert longest_text <= int(frames_after(data.lengths).max()) <= 128


def test_a_tone_is_loudest_in_its_band() -> None:
    time = torch.arange(8000) / 16000
    found = [
        int(log_mel(torch.sin(2 * math.pi * f * time), 16000, 20, 256).mean(0).argmax())
        for f in (300, 1000, 4000)
    ]
    highest = 2595 * math.log10(1 + 8000 / 700)
    expected = [2595 * math.log10(1 + f / 700) / highest * 21 - 1 for f in (300, 1000, 4000)]
    assert all(abs(f - e) <= 1 for f, e in zip(found, expected, strict=True)), (found, expected)


def test_padding_does_not_change_what_is_recognised() -> None:
    torch.manual_seed(0)
    model = Recogniser(40, 32, 2).eval()
    features = torch.randn(1, 61, 40)
    padded = torch.cat([features, torch.zeros(1, 39, 40)], 1)
    lengths = torch.tensor([61])
    with torch.no_grad():
        alone, longer = model(features, lengths), model(padded, lengths)
    assert alone.shape == (1, int(frames_after(lengths)), 28)
    torch.testing.assert_close(longer[:, : alone.shape[1]], alone, rtol=1e-4, atol=1e-4)


def test_letters_survive_the_way_there_and_back() -> None:
    classes = [c for letter in letters_of("three go") for c in (letter, letter, 0)]
    assert text_of(classes) == "three go"


@pytest.mark.parametrize(
    "found, said, errors",
    [
        ("", "a b c", 3),
        ("a b c", "a b c", 0),
        ("a c", "a b c", 1),
        ("a x b c", "a b c", 1),
        ("c b a", "a b c", 2),
    ],
)
def test_word_errors(found: str, said: str, errors: int) -> None:
    assert word_errors(found.split(), said.split()) == errors


def test_saying_the_same_every_time_is_nearly_always_wrong() -> None:
    assert 0.8 < scenario_named("audio-words").baseline(0) < 0.95
