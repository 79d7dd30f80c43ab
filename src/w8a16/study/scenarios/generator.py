"""An image generator: the denoising network of a diffusion model, on crops of photographs.

It is told how much noise there is and predicts the clean crop; a sampler would call it again and
again with less noise. The score is how near one call comes to crops that it has never seen.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from w8a16.study.scenarios.pictures import crops, uniform
from w8a16.study.scenarios.scenario import SIZES, Progress, Scores
from w8a16.study.scenarios.training import Schedule, fit, seeded
from w8a16.study.scenarios.unet import DenoisingUNet

SIDE = 16
_HELD_OUT = 300
_BATCH = 50
_LEAST, _MOST = 0.2, 1.0  # standard deviations of the noise; crops go from -1 to 1


def noisy_crops(count: int, held_out: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The busier half of the crops drawn, with noise: much of both photographs is sky and shadow.

    Returns:
        Noisy crops `[count, 3, 16, 16]`, the standard deviations of their noise `[count]`, and the clean
        crops, -1 to 1.
    """
    drawn = 2 * crops(2 * count, SIDE, held_out, generator) - 1
    busy = drawn.flatten(1).std(1).argsort(descending=True, stable=True)[:count]
    clean = drawn[busy[torch.randperm(count, generator=generator)]]
    noise = uniform(_LEAST, _MOST, (count,), generator)
    noisy = clean + noise[:, None, None, None] * torch.randn(clean.shape, generator=generator)
    return noisy, noise, clean


@cache
def held_out_crops() -> tuple[Tensor, Tensor, Tensor]:
    """300 crops with noise, always the same."""
    return noisy_crops(_HELD_OUT, True, torch.Generator().manual_seed(300))


class ImageGenerator:
    """A U-Net that takes noise away."""

    name = "image-generator"
    title = "Diffusion denoiser"
    modality = "vision"
    task = "image"
    source = "crops of scikit-learn's two photographs, with Gaussian noise of varied strength"
    sizes = SIZES
    schedules = MappingProxyType(
        {
            "small": Schedule(steps=700, learning_rate=5e-3),
            "medium": Schedule(steps=600, learning_rate=4e-3),
            "large": Schedule(steps=400, learning_rate=3e-3),
        }
    )

    def build(self, size: str) -> nn.Module:
        """8, 12 or 20 channels at full resolution, twice as many at half."""
        return DenoisingUNet({"small": 8, "medium": 12, "large": 20}[size]).eval()

    def train(self, size: str, seed: int, quick: bool, progress: Progress) -> nn.Module:
        """Maximise the PSNR: minimise the logarithm of each crop's squared error."""
        with seeded(seed):
            model = self.build(size)

        def loss(generator: torch.Generator) -> Tensor:
            noisy, noise, clean = noisy_crops(32, False, generator)
            errors: Tensor = model(noisy, noise) - clean
            return errors.square().mean((1, 2, 3)).clamp(min=1e-5).log().mean()

        return fit(model, loss, self.schedules[size].shortened(quick, factor=1), seed, progress)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, seed: int, dtype: torch.dtype) -> Scores:
        """The PSNR of each of the 300 held-out crops."""
        noisy, noise, clean = held_out_crops()
        pairs = zip(noisy.to(dtype).split(_BATCH), noise.to(dtype).split(_BATCH), strict=True)
        found = torch.cat([model(*pair).float() for pair in pairs])
        return Scores("PSNR", "dB", "higher", _psnr(found, clean))

    def baseline(self, seed: int) -> float:
        """The mean PSNR of the best box filter: 1 pixel (the crops as they came) to 7 pixels wide."""
        noisy, _, clean = held_out_crops()
        filtered = (F.avg_pool2d(noisy, k, 1, k // 2, count_include_pad=False) for k in (1, 3, 5, 7))
        return max(float(_psnr(each, clean).mean()) for each in filtered)

    def batches(self, count: int, seed: int) -> list[Any]:
        """Batches of 50 noisy crops with the strength of their noise; from the first again after six."""
        noisy, noise, _ = held_out_crops()
        parts = list(zip(noisy.split(_BATCH), noise.split(_BATCH), strict=True))
        return [parts[i % len(parts)] for i in range(count)]


def _psnr(found: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratios, dB, of images from -1 to 1: `[n]`, float64."""
    errors = (found.double().clamp(-1, 1) - clean.double()).square().mean((1, 2, 3))
    return 10 * torch.log10(4 / errors.clamp(min=1e-10))
