"""Captioned digits: which digit, how large, how turned, how bright and where are said in words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor

from w8a16.study.scenarios.pictures import digits, placed, uniform

SIDE = 24
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHADES = ("pale", "bright")
TURNS = ("tilted left", "upright", "tilted right")
PLACES = ("on the left", "in the middle", "on the right")
_COUNTS = (len(SHADES), len(NUMBERS), len(TURNS), len(PLACES))

CAPTIONS = tuple(
    f"a {shade} {number} {turn} {place}"
    for shade, number, turn, place in product(SHADES, NUMBERS, TURNS, PLACES)
)
"""All 180 of them."""

_WORDS = ("<pad>", "<end>", *sorted({word for caption in CAPTIONS for word in caption.split()}))
VOCABULARY = len(_WORDS)
PAD, END = 0, 1
LENGTH = 1 + max(len(caption.split()) for caption in CAPTIONS)


@cache
def caption_tokens() -> tuple[Tensor, Tensor]:
    """The words of all captions with an end after the last: ids and attention mask, int64 `[180, LENGTH]`."""
    ids = torch.full((len(CAPTIONS), LENGTH), PAD)
    for row, caption in zip(ids, CAPTIONS, strict=True):
        words = [*(_WORDS.index(word) for word in caption.split()), END]
        row[: len(words)] = torch.tensor(words)
    return ids, (ids != PAD).long()


@dataclass(frozen=True)
class Captioned:
    """Pictures `[n, 1, 24, 24]` around 0 and the numbers of their captions `[n]`."""

    pictures: Tensor
    captions: Tensor


def captioned(picked: Tensor, held_out: bool, generator: torch.Generator) -> Captioned:
    """Draw digits as random captions say, with a random part that no caption tells, and noise.

    Args:
        picked: which digits of the part, int64 `[n]`.
        held_out: the part.
        generator: of everything random.
    """
    source = digits(held_out)
    count = len(picked)
    shade, turn, place = (
        torch.randint(size, (count,), generator=generator) for size in (_COUNTS[0], _COUNTS[2], _COUNTS[3])
    )
    angles = 30.0 * (turn - 1) + uniform(-8, 8, (count,), generator)
    zooms = uniform(0.6, 0.75, (count,), generator)
    across = 0.35 * (place - 1) + uniform(-0.1, 0.1, (count,), generator)
    shifts = torch.stack([across, uniform(-0.15, 0.15, (count,), generator)], 1)
    brightness = 0.5 + 0.45 * shade + uniform(-0.2, 0.2, (count,), generator)
    ink = placed(source.images[picked], SIDE, angles, zooms, shifts)
    noise = 0.15 * torch.randn(ink.shape, generator=generator)
    number = source.labels[picked]
    captions = ((shade * _COUNTS[1] + number) * _COUNTS[2] + turn) * _COUNTS[3] + place
    return Captioned(2 * (brightness[:, None, None, None] * ink + noise) - 0.3, captions)


@cache
def held_out_pairs() -> Captioned:
    """Every held-out digit once, always drawn the same way."""
    count = len(digits(True).labels)
    return captioned(torch.arange(count), True, torch.Generator().manual_seed(180))
