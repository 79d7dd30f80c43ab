"""Log-mel spectrograms, in plain torch: what a recogniser sees of a waveform."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

WINDOW = 512


def log_mel(samples: Tensor, rate: int, bands: int, hop: int) -> Tensor:
    """Logarithms of the energies in bands of equal width on the mel scale (2595 log10(1 + f/700)).

    Args:
        samples: float32 `[n]`, at least 512 of them.
        rate: samples a second.
        bands: how many.
        hop: samples from one frame to the next.

    Returns:
        float32 `[n // hop + 1, bands]`.
    """
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(samples, WINDOW, hop, window=window, center=True, return_complex=True)
    return (_filters(rate, bands) @ spectrum.abs().square() + 1e-6).log().T.contiguous()


@cache
def _filters(rate: int, bands: int) -> Tensor:
    """Overlapping triangles, `[bands, WINDOW // 2 + 1]`."""
    highest = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, float(highest), bands + 2) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)
