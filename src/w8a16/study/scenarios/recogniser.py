"""A small speech recogniser: strided convolutions, a transformer encoder, a letter or none a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LETTERS = "abcdefghijklmnopqrstuvwxyz "
BLANK = 0
_LONGEST = 128  # frames after the convolutions


class Recogniser(nn.Module):
    """Letters of connectionist temporal classification (Graves et al., 2006) from a spectrogram."""

    def __init__(self, bands: int, width: int, layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(bands, width, 5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(width, width, 5, stride=2, padding=2)
        self.positions = nn.Embedding(_LONGEST, width)
        layer = nn.TransformerEncoderLayer(
            width,
            max(1, width // 32),
            4 * width,
            dropout=0.1,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, len(LETTERS) + 1)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Spectrograms `[n, frames, bands]` and lengths to logits `[n, frames / 4, 28]`; 0 is the blank."""
        x = F.gelu(self.conv1(features.transpose(1, 2)))
        # Padding is 0 for the second convolution too: no phrase depends on the length of its neighbours.
        x = x * (torch.arange(x.shape[2], device=x.device) < (lengths[:, None, None] + 1) // 2)
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        places = torch.arange(x.shape[1], device=x.device)
        padding = places >= frames_after(lengths)[:, None]
        x = self.encoder(x + self.positions(places), src_key_padding_mask=padding)
        logits: Tensor = self.head(x)
        return logits


def frames_after(lengths: Tensor) -> Tensor:
    """How many of the frames are left by the two convolutions of stride 2."""
    return (lengths + 3) // 4


def letters_of(text: str) -> list[int]:
    """The classes of a text.

    Example:
        >>> letters_of("ab c")
        [1, 2, 27, 3]
    """
    return [LETTERS.index(letter) + 1 for letter in text]


def text_of(classes: list[int]) -> str:
    """What the best class of each frame spells: repetitions once, blanks left out.

    Example:
        >>> text_of([0, 1, 1, 0, 1, 2, 2, 0])
        'aab'
    """
    kept = [c for c, before in zip(classes, [BLANK, *classes], strict=False) if c not in (before, BLANK)]
    return "".join(LETTERS[c - 1] for c in kept)
