"""A scenario that is trained in a moment: three classes of points, and a network of two layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from w8a16.study.scenarios import SIZES, Progress, Schedule, Scores, fit, seeded

WIDTHS = {"small": 32, "medium": 48, "large": 64}


class Interrupted(Exception):
    """What the toy raises in the middle of a study."""


@dataclass
class Toy:
    """Like any scenario; `fails_at` makes the training of one seed fail."""

    name: str = "toy"
    title: str = "Toy"
    modality: str = "tabular"
    task: str = "classification"
    source: str = "random points"
    sizes: tuple[str, ...] = SIZES
    examples: int = 60
    steps: int = 30
    fails_at: int | None = None
    trained: list[tuple[str, int]] = field(default_factory=list)

    def build(self, size: str) -> nn.Module:
        width = WIDTHS[size]
        return nn.Sequential(nn.LayerNorm(32), nn.Linear(32, width), nn.ReLU(), nn.Linear(width, 3)).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        if seed == self.fails_at:
            raise Interrupted
        self.trained.append((size, seed))
        with seeded(seed):
            model = self.build(size)

        def loss(generator: torch.Generator) -> Tensor:
            x, labels = points(32, generator)
            return nn.functional.cross_entropy(model(x), labels)

        return fit(model, loss, Schedule(self.steps, 0.02).shortened(quick, 2), seed, progress)

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        x, labels = points(self.examples, torch.Generator().manual_seed(99))
        values = nn.functional.cross_entropy(model(x.to(dtype)).float(), labels, reduction="none")
        return Scores("cross-entropy", "nats", "lower", values.double())

    def baseline(self, seed: int) -> float:
        return float(torch.tensor(3.0).log())

    def batches(self, count: int, seed: int) -> list[Any]:
        generator = torch.Generator().manual_seed(98)
        return [points(8, generator)[0] for _ in range(count)]


def points(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (count,), generator=generator)
    noise = torch.randn(count, 32, generator=generator)
    return noise + 2 * nn.functional.one_hot(labels, 32), labels
