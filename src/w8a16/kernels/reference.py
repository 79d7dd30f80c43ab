"""The law in plain torch: slow, readable, right. Every other backend is tested against it.

    y = cast_to_input_dtype((x . q^T) * s + b)

The sum, the scale and the bias are in float32 (float64 for float64 input), with one rounding at the
end. The scale is applied after the sum, never before the cast to half precision: a float16
activation of 516 against a code of 127 is already beyond float16.

A refined weight has one scale a group of columns, or a few columns of each row as floats beside the
codes; those are terms of the same sum, in front of the same rounding.

Codes are widened in blocks of output channels, so the float copy in flight stays a few MiB.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from w8a16.kernels.arguments import checked_offsets

_BLOCK_ELEMENTS = 1 << 20
_BFLOAT16_BITS = -0x10000  # the upper half of a float32: sign, exponent and 8 significant bits


def linear(
    input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None, *, plain: bool = False
) -> Tensor:
    """`[..., K]` times `[N, K]` to `[..., N]` in the input's dtype; arguments are already checked.

    `plain` uses differentiable operations only, for torch.func and forward-mode gradients.
    """
    compute = _accumulator(input)
    y = _products_with_rows(_parts(input, compute, plain), int8_weights)
    y = y * scales.to(compute)  # not in place: under vmap the scales may have a batch that y lacks
    if bias is not None:
        y = y + bias.to(compute)
    return y.to(input.dtype)


def linear_input_grad(
    grad_output: Tensor, int8_weights: Tensor, scales: Tensor, *, plain: bool = False
) -> Tensor:
    """`(dy * s) . q`: `[..., N]` to `[..., K]` in the gradient's dtype; arguments are already checked."""
    compute = _accumulator(grad_output)
    parts = _parts(grad_output.to(compute) * scales.to(compute), compute, plain)
    return _sum_of_rows(parts, int8_weights).to(grad_output.dtype)


def grouped_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    offsets: Tensor,
    *,
    plain: bool = False,
) -> Tensor:
    """`linear` with weight e of `[E, N, K]` for rows `offsets[e]` to `offsets[e + 1]`; else zeros."""
    bounds = checked_offsets(offsets, input.shape[0])
    n = int8_weights.shape[1]
    blocks = [input.new_zeros((bounds[0], n))]
    for e, rows in _groups(bounds):
        vector = None if bias is None else bias[e]
        blocks.append(linear(input[rows], int8_weights[e], scales[e], vector, plain=plain))
    return torch.cat([*blocks, input.new_zeros((input.shape[0] - bounds[-1], n))])


def grouped_linear_input_grad(
    grad_output: Tensor, int8_weights: Tensor, scales: Tensor, offsets: Tensor, *, plain: bool = False
) -> Tensor:
    """`linear_input_grad` with weight e for rows `offsets[e]` to `offsets[e + 1]`; else zeros."""
    bounds = checked_offsets(offsets, grad_output.shape[0])
    k = int8_weights.shape[2]
    blocks = [grad_output.new_zeros((bounds[0], k))]
    for e, rows in _groups(bounds):
        blocks.append(linear_input_grad(grad_output[rows], int8_weights[e], scales[e], plain=plain))
    return torch.cat([*blocks, grad_output.new_zeros((grad_output.shape[0] - bounds[-1], k))])


def _groups(bounds: list[int]) -> list[tuple[int, slice]]:
    return [(e, slice(*pair)) for e, pair in enumerate(pairwise(bounds)) if pair[0] < pair[1]]


def refined_linear(
    input: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
    *,
    plain: bool = False,
) -> Tensor:
    """`linear` for codes `[N, G, S]` with scales `[N, G]`, and for outliers `[N, R]`."""
    compute = _accumulator(input)
    codes, factors = _in_groups(int8_weights, scales.to(compute))
    n, groups, size = codes.shape
    parts = _parts(input, compute, plain)
    y = input.new_zeros((*input.shape[:-1], n), dtype=compute)
    for g in range(groups):
        columns = slice(g * size, (g + 1) * size)
        sums = _products_with_rows([part[..., columns] for part in parts], codes[:, g])
        y = y + sums * factors[:, g]
    if outlier_columns is not None and outlier_values is not None:
        wide, kept = input.to(compute), outlier_values.to(compute)
        for r in range(outlier_columns.shape[1]):  # one at a time: all at once would take R outputs
            y = y + wide.index_select(-1, outlier_columns[:, r]) * kept[:, r]
    if bias is not None:
        y = y + bias.to(compute)
    return y.to(input.dtype)


def refined_linear_input_grad(
    grad_output: Tensor,
    int8_weights: Tensor,
    scales: Tensor,
    outlier_columns: Tensor | None,
    outlier_values: Tensor | None,
    *,
    plain: bool = False,
) -> Tensor:
    """The adjoint of `refined_linear`: `[..., N]` to `[..., K]` in the gradient's dtype."""
    compute = _accumulator(grad_output)
    codes, factors = _in_groups(int8_weights, scales.to(compute))
    wide = grad_output.to(compute)
    columns = [wide.new_zeros((*wide.shape[:-1], 0))]
    for g in range(codes.shape[1]):
        columns.append(_sum_of_rows(_parts(wide * factors[:, g], compute, plain), codes[:, g]))
    total = torch.cat(columns, dim=-1)
    if outlier_columns is not None and outlier_values is not None:
        kept = outlier_values.to(compute)
        for r in range(outlier_columns.shape[1]):
            total = total.index_add(-1, outlier_columns[:, r], wide * kept[:, r])
    return total.to(grad_output.dtype)


def _in_groups(int8_weights: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `[N, G, S]` and scales `[N, G]`; one scale a row is one group."""
    if int8_weights.dim() == 3:
        return int8_weights, scales
    return int8_weights.unsqueeze(1), scales.unsqueeze(1)


def embedding(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of `[N, K]`, dequantized: `[...]` indices to `[..., K]` in `dtype`; the table is never widened."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    rows = int8_weights[indices].to(compute)
    return (rows * scales[indices].to(compute).unsqueeze(-1)).to(dtype)


def dequantize(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """`q * s` in `dtype`, contiguous, for codes `[*scales.shape, ...]`; arguments are already checked."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    factors = scales.to(compute).reshape(scales.shape + (1,) * (int8_weights.dim() - scales.dim()))
    return (int8_weights.to(compute) * factors).to(dtype).contiguous()


def _products_with_rows(parts: list[Tensor], codes: Tensor) -> Tensor:
    """`x . q^T` for an x in parts."""
    blocks = [_product(parts, codes[rows].to(parts[0].dtype).T) for rows in _row_blocks(*codes.shape)]
    return torch.cat(blocks, dim=-1) if len(blocks) > 1 else blocks[0]


def _sum_of_rows(parts: list[Tensor], codes: Tensor) -> Tensor:
    """`x . q` for an x in parts."""
    first, *others = _row_blocks(*codes.shape)
    total = _product([part[..., first] for part in parts], codes[first].to(parts[0].dtype))
    for rows in others:
        total = total + _product([part[..., rows] for part in parts], codes[rows].to(parts[0].dtype))
    return total


def _product(parts: list[Tensor], matrix: Tensor) -> Tensor:
    total = parts[0] @ matrix
    for part in parts[1:]:
        total = total + part @ matrix
    return total


def _parts(values: Tensor, compute: torch.dtype, plain: bool) -> list[Tensor]:
    """Split `values` so that the matmul is exact to float32 whatever torch is allowed to do with it.

    `torch.set_float32_matmul_precision("high")` or `"medium"` lets matmuls round their factors to 11
    or 8 significant bits. int8 codes survive that; activations are given as up to three summands of 8
    bits each, which survive it too.
    """
    wide = values.to(compute)
    if plain or compute == torch.float64 or _matmul_keeps_float32():
        return [wide]
    parts = []
    for _ in range({torch.bfloat16: 1, torch.float16: 2}.get(values.dtype, 3)):
        upper = (wide.view(torch.int32) & _BFLOAT16_BITS).view(torch.float32)
        upper = torch.where(torch.isnan(wide), wide, upper)  # the bits that make it NaN may be the lower ones
        parts.append(upper)
        # What is left of Inf is nothing, not NaN.
        wide = torch.where(torch.isfinite(upper), wide - upper, torch.zeros_like(wide))
    return parts


def _matmul_keeps_float32() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # the newer settings, one for each library, are in use: be on the safe side
        return False


def _row_blocks(n: int, k: int) -> list[slice]:
    """Blocks of output channels; at least one, so that N = 0 and K = 0 need no special case."""
    rows = max(1, _BLOCK_ELEMENTS // max(k, 1))
    return [slice(start, start + rows) for start in range(0, max(n, 1), rows)]


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
