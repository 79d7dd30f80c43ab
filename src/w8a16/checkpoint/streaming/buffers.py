"""Memory that a thread works in: taken once, used for every block, so that no page is faulted in twice."""

from __future__ import annotations

import torch
from torch import Tensor


class Buffers:
    """One growing byte buffer for each purpose."""

    def __init__(self) -> None:
        self._bytes: dict[str, Tensor] = {}

    def take(self, purpose: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with undefined values; it is valid until the same purpose is taken again."""
        size = dtype.itemsize
        for dimension in shape:
            size *= dimension
        held = self._bytes.get(purpose)
        if held is None or held.numel() < size:
            held = self._bytes[purpose] = torch.empty(size, dtype=torch.uint8, device="cpu")
        return held[:size].view(dtype).view(shape)
