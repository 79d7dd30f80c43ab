"""Codes for scales that the model's dtype holds: the scale is rounded first, then the weight quantized.

A server that casts float32 scales to bfloat16 changes every weight of a row by up to 0.2 %, with codes that
were made for another scale. Made for the rounded one, each weight is within half a step again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor

from w8a16.checkpoint import shown
from w8a16.checkpoint.container.disk import read_at
from w8a16.checkpoint.streaming.files import OutputFile, SourceFile
from w8a16.checkpoint.tensors import bytes_of
from w8a16.core import quantize_weight
from w8a16.errors import CheckpointError
from w8a16.integrations.compressed_tensors.layout import PACKED, SCALE, pack_rows
from w8a16.integrations.compressed_tensors.plan import Matrix, PlannedFile

WeightSource = Callable[[str], Tensor]
"""The float values of a weight, by its key in the state dict of the float model."""

_ELEMENTS = 4 << 20
_LARGEST = 127
_ROUNDING = 2.0**-12
"""What float32 may add to half a step."""


def quantize_to(weights: Tensor, dtype: torch.dtype, scales_a_row: int = 1) -> tuple[Tensor, Tensor]:
    """Quantize with scales that `dtype` holds.

    Args:
        weights: `[N, K]`, float.
        dtype: of the scales.
        scales_a_row: scales `G` of each row, for groups of K / G elements.

    Returns:
        codes int8 `[N, K]`, scales `[N, G]` in `dtype`. No value is off by more than half a step and what
        float32 rounds; where the nearest scale would cut the largest value off, it is the next larger one.
    """
    n, k = weights.shape
    groups = weights.reshape(n * scales_a_row, k // scales_a_row)
    exact = quantize_weight(groups).scales
    scales = exact.to(dtype)
    largest = groups.abs().amax(1).to(torch.float32)
    cut_off = largest > (_LARGEST + 0.5) * scales.to(torch.float32)
    scales = torch.where(cut_off, _next(scales), scales)
    codes = (groups.to(torch.float32) / scales.to(torch.float32)[:, None]).round_()
    codes = codes.clamp_(-_LARGEST, _LARGEST).to(torch.int8)
    return codes.view(n, k), scales.view(n, scales_a_row)


def _next(scales: Tensor) -> Tensor:
    """The next larger numbers of a dtype of two bytes; positive ones are ordered as their bits are."""
    return (scales.view(torch.int16) + 1).view(scales.dtype)


def write_rounded(
    file: PlannedFile,
    source: SourceFile,
    output: OutputFile,
    weights: WeightSource,
    done: Callable[[int], None],
) -> None:
    """Quantize the matrices of a file anew, one float weight in memory at a time.

    Raises:
        CheckpointError: the float weights are those of another model.
    """
    for key, matrices in groupby(file.matrices, lambda matrix: matrix.key):
        rows = weights(key).flatten(0, -2)
        for matrix in matrices:
            _write_matrix(matrix, rows[matrix.first : matrix.first + matrix.shape[0]], source, output, done)


def _write_matrix(
    matrix: Matrix, rows: Tensor, source: SourceFile, output: OutputFile, done: Callable[[int], None]
) -> None:
    n, k = matrix.shape
    step = max(1, _ELEMENTS // max(k, 1))
    for first in range(0, n, step):
        part = rows[first : first + step]
        codes, scales = quantize_to(part, matrix.scale_dtype, matrix.scales_a_row)
        _refuse_another_weight(matrix, first, codes, scales, source)
        for ending, values in ((PACKED, pack_rows(codes)), (SCALE, scales)):
            view = bytes_of(values.contiguous())
            output.write(f"{matrix.layer}.{ending}", first * values.shape[1] * values.element_size(), view)
            done(len(view))


def _refuse_another_weight(
    matrix: Matrix, first: int, codes: Tensor, scales: Tensor, source: SourceFile
) -> None:
    """Both are codes of the same values, so they stand for values that differ by half a step of each."""
    k, g = matrix.shape[1], matrix.scales_a_row
    stored = torch.empty(codes.shape, dtype=torch.int8)
    theirs = torch.empty(scales.shape, dtype=torch.float32)
    read_at(source.fd, bytes_of(stored), matrix.codes + first * k, source.path)
    read_at(source.fd, bytes_of(theirs), matrix.scales + first * g * theirs.element_size(), source.path)
    ours = scales.to(torch.float32)
    before, after = (values.view(-1, k // g) for values in (stored, codes))
    off = (after * ours.view(-1, 1) - before * theirs.view(-1, 1)).abs()
    if bool((off > (ours + theirs).view(-1, 1) / 2 * (1 + _ROUNDING)).any()):
        raise CheckpointError(
            f"{shown(matrix.layer)}: the float weight is not the one that the codes were made from"
        )
