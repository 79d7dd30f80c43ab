"""The difference of two tensors, summed up in float64 over any number of pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from w8a16.study.compare.result import TensorDrift

_BLOCK_ELEMENTS = 1 << 18


class DriftSum:
    """Sums over pairs of float and int8 outputs; a block is widened to float64 at a time."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0
        """Sums of `r^2` and of `(r - q)^2`."""
        self._other = self._product = 0.0
        self._largest_difference = self._largest_reference = 0.0
        self.elements = 0

    def add(self, reference: Tensor, quantized: Tensor) -> None:
        """Add one pair of equal shapes."""
        ours, theirs = reference.detach().reshape(-1), quantized.detach().to(reference.device).reshape(-1)
        self.elements += ours.numel()
        for r, q in zip(ours.split(_BLOCK_ELEMENTS), theirs.split(_BLOCK_ELEMENTS), strict=True):
            if r.numel():
                self._add_block(r.double(), q.double())

    def _add_block(self, reference: Tensor, quantized: Tensor) -> None:
        sums = _sums(reference, quantized)
        if not math.isfinite(sums[0] + sums[2]):
            sums = _sums(*_without_common(reference, quantized))
        signal, noise, other, product, difference, largest = sums
        self.signal += signal
        self.noise += math.inf if math.isnan(noise) else noise
        self._other += other
        self._product += product
        difference = math.inf if math.isnan(difference) else difference
        self._largest_difference = max(self._largest_difference, difference)
        self._largest_reference = max(self._largest_reference, largest)

    @property
    def relative_noise(self) -> float:
        """Noise power over signal power."""
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    def result(self) -> TensorDrift:
        """What was summed up."""
        power = self.signal * self._other
        sqnr = -10 * math.log10(self.relative_noise) if 0 < self.relative_noise < math.inf else None
        return TensorDrift(
            sqnr_db=sqnr if sqnr is not None else (math.inf if self.noise == 0 else -math.inf),
            cosine=1.0 if self.noise == 0 and power else self._cosine(),
            largest_difference=self._largest_difference,
            largest_reference=self._largest_reference,
            elements=self.elements,
        )

    def _cosine(self) -> float:
        lengths = math.sqrt(self.signal) * math.sqrt(self._other)
        return min(1.0, max(-1.0, self._product / lengths)) if lengths else math.nan


def _sums(r: Tensor, q: Tensor) -> list[float]:
    """Sums of `r^2`, `(r - q)^2`, `q^2` and `r q`, then the largest `|r - q|` and `|r|`."""
    difference = r - q
    pairs = ((r, r), (difference, difference), (q, q), (r, q))
    ends = (*torch.aminmax(difference), *torch.aminmax(r))  # several times as fast as the norm
    sums = torch.stack([*(torch.dot(*pair) for pair in pairs), *ends]).tolist()
    low, high, lowest, highest = sums[4:]
    return [*sums[:4], max(high, -low), max(highest, -lowest)]


def _without_common(reference: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros where both are the same infinity or both NaN: attention masks, say, have no drift.

    What is left that is not finite in one of them only counts as an infinite difference.
    """
    same = (reference == quantized) | (reference.isnan() & quantized.isnan())
    both = same & ~torch.isfinite(reference)
    return reference.masked_fill(both, 0.0), quantized.masked_fill(both, 0.0)
