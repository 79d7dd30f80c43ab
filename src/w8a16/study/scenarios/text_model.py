"""What the two language models have in common: the text, the training, bits per byte on held-out blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.text_data import (
    bits_per_byte,
    documentation,
    pair_frequencies,
    random_blocks,
    spread_blocks,
)
from w8a16.study.scenarios.training import Schedule, fit, seeded

_BLOCKS = 64  # held-out blocks that score a model
_BATCH = 8


class LanguageModel(ABC):
    """A byte-level language model of Python's documentation."""

    modality = "text"
    task = "language"
    source = (
        "the topics of Python's help(), as bytes; every seventh topic is held out, and its paragraphs removed"
    )
    sizes: tuple[str, ...] = SIZES
    schedules: ClassVar[dict[str, Schedule]]
    length: ClassVar[int]
    """Bytes of a block."""

    @abstractmethod
    def build(self, size: str) -> nn.Module:
        """The model of this size, with random weights, in evaluation mode."""

    @abstractmethod
    def logits(self, model: nn.Module, blocks: Tensor) -> Tensor:
        """The logits of the next byte, `[blocks, length, 256]`."""

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Cross-entropy of the next byte over random blocks of the text."""
        text, _ = documentation()
        with seeded(seed):
            model = self.build(size)

        def loss(generator: torch.Generator) -> Tensor:
            blocks = random_blocks(text, _BATCH, self.length, generator)
            logits = self.logits(model, blocks)
            return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), blocks[:, 1:].flatten())

        return fit(model, loss, self.schedules[size].shortened(quick), seed, progress)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """Bits per byte of each held-out block; the same blocks for every seed."""
        blocks = spread_blocks(documentation()[1], _BLOCKS, self.length)
        values = [bits_per_byte(self.logits(model, part), part) for part in blocks.split(16)]
        return Scores("cross-entropy", "bits per byte", "lower", torch.cat(values))

    def baseline(self, seed: int) -> float:
        """Bits per byte of the frequencies of pairs of bytes in the training text."""
        text, held_out = documentation()
        blocks = spread_blocks(held_out, _BLOCKS, self.length)
        return float(bits_per_byte(pair_frequencies(text)[blocks], blocks).mean())

    def batches(self, count: int, seed: int) -> list[Any]:
        """Held-out blocks, four to a batch."""
        return list(spread_blocks(documentation()[1], 4 * count, self.length).split(4))
