"""In which order the values of a convolution's weight lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format_of(weight: Tensor) -> torch.memory_format:
    """`channels_last` (of five dimensions: `channels_last_3d`) for a weight that only fits that, else
    `contiguous_format`."""
    channels_last = _CHANNELS_LAST.get(weight.dim())
    if channels_last is None or weight.is_contiguous():
        return torch.contiguous_format
    fits = weight.is_contiguous(memory_format=channels_last)
    return channels_last if fits else torch.contiguous_format
