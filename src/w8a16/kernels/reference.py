"""The law in plain torch: slow, readable, right. Every other backend is tested against it.

    y = cast_to_input_dtype((x . q^T) * s + b)

The sum, the scale and the bias are in float32 (float64 for float64 input), with one rounding at the
end. The scale is applied after the sum, never before the cast to half precision: a float16
activation of 516 against a code of 127 is already beyond float16.

Codes are widened in blocks of output channels, so the float copy in flight stays a few MiB.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 1 << 20


def linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`[..., K]` times `[N, K]` to `[..., N]` in the input's dtype; arguments are already checked."""
    compute = _accumulator(input)
    n, k = int8_weights.shape
    x = input.to(compute)
    # K = 0 has nothing to sum: the empty product is zero and the bias remains.
    y = x.new_zeros((*x.shape[:-1], n)) if k == 0 else _block_products(x, int8_weights)
    y = y.mul_(scales.to(compute))
    if bias is not None:
        y = y.add_(bias.to(compute))
    return y.to(input.dtype)


def linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    """`(dy * s) . q`: `[..., N]` to `[..., K]` in the gradient's dtype; arguments are already checked."""
    compute = _accumulator(grad_output)
    n, k = int8_weights.shape
    scaled = grad_output.to(compute) * scales.to(compute)
    total = scaled.new_zeros((*scaled.shape[:-1], k))
    for rows in _row_blocks(n, k):
        total += scaled[..., rows] @ int8_weights[rows].to(compute)
    return total.to(grad_output.dtype)


def _block_products(x: Tensor, int8_weights: Tensor) -> Tensor:
    n, k = int8_weights.shape
    blocks = [x @ int8_weights[rows].to(x.dtype).T for rows in _row_blocks(n, k)]
    if not blocks:  # N = 0
        return x.new_zeros((*x.shape[:-1], 0))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)


def _row_blocks(n: int, k: int) -> list[slice]:
    rows = max(1, _BLOCK_ELEMENTS // max(k, 1))
    return [slice(start, start + rows) for start in range(0, n, rows)]


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
