"""Generators of pictures: PSNR and SSIM of the int8 model's pictures against the float model's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from w8a16.study.compare.tasks.outputs import main_output
from w8a16.study.metrics import Metric, paired_interval, psnr, ssim
from w8a16.study.metrics.images import WINDOW

_NAMES = ("sample", "images", "reconstruction", "predicted_image")


class ImageTask:
    """PSNR and SSIM of every picture; `[B, C, H, W]`, `[C, H, W]`, or films `[B, F, C, H, W]`.

    Args:
        data_range: the largest value that a picture can have minus the smallest. Without it, what the
            float model's picture spans: then a flat picture counts as spanning 1.

    Pictures smaller than the 11 x 11 window of the definition get the largest odd window that fits.
    """

    name = "image"
    drift_unit = "squared error over squared data range"

    def __init__(self, data_range: float | None = None) -> None:
        self._data_range = data_range
        self._psnr: list[Tensor] = []
        self._ssim: list[Tensor] = []
        self._errors: list[Tensor] = []

    def update(self, batch: Any, reference: Any, quantized: Any) -> None:
        """Add the pictures of one batch."""
        ours, theirs = (
            _pictures(main_output(each, _NAMES, self.name, (4, 5, 3))) for each in (reference, quantized)
        )
        span = self._span(ours)
        smallest = min(ours.shape[2:])
        window = min(WINDOW, smallest - 1 + smallest % 2)
        decibels = psnr(ours, theirs, span).cpu()
        self._psnr.append(decibels)
        self._ssim.append(ssim(ours, theirs, span, window).cpu())
        self._errors.append(10 ** (-decibels / 10))

    def _span(self, pictures: Tensor) -> Tensor:
        if self._data_range is not None:
            return torch.full((len(pictures),), self._data_range, dtype=torch.float64, device=pictures.device)
        span = pictures.double().amax((1, 2, 3)) - pictures.double().amin((1, 2, 3))
        return torch.where(span > 0, span, 1.0)

    def drift(self) -> float:
        """The mean squared error, as a share of the squared range."""
        return float(torch.cat(self._errors).mean())

    def result(self) -> dict[str, Metric]:
        """PSNR of the mean error, and the mean SSIM."""
        similarity, low, high = paired_interval(torch.cat(self._ssim))
        error, least, most = paired_interval(torch.cat(self._errors))
        decibels, worst, best = (
            -10 * torch.log10(torch.tensor([error, most, least], dtype=torch.float64))
        ).tolist()
        return {
            "psnr": Metric(decibels, worst, best, "dB", better="higher"),
            "psnr_least": Metric(float(torch.cat(self._psnr).min()), unit="dB", better="higher"),
            "ssim": Metric(similarity, low, high, better="higher"),
        }


def _pictures(tensor: Tensor) -> Tensor:
    return tensor.flatten(0, 1) if tensor.dim() == 5 else tensor.reshape(-1, *tensor.shape[-3:])
