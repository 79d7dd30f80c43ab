"""What readers lose that cast the scales of a folder to the dtype of the model: measured, from the scales.

vLLM does so, and transformers where layers have several schemes. A bfloat16 scale has 8 significant bits;
the codes stay what they are, so every weight of a row is off by as much as its scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from w8a16.checkpoint.container.disk import discard, read_at
from w8a16.checkpoint.container.header import open_again
from w8a16.checkpoint.tensors import bytes_of
from w8a16.integrations.compressed_tensors.plan import ExportPlan


@dataclass(frozen=True)
class ScaleRounding:
    """The relative change of the scales of all packed weights, cast to `dtype`."""

    dtype: torch.dtype
    scales: int
    largest: float
    root_mean_square: float

    @property
    def sqnr_db(self) -> float:
        """Signal to noise of that change alone, in decibels; infinite where there is none."""
        square = self.root_mean_square**2
        return -10 * math.log10(square) if square > 0 else math.inf


def scale_rounding(plan: ExportPlan) -> ScaleRounding | None:
    """Read the scales and measure; None where the model's dtype holds them as they are.

    Raises:
        ResourceError: a file cannot be read, or was changed meanwhile.
    """
    count, largest, squares, narrow = 0, 0.0, 0.0, torch.float32
    for file in plan.files:
        fd = open_again(file.header)
        try:
            for matrix in file.matrices:
                if matrix.float_dtype.itemsize >= matrix.scale_dtype.itemsize:
                    continue
                narrow = matrix.float_dtype
                scales = torch.empty(matrix.shape[0] * matrix.scales_a_row)
                read_at(fd, bytes_of(scales), matrix.scales, file.header.path)
                exact = scales.double()
                change = ((scales.to(narrow).double() - exact) / exact).abs()
                count += change.numel()
                largest = max(largest, float(change.max(dim=0).values) if change.numel() else 0.0)
                squares += float(change.square().sum())
        finally:
            discard(fd)
    return ScaleRounding(narrow, count, largest, math.sqrt(squares / count)) if count else None
