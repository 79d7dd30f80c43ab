"""Convolutions with int8 weights: dequantized for each forward, then torch's own operator runs.

A convolution uses every weight many times, so the dequantization is a small part of its work, and
torch's operators (all paddings, strides, groups and memory formats) remain what computes.

N output channels, C input channels, g groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import Layout


class _Convolution(QuantizedModule):
    """The forward of `nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`; codes `[N, C/g, *kernel]`."""

    bias: Tensor | None
    int8_weights: Tensor
    scales: Tensor
    _conv_forward: Callable[[Tensor, Tensor, Tensor | None], Tensor]

    def forward(self, input: Tensor) -> Tensor:
        """As the float layer, in the dtype of the input."""
        return self._conv_forward(input, *self._weight_and_bias(input.dtype))

    def _weight_and_bias(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        bias = self.bias
        return self.dequantized("weight", dtype), None if bias is None else bias.to(dtype)


class _TransposedConvolution(_Convolution):
    """The forward of the transposed ones; float weight `[C, N/g, *kernel]`, codes `[N, C/g, *kernel]`."""

    _operator: ClassVar[Callable[..., Tensor]]
    _output_padding: Callable[..., list[int]]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def find_layouts(cls, module: nn.Module) -> dict[str, Layout]:
        """One scale for each output channel, which lie in the second dimension, group by group."""
        groups: Any = module.groups
        return {"weight": Layout(swapped=True, groups=groups)}

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As the float layer, in the dtype of the input."""
        kernel, stride, padding, dilation = self.kernel_size, self.stride, self.padding, self.dilation
        output_padding = self._output_padding(
            input, output_size, stride, padding, kernel, len(kernel), dilation
        )
        weight, bias = self._weight_and_bias(input.dtype)
        return type(self)._operator(
            input, weight, bias, stride, padding, output_padding, self.groups, dilation
        )


class W8A16Conv1d(_Convolution, nn.Conv1d):
    """`nn.Conv1d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.Conv1d


class W8A16Conv2d(_Convolution, nn.Conv2d):
    """`nn.Conv2d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.Conv2d


class W8A16Conv3d(_Convolution, nn.Conv3d):
    """`nn.Conv3d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.Conv3d


class W8A16ConvTranspose1d(_TransposedConvolution, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.ConvTranspose1d
    _operator = staticmethod(functional.conv_transpose1d)


class W8A16ConvTranspose2d(_TransposedConvolution, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.ConvTranspose2d
    _operator = staticmethod(functional.conv_transpose2d)


class W8A16ConvTranspose3d(_TransposedConvolution, nn.ConvTranspose3d):
    """`nn.ConvTranspose3d` with int8 weights."""

    float_type: ClassVar[type[nn.Module]] = nn.ConvTranspose3d
    _operator = staticmethod(functional.conv_transpose3d)
