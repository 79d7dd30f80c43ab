"""Spoken phrases of three words, with noise: many voices for training, others held out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from w8a16.study.scenarios.espeak import Utterance, synthesise
from w8a16.study.scenarios.mel import log_mel

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go",
)  # fmt: skip
WORDS_IN_A_PHRASE = 3
BANDS = 40
_HOP = 256  # 11.6 ms

_TRAINING_VOICES = tuple(
    f"{language}+{variant}"
    for language in ("en-us", "en", "en-gb-scotland", "en-gb-x-rp")
    for variant in ("m1", "m2", "m3", "m4", "f1", "f2", "f3", "Annie", "max", "klatt2")
)
_HELD_OUT_VOICES = tuple(
    f"{language}+{variant}"
    for language in ("en-us", "en")
    for variant in ("m5", "m7", "f4", "f5", "belinda", "klatt4")
)
_TRAINING_PHRASES, _HELD_OUT_PHRASES = 1600, 300


@dataclass(frozen=True)
class Phrases:
    """Features `[n, frames, bands]` padded with 0, true lengths `[n]`, what is said, and by whom."""

    features: Tensor
    lengths: Tensor
    texts: tuple[str, ...]
    voices: tuple[str, ...]


@cache
def phrases(held_out: bool) -> Phrases:
    """1600 phrases for training or 300 by held-out voices, the same at every call.

    The samples are scaled to the same loudness, white noise of 5 to 25 dB less is added, and each band
    is normalised by its mean and deviation over the phrase.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
    """
    count, voices = (
        (_HELD_OUT_PHRASES, _HELD_OUT_VOICES) if held_out else (_TRAINING_PHRASES, _TRAINING_VOICES)
    )
    draw = random.Random(int(held_out))
    wanted = []
    for _ in range(count):
        text = " ".join(draw.choices(WORDS, k=WORDS_IN_A_PHRASE))
        wanted.append(Utterance(text, draw.choice(voices), draw.randint(130, 190), draw.randint(20, 80)))
    waves, rate = synthesise(wanted)
    generator = torch.Generator().manual_seed(int(held_out))
    features = [_features(wave, rate, generator) for wave in waves]
    lengths = torch.tensor([len(f) for f in features])
    texts, spoken_by = tuple(u.text for u in wanted), tuple(u.voice for u in wanted)
    return Phrases(pad_sequence(features, batch_first=True), lengths, texts, spoken_by)


def _features(wave: Tensor, rate: int, generator: torch.Generator) -> Tensor:
    clean = wave.float()
    clean = clean / clean.square().mean().sqrt()
    decibels = -5 - 20 * torch.rand(1, generator=generator)
    noisy = clean + 10 ** (decibels / 20) * torch.randn(len(clean), generator=generator)
    found = log_mel(noisy, rate, BANDS, _HOP)
    return (found - found.mean(0)) / (found.std(0) + 1e-3)
