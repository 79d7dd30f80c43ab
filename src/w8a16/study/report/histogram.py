"""How the weights of one layer lie, as counts: what a report keeps of them, so that it holds no tensors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from w8a16.errors import ShapeError, WeightValueError

_BINS = 96
_CHUNK = 1 << 22  # elements that are looked at together
_CODES = 256


@dataclass(frozen=True)
class WorstLayer:
    """The float weights and the int8 codes of one layer, counted."""

    name: str
    elements: int
    edges: tuple[float, float]
    """Where the first bin begins and the last one ends: the largest magnitude on both sides."""
    counts: tuple[int, ...]
    """Float weights in each of the bins, which are equally wide."""
    codes: tuple[int, ...]
    """How often each code occurs, from -128 to 127: 256 counts."""
    rms: float
    """Root mean square of the float weights."""

    @property
    def peak_to_rms(self) -> float:
        """Largest magnitude / root mean square, 3 to 5 for Gaussian weights; 0 for weights that are all 0."""
        return self.edges[1] / self.rms if self.rms else 0.0

    @property
    def small_codes(self) -> float:
        """Share of the codes from -8 to 8, which are the coarse ones: a sixteenth of the range."""
        return sum(self.codes[128 - 8 : 128 + 9]) / max(1, sum(self.codes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WorstLayer:
        """The inverse of `to_dict`."""
        return cls(
            name=str(data["name"]),
            elements=int(data["elements"]),
            edges=(float(data["edges"][0]), float(data["edges"][1])),
            counts=tuple(int(count) for count in data["counts"]),
            codes=tuple(int(count) for count in data["codes"]),
            rms=float(data["rms"]),
        )


def worst_layer(name: str, weight: Tensor, codes: Tensor) -> WorstLayer:
    """Count the float weights of a layer by value and its int8 codes by code.

    Args:
        name: path of the layer.
        weight: its float weight, any shape.
        codes: int8, any shape: padding of groups and places of outliers count as the zeros that they are.

    Raises:
        ShapeError: no weights.
        WeightValueError: NaN or Inf among the weights, which have no place in a histogram.

    Example:
        >>> layer = worst_layer("up", torch.tensor([-1.0, 1.0]), torch.tensor([-127, 127], dtype=torch.int8))
        >>> layer.counts[0], layer.counts[-1], layer.codes[1], layer.codes[255]
        (1, 1, 1, 1)
    """
    if not weight.numel():
        raise ShapeError(f"{name}: expected weights to count, got none")
    parts = weight.detach().reshape(-1).split(_CHUNK)
    peaks = [float(part.abs().max()) for part in parts]
    if not all(map(math.isfinite, peaks)):
        raise WeightValueError(f"{name}: expected finite weights, got NaN or Inf")
    span = max(peaks) or 1.0
    counts = torch.zeros(_BINS, dtype=torch.int64)
    squares = 0.0
    for part in parts:
        values = part.double().cpu()
        squares += float(values.square().sum())
        places = ((values / span + 1) * (_BINS / 2)).long().clamp_(0, _BINS - 1)
        counts += torch.bincount(places, minlength=_BINS)
    used = torch.zeros(_CODES, dtype=torch.int64)
    for part in codes.detach().reshape(-1).split(_CHUNK):
        used += torch.bincount(part.long().cpu() + 128, minlength=_CODES)
    rms = math.sqrt(squares / weight.numel())
    return WorstLayer(name, weight.numel(), (-span, span), tuple(counts.tolist()), tuple(used.tolist()), rms)
