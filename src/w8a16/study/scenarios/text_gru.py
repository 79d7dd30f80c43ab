"""A GRU of bytes: a recurrent layer is held in int8 and dequantized on use."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from w8a16.study.scenarios.text_model import LanguageModel
from w8a16.study.scenarios.training import Schedule

# size -> width, layers
_SHAPES = {"small": (96, 1), "medium": (160, 1), "large": (224, 2)}


class ByteGRU(nn.Module):
    """Embedding, norm, GRU, norm, linear head: int64 `[batch, length]` to logits `[batch, length, 256]`."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.norm_in = nn.LayerNorm(width)
        self.gru = nn.GRU(width, width, layers, batch_first=True)
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256)

    def forward(self, blocks: Tensor) -> Tensor:
        """The logits of the byte after each position."""
        logits: Tensor = self.head(self.norm_out(self.gru(self.norm_in(self.embedding(blocks)))[0]))
        return logits


class TextGRU(LanguageModel):
    """A recurrent language model over bytes."""

    name = "text-gru"
    title = "GRU of bytes"
    length = 128
    schedules: ClassVar[dict[str, Schedule]] = {
        "small": Schedule(330, 1e-2),
        "medium": Schedule(440, 8e-3),
        "large": Schedule(360, 6e-3),
    }

    def build(self, size: str) -> nn.Module:
        """With torch's own initial weights."""
        width, layers = _SHAPES[size]
        return ByteGRU(width, layers).eval()

    def logits(self, model: nn.Module, blocks: Tensor) -> Tensor:
        """As the model returns them."""
        result: Tensor = model(blocks)
        return result
