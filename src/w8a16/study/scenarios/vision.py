"""Two image classifiers, a vision transformer and a residual network: digits written over photographs.

A digit is turned, scaled and shifted at random, and its ink shifts the colours of a crop of a
photograph by a random amount in each channel: neither brightness nor colour tells digit from ground.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from w8a16.errors import MissingExtraError
from w8a16.study.scenarios.pictures import crops, digits, placed, uniform
from w8a16.study.scenarios.resnet import ResNet
from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.training import Schedule, fit, seeded

SIDE = 16
"""Pixels of a picture's side."""
CLASSES = 10
_BATCH = 50
_MEAN, _DEVIATION = 0.35, 0.22


def digits_on_photographs(
    picked: Tensor, held_out: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw digits over crops.

    Args:
        picked: which digits of the part, int64 `[n]`.
        held_out: the part to take digits and crops from.
        generator: of place, colours and ground.

    Returns:
        Normalised pictures `[n, 3, 16, 16]` and labels `[n]`.
    """
    source = digits(held_out)
    count = len(picked)
    angles, zooms = uniform(-15, 15, (count,), generator), uniform(0.8, 1.1, (count,), generator)
    shifts = uniform(-0.15, 0.15, (count, 2), generator)
    ink = placed(source.images[picked], SIDE, angles, zooms, shifts)
    strength = uniform(0.2, 0.7, (count, 3, 1, 1), generator)
    ground = crops(count, SIDE, held_out, generator)
    pictures = (0.5 * ground + strength * ink - _MEAN) / _DEVIATION
    return pictures, source.labels[picked]


@cache
def held_out_pictures() -> tuple[Tensor, Tensor]:
    """Every held-out digit once, always in the same place on the same ground."""
    count = len(digits(True).labels)
    return digits_on_photographs(torch.arange(count), True, torch.Generator().manual_seed(400))


class _DigitsOnPhotographs:
    """What both classifiers share: the data, the loss and the score."""

    modality = "vision"
    task = "classification"
    source = "scikit-learn's handwritten digits drawn over crops of its two photographs"
    sizes = SIZES
    schedules: Mapping[str, Schedule]

    def build(self, size: str) -> nn.Module:
        """The untrained model."""
        raise NotImplementedError

    def logits(self, model: nn.Module, pictures: Tensor) -> Tensor:
        """`[n, 3, 16, 16]` to `[n, 10]`."""
        raise NotImplementedError

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Minimise the cross-entropy of the digit."""
        with seeded(seed):
            model = self.build(size)
        count = len(digits(False).labels)

        def loss(generator: torch.Generator) -> Tensor:
            picked = torch.randint(count, (64,), generator=generator)
            pictures, labels = digits_on_photographs(picked, False, generator)
            return F.cross_entropy(self.logits(model, pictures), labels)

        return fit(model, loss, self.schedules[size].shortened(quick), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """Which of the 400 held-out pictures are recognised: 1 or 0 each."""
        pictures, labels = held_out_pictures()
        found = [self.logits(model, batch.to(dtype)).float() for batch in pictures.split(_BATCH)]
        right = torch.cat(found).argmax(1) == labels
        return Scores("accuracy", "", "higher", right.double())

    def baseline(self, seed: int) -> float:
        """The share of the most frequent digit."""
        labels = held_out_pictures()[1]
        return float(labels.bincount().max()) / len(labels)

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 held-out pictures; from the first again after eight."""
        parts = held_out_pictures()[0].split(_BATCH)
        return [parts[i % len(parts)] for i in range(count)]


class VisionViT(_DigitsOnPhotographs):
    """transformers' ViTForImageClassification on patches of 4x4 pixels."""

    name = "vision-vit"
    title = "Vision transformer"
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=900, learning_rate=3e-3, weight_decay=0.05),
            "medium": Schedule(steps=800, learning_rate=2e-3, weight_decay=0.05),
            "large": Schedule(steps=600, learning_rate=1e-3, weight_decay=0.05),
        }
    )

    def build(self, size: str) -> nn.Module:
        """Three layers of width 32, 64 or 128."""
        width = {"small": 32, "medium": 64, "large": 128}[size]
        library = _transformers()
        config = library.ViTConfig(
            hidden_size=width, num_hidden_layers=3, num_attention_heads=width // 16,
            intermediate_size=2 * width, image_size=SIDE, patch_size=4, num_labels=CLASSES,
            initializer_range=0.7 * width**-0.5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        model: nn.Module = library.ViTForImageClassification(config).eval()
        return model

    def logits(self, model: nn.Module, pictures: Tensor) -> Tensor:
        """`[n, 3, 16, 16]` to `[n, 10]`."""
        logits: Tensor = model(pixel_values=pictures).logits
        return logits


class VisionResNet(_DigitsOnPhotographs):
    """A residual network with batch normalisation."""

    name = "vision-resnet"
    title = "Residual network"
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=500, learning_rate=4e-3, weight_decay=0.05),
            "medium": Schedule(steps=500, learning_rate=4e-3, weight_decay=0.05),
            "large": Schedule(steps=400, learning_rate=4e-3, weight_decay=0.05),
        }
    )

    def build(self, size: str) -> nn.Module:
        """Width 8, 12 or 16 in the first stage, four times as much in the last."""
        width, depth = {"small": (8, 1), "medium": (12, 1), "large": (16, 2)}[size]
        return ResNet(width, depth, CLASSES).eval()

    def logits(self, model: nn.Module, pictures: Tensor) -> Tensor:
        """`[n, 3, 16, 16]` to `[n, 10]`."""
        logits: Tensor = model(pictures)
        return logits


def _transformers() -> Any:
    try:
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("transformers", "study", "the vision transformer") from error
    return transformers
