"""A U-Net with one level below the full resolution, told the strength of the noise (Ho et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SPREAD = 0.1  # the variance of a pixel around what its neighbours say


class Block(nn.Module):
    """Two convolutions beside a shortcut; the condition shifts the channels between them.

    No norms: how far a pixel is off must survive, in flat crops as in busy ones.
    """

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(condition, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`[n, inputs, h, w]` and `[n, condition]` to `[n, outputs, h, w]`."""
        found = self.conv1(F.silu(x)) + self.shift(condition)[:, :, None, None]
        result: Tensor = self.shortcut(x) + self.conv2(F.silu(found))
        return result


class DenoisingUNet(nn.Module):
    """Predicts the clean image from a noisy one and the standard deviation of its noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        condition = 4 * width
        self.strength = nn.Sequential(nn.Linear(1, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.fine = Block(width, width, condition)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = Block(2 * width, 2 * width, condition)
        self.attention_norm = nn.LayerNorm(2 * width)
        self.attention = nn.MultiheadAttention(2 * width, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.joined = Block(2 * width, width, condition)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, noisy: Tensor, noise: Tensor) -> Tensor:
        """Images `[n, 3, h, w]` and standard deviations `[n]` to images of the same shape."""
        condition = F.silu(self.strength(noise[:, None]))
        fine = self.fine(self.stem(noisy), condition)
        coarse = self._attend(self.coarse(self.down(fine), condition))
        joined = self.joined(torch.cat([fine, self.up(coarse)], 1), condition)
        kept = _SPREAD / (
            _SPREAD + noise.square()
        )  # the share of a pixel that is not noise (Karras et al., 2022)
        clean: Tensor = kept[:, None, None, None] * noisy + self.head(F.silu(joined))
        return clean

    def _attend(self, x: Tensor) -> Tensor:
        """Let every place look at every other one."""
        rows = x.flatten(2).transpose(1, 2)
        normed = self.attention_norm(rows)
        rows = rows + self.attention(normed, normed, normed, need_weights=False)[0]
        attended: Tensor = rows.transpose(1, 2).reshape(x.shape)
        return attended
