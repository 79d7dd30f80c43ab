"""`nn.Bilinear` with int8 weights: `y_n = s_n * sum_ij x1_i q_nij x2_j + b_n`.

M rows of input, I and J features of the two inputs, N output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from w8a16.errors import DtypeError, ShapeError
from w8a16.kernels import apply_linear, linear_input_grad
from w8a16.layers.base import QuantizedModule

_BLOCK_ELEMENTS = 1 << 20


class W8A16Bilinear(QuantizedModule, nn.Bilinear):
    """A bilinear layer on int8 codes `[N, I, J]`, with a scale for each output channel.

    Sums, scale and bias are in float32 (float64 for float64 input), with one rounding at the end.
    """

    float_type: ClassVar[type[nn.Module]] = nn.Bilinear
    int8_weights: Tensor
    scales: Tensor

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """`[..., I]` and `[..., J]` to `[..., N]`, in the dtype of the inputs."""
        self._check(input1, input2)
        compute = torch.float64 if input1.dtype == torch.float64 else torch.float32
        rows1, rows2 = (x.reshape(-1, x.shape[-1]).to(compute) for x in (input1, input2))
        output = _multiply(rows1, rows2, self.int8_weights) * self.scales.to(compute)
        if self.bias is not None:
            output = output + self.bias.to(compute)
        return output.to(input1.dtype).reshape(*input1.shape[:-1], output.shape[-1])

    def _check(self, input1: Tensor, input2: Tensor) -> None:
        for role, input, features in (
            ("input1", input1, self.in1_features),
            ("input2", input2, self.in2_features),
        ):
            if not input.is_floating_point() or input.dtype != input1.dtype:
                raise DtypeError(
                    f"{role}: expected two inputs of one float dtype, got {input1.dtype} and {input2.dtype}"
                )
            if input.dim() == 0 or input.shape[-1] != features or input.shape[:-1] != input1.shape[:-1]:
                raise ShapeError(
                    f"{role}: expected [..., {features}] with equal leading dimensions, got "
                    f"{list(input1.shape)} and {list(input2.shape)}"
                )


class _Bilinear(torch.autograd.Function):
    """`x1 q x2` for float32 or float64 `[M, I]` and `[M, J]`; no block is kept for the gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x1: Tensor, x2: Tensor, codes: Tensor) -> Tensor:
        """Each block of channels: first the product with x2, which the codes are rows for, then with x1."""
        blocks = [(_times_x2(x2, block) * x1.unsqueeze(1)).sum(-1) for block in _blocks(codes, len(x1))]
        return torch.cat(blocks, dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """`sum_n dy_n q_n x2` and `sum_n dy_n q_n^T x1`, block by block."""
        x1, x2, codes = ctx.saved_tensors
        grad1, grad2 = torch.zeros_like(x1), torch.zeros_like(x2)
        start = 0
        for block in _blocks(codes, len(x1)):
            part = grad[:, start : start + len(block)].unsqueeze(-1)
            start += len(block)
            if ctx.needs_input_grad[0]:
                grad1 = grad1 + (_times_x2(x2, block) * part).sum(1)
            if ctx.needs_input_grad[1]:
                outer = (part * x1.unsqueeze(1)).flatten(1)
                flat = block.flatten(0, 1)
                grad2 = grad2 + linear_input_grad(outer, flat, x1.new_ones(len(flat)))
        return grad1, grad2, None


_multiply: Callable[[Tensor, Tensor, Tensor], Tensor] = _Bilinear.apply


def _times_x2(x2: Tensor, block: Tensor) -> Tensor:
    """`[M, J]` and codes `[n, I, J]` to `[M, n, I]`."""
    flat = block.flatten(0, 1)
    return apply_linear(x2, flat, x2.new_ones(len(flat)), None).view(-1, *block.shape[:2])


def _blocks(codes: Tensor, rows: int) -> Iterator[Tensor]:
    """Blocks of output channels whose intermediate `[M, n, I]`, and whose codes, stay a few MiB."""
    channel = max(1, codes.shape[1] * max(rows, codes.shape[2]))
    yield from codes.split(max(1, _BLOCK_ELEMENTS // channel))
