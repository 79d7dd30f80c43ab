"""Models written with nothing but torch.nn: pictures, volumes and sounds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from zoo.entry import Entry
from zoo.tensors import BATCH


class UNet(nn.Module):
    """Down with strides, up with transposed convolutions, and a bridge between."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 32, 4, 2, 1), nn.GroupNorm(4, 32), nn.SiLU())
        self.up = nn.ConvTranspose2d(32, 16, 4, 2, 1)
        self.out = nn.Conv2d(32, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, picture: Tensor) -> Tensor:
        """A picture of the same size."""
        first = self.down(picture)
        return self.out(torch.cat([first, self.up(self.deep(first))], 1))


class Mixer(nn.Module):
    """MLP-Mixer: linear layers over patches and over channels, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(4))
        self.across = nn.ModuleList(_mlp(16, 32) for _ in range(2))
        self.within = nn.ModuleList(_mlp(64, 128) for _ in range(2))
        self.head = nn.Linear(64, 10)

    def forward(self, picture: Tensor) -> Tensor:
        """Class logits."""
        hidden = self.patches(picture).flatten(2).transpose(1, 2)
        for index in range(2):
            turned = self.norms[2 * index](hidden).transpose(1, 2)
            hidden = hidden + self.across[index](turned).transpose(1, 2)
            hidden = hidden + self.within[index](self.norms[2 * index + 1](hidden))
        return self.head(hidden.mean(1))


class WaveNet(nn.Module):
    """Gated dilated convolutions under weight norm, one in its old and the rest in its new form."""

    def __init__(self) -> None:
        super().__init__()
        self.first = weight_norm(nn.Conv1d(1, 32, 3, padding=1))
        self.gates = nn.ModuleList(
            parametrizations.weight_norm(nn.Conv1d(32, 64, 3, padding=2**step, dilation=2**step))
            for step in range(3)
        )
        self.last = parametrizations.weight_norm(nn.Linear(32, 16))

    def forward(self, sound: Tensor) -> Tensor:
        """Logits over sixteen levels for each sample of the sound."""
        hidden = self.first(sound)
        for gate in self.gates:
            level, switch = gate(hidden).chunk(2, 1)
            hidden = hidden + level.tanh() * switch.sigmoid()
        return self.last(hidden.transpose(1, 2))


class Generator(nn.Module):
    """A GAN generator under spectral norm, in its old and its new form."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = spectral_norm(nn.Linear(16, 32 * 4 * 4))
        self.up = parametrizations.spectral_norm(nn.ConvTranspose2d(32, 16, 4, 2, 1))
        self.out = parametrizations.spectral_norm(nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, noise: Tensor) -> Tensor:
        """A picture of 8x8."""
        return self.out(self.up(self.seed(noise).relu().view(-1, 32, 4, 4)).relu()).tanh()


def _mlp(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1),
    )


def _volumes() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 16, 3, padding=1),
        nn.InstanceNorm3d(16, affine=True),
        nn.ReLU(),
        nn.Conv3d(16, 32, 3, 2, 1, dilation=1),
        nn.ReLU(),
        nn.ConvTranspose3d(32, 8, 2, 2),
        nn.AdaptiveAvgPool3d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _sound_classifier() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 32, 5, 2, padding="valid"),
        nn.ReLU(),
        nn.Conv1d(32, 32, 3, padding="same", padding_mode="circular", groups=32),
        nn.ConvTranspose1d(32, 16, 4, 2),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _picture() -> tuple[Tensor]:
    return (torch.randn(BATCH, 3, 32, 32),)


ENTRIES: tuple[Entry, ...] = (
    Entry("unet_plain", "plain", UNet, _picture, transformer_like=False),
    Entry("autoencoder_plain", "plain", _autoencoder, _picture, transformer_like=False),
    Entry("mlp_mixer", "plain", Mixer, _picture),
    Entry("conv_3d", "plain", _volumes, lambda: (torch.randn(BATCH, 1, 8, 8, 8),), transformer_like=False),
    Entry(
        "conv_1d", "plain", _sound_classifier, lambda: (torch.randn(BATCH, 4, 40),), transformer_like=False
    ),
    Entry("wavenet", "plain", WaveNet, lambda: (torch.randn(BATCH, 1, 40),), transformer_like=False),
    Entry("gan_generator", "plain", Generator, lambda: (torch.randn(BATCH, 16),), transformer_like=False),
)
