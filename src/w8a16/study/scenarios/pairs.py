"""Pictures and captions in one space: transformers' CLIPModel on captioned digits (Radford et al., 2021)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from w8a16.errors import MissingExtraError
from w8a16.study.scenarios.captions import (
    CAPTIONS,
    END,
    LENGTH,
    PAD,
    SIDE,
    VOCABULARY,
    caption_tokens,
    captioned,
    held_out_pairs,
)
from w8a16.study.scenarios.pictures import digits
from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.training import Schedule, fit, seeded

_BATCH = 50


class ImageTextPairs:
    """Which of 180 captions belongs to a picture?"""

    name = "image-text-pairs"
    title = "CLIP pairs"
    modality = "image-text"
    task = "embedding"
    source = "scikit-learn's handwritten digits, drawn as one of 180 captions says"
    sizes = SIZES
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=600, learning_rate=3e-3),
            "medium": Schedule(steps=600, learning_rate=2e-3),
            "large": Schedule(steps=500, learning_rate=1e-3),
        }
    )

    def build(self, size: str) -> nn.Module:
        """Pictures: three layers of width 32, 64 or 128; captions: two layers of half the width."""
        width = {"small": 32, "medium": 64, "large": 128}[size]
        library = _transformers()
        text = {
            "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "hidden_size": width // 2,
            "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": width // 32,
            "pad_token_id": PAD, "bos_token_id": END, "eos_token_id": END, "initializer_range": 0.1,
        }  # fmt: skip
        vision = {
            "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3, "num_channels": 1,
            "num_attention_heads": width // 16, "image_size": SIDE, "patch_size": 6, "initializer_range": 0.1,
        }  # fmt: skip
        config = library.CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
        model: nn.Module = library.CLIPModel(config).eval()
        return model

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Pick the caption of each picture out of those of the batch, each counted once."""
        with seeded(seed):
            model = self.build(size)
        count = len(digits(False).labels)
        ids, mask = caption_tokens()

        def loss(generator: torch.Generator) -> Tensor:
            pairs = captioned(torch.randint(count, (64,), generator=generator), False, generator)
            present, right = pairs.captions.unique(return_inverse=True)
            outputs = model(input_ids=ids[present], attention_mask=mask[present], pixel_values=pairs.pictures)
            return F.cross_entropy(outputs.logits_per_image, right)

        return fit(model, loss, self.schedules[size].shortened(quick, factor=1), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """One over the rank of the right caption among all 180, of each of the 400 held-out pictures."""
        ids, mask = caption_tokens()
        pairs = held_out_pairs()
        found = [
            model(input_ids=ids, attention_mask=mask, pixel_values=batch).logits_per_image.float()
            for batch in pairs.pictures.to(dtype).split(_BATCH)
        ]
        logits = torch.cat(found)
        right = logits.gather(1, pairs.captions[:, None])
        # Ties count half: a model that gives every caption the same score gains nothing by it.
        ranks = 1 + (logits > right).sum(1).double() + 0.5 * ((logits == right).sum(1) - 1)
        return Scores("reciprocal rank", "", "higher", 1 / ranks)

    def baseline(self, seed: int) -> float:
        """What a random order of the captions gives in the mean."""
        return sum(1 / rank for rank in range(1, len(CAPTIONS) + 1)) / len(CAPTIONS)

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 held-out pictures, each with its caption; from the first again after eight."""
        ids, mask = caption_tokens()
        pairs = held_out_pairs()
        parts = list(zip(pairs.pictures.split(_BATCH), pairs.captions.split(_BATCH), strict=True))
        chosen = [parts[i % len(parts)] for i in range(count)]
        return [{"input_ids": ids[c], "attention_mask": mask[c], "pixel_values": p} for p, c in chosen]


def _transformers() -> Any:
    try:
        import transformers  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("transformers", "study", "the model of images and texts") from error
    return transformers
