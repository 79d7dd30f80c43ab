"""A recogniser of spoken phrases; the score is the word error rate on voices that it has never heard."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from w8a16.study.scenarios.recogniser import BLANK, Recogniser, frames_after, letters_of, text_of
from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.speech import BANDS, WORDS_IN_A_PHRASE, Phrases, phrases
from w8a16.study.scenarios.training import Schedule, fit, seeded

_BATCH = 50


class AudioWords:
    """Phrases of three words out of twenty, spelled letter by letter."""

    name = "audio-words"
    title = "Speech recogniser"
    modality = "audio"
    task = "ctc"
    source = "phrases spoken by eSpeak NG in 52 voices at varied rate and pitch, with white noise"
    sizes = SIZES
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=600, learning_rate=3e-3),
            "medium": Schedule(steps=600, learning_rate=2e-3),
            "large": Schedule(steps=500, learning_rate=1.5e-3),
        }
    )

    def build(self, size: str) -> nn.Module:
        """Two or three layers of width 64, 96 or 128."""
        width, layers = {"small": (64, 2), "medium": (96, 3), "large": (128, 3)}[size]
        return Recogniser(BANDS, width, layers).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Minimise the CTC loss of the letters, with bands and stretches of time hidden at random."""
        with seeded(seed):
            model = self.build(size)
        data = phrases(False)
        targets = [torch.tensor(letters_of(text)) for text in data.texts]

        def loss(generator: torch.Generator) -> Tensor:
            picked = torch.randint(len(targets), (32,), generator=generator)
            lengths = data.lengths[picked]
            features = data.features[picked, : int(lengths.max())] * _mask(data, picked, generator)
            return _ctc(model(features, lengths), lengths, [targets[i] for i in picked.tolist()]).mean()

        return fit(model, loss, self.schedules[size].shortened(quick), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """Word errors of each of the 300 held-out phrases, as a share of its three words."""
        errors = []
        texts = phrases(True).texts
        for number, (features, lengths) in enumerate(self._held_out()):
            classes = model(features.to(dtype), lengths).float().argmax(-1)
            said = texts[number * _BATCH : (number + 1) * _BATCH]
            for row, frames, text in zip(classes.tolist(), frames_after(lengths).tolist(), said, strict=True):
                errors.append(word_errors(text_of(row[:frames]).split(), text.split()) / WORDS_IN_A_PHRASE)
        return Scores("word error rate", "", "lower", torch.tensor(errors, dtype=torch.float64))

    def baseline(self, seed: int) -> float:
        """The same three words every time, the most frequent one of each place in the held-out phrases."""
        columns = list(zip(*(text.split() for text in phrases(True).texts), strict=True))
        best = [max(column.count(word) for word in column) / len(column) for column in columns]
        return 1 - sum(best) / len(best)

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 held-out phrases: spectrograms and their lengths; from the first again after six."""
        parts = self._held_out()
        return [parts[i % len(parts)] for i in range(count)]

    def _held_out(self) -> list[tuple[Tensor, Tensor]]:
        data = phrases(True)
        parts = zip(data.features.split(_BATCH), data.lengths.split(_BATCH), strict=True)
        return [(features[:, : int(lengths.max())], lengths) for features, lengths in parts]


def word_errors(found: list[str], said: list[str]) -> int:
    """Words to insert, delete or exchange until one list is the other (Levenshtein).

    Example:
        >>> word_errors(["no", "stop"], ["go", "on", "stop"])
        2
    """
    row = list(range(len(said) + 1))
    for i, word in enumerate(found, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def _ctc(logits: Tensor, lengths: Tensor, targets: list[Tensor]) -> Tensor:
    """The loss of each phrase, in nats a letter, `[n]`."""
    letters = torch.tensor([len(t) for t in targets])
    log_probabilities = F.log_softmax(logits.float(), -1).transpose(0, 1)
    losses = F.ctc_loss(
        log_probabilities,
        torch.cat(targets),
        frames_after(lengths),
        letters,
        BLANK,
        "none",
        zero_infinity=True,
    )
    return losses / letters


def _mask(data: Phrases, picked: Tensor, generator: torch.Generator) -> Tensor:
    """0 over up to eight bands and ten frames of each phrase, else 1 (SpecAugment, Park et al., 2019)."""
    count, frames = len(picked), int(data.lengths[picked].max())
    return (
        _stripes(count, BANDS, 8, generator)[:, None, :] * _stripes(count, frames, 10, generator)[:, :, None]
    )


def _stripes(count: int, size: int, widest: int, generator: torch.Generator) -> Tensor:
    starts = torch.randint(size, (count, 1), generator=generator)
    widths = torch.randint(widest + 1, (count, 1), generator=generator)
    places = torch.arange(size)
    return ((places < starts) | (places >= starts + widths)).float()
