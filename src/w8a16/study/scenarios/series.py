"""A forecaster of short time series: the loudness of speech in eight bands, a few frames ahead.

The series are made: eSpeak NG speaks, and forty bands of its spectrum are joined to eight. They are
quasi-periodic, abrupt and noisy, as measured series are, but nobody measured them.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.speech import BANDS, phrases
from w8a16.study.scenarios.training import Schedule, fit, seeded

CHANNELS = 8
PAST, AHEAD = 40, 4
"""Frames (of 11.6 ms) that are given and that are asked for."""


class Forecaster(nn.Module):
    """An LSTM over the past and a linear map from its last state to the frames ahead."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(CHANNELS, width, layers, batch_first=True)
        self.head = nn.Linear(width, AHEAD * CHANNELS)

    def forward(self, past: Tensor) -> Tensor:
        """`[n, 40, 8]` to `[n, 4, 8]`: how far each frame ahead is from the last one given."""
        states = self.lstm(past)[0]
        ahead: Tensor = self.head(states[:, -1]).unflatten(1, (AHEAD, CHANNELS))
        return ahead + past[:, -1:]


@cache
def series(held_out: bool) -> tuple[Tensor, Tensor]:
    """All series `[n, frames, 8]`, and how many frames each has `[n]`.

    Raises:
        MissingExtraError: espeakng-loader is not installed.
    """
    data = phrases(held_out)
    return data.features.unflatten(2, (CHANNELS, BANDS // CHANNELS)).mean(3), data.lengths


def windows(picked: Tensor, held_out: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random stretch of each picked series: the past `[n, 40, 8]` and what follows `[n, 4, 8]`."""
    values, lengths = series(held_out)
    room = lengths[picked] - PAST - AHEAD + 1
    starts = (torch.rand(len(picked), generator=generator) * room).long()
    places = starts[:, None] + torch.arange(PAST + AHEAD)
    found = values[picked[:, None], places]
    return found[:, :PAST], found[:, PAST:]


@cache
def held_out_windows() -> tuple[Tensor, Tensor]:
    """One stretch of each of the 300 held-out phrases, always the same."""
    count = len(series(True)[1])
    return windows(torch.arange(count), True, torch.Generator().manual_seed(40))


class TabularSeries:
    """Forty frames of speech to the next four."""

    name = "tabular-series"
    title = "LSTM forecaster"
    modality = "tabular"
    task = "regression"
    source = "loudness in eight bands of phrases spoken by eSpeak NG"
    sizes = SIZES
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=400, learning_rate=5e-3),
            "medium": Schedule(steps=400, learning_rate=4e-3),
            "large": Schedule(steps=400, learning_rate=3e-3),
        }
    )

    def build(self, size: str) -> nn.Module:
        """One layer of width 32 or 64, or two of width 128."""
        width, layers = {"small": (32, 1), "medium": (64, 1), "large": (128, 2)}[size]
        return Forecaster(width, layers).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Minimise the squared error."""
        with seeded(seed):
            model = self.build(size)
        count = len(series(False)[1])

        def loss(generator: torch.Generator) -> Tensor:
            picked = torch.randint(count, (64,), generator=generator)
            past, ahead = windows(picked, False, generator)
            errors: Tensor = model(past) - ahead
            return errors.square().mean()

        return fit(model, loss, self.schedules[size].shortened(quick), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """Each window's squared error as a share of the variance of all frames ahead; 1 is R2 = 0."""
        past, ahead = held_out_windows()
        found = torch.cat([model(part) for part in past.to(dtype).split(50)])
        return Scores("squared error / variance", "", "lower", _relative(found, ahead))

    def baseline(self, seed: int) -> float:
        """The better of two guesses: that nothing changes, and the mean over all held-out frames ahead."""
        past, ahead = held_out_windows()
        guesses = (past[:, -1:].expand_as(ahead), ahead.mean((0, 1)).expand_as(ahead))
        return min(float(_relative(guess, ahead).mean()) for guess in guesses)

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 held-out pasts; from the first again after six."""
        parts = held_out_windows()[0].split(50)
        return [parts[i % len(parts)] for i in range(count)]


def _relative(found: Tensor, ahead: Tensor) -> Tensor:
    errors = (found.double() - ahead.double()).square().mean((1, 2))
    return errors / ahead.double().var(correction=0)
