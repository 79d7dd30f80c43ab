"""`nn.Linear` with int8 weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from w8a16.errors import DtypeError
from w8a16.kernels import apply_linear
from w8a16.layers.base import QuantizedModule
from w8a16.layers.layout import ROWS
from w8a16.layers.nested import for_each_component
from w8a16.layers.refined import refined_linear
from w8a16.layers.tensor_names import CODES, SCALES


class W8A16LinearLayer(QuantizedModule, nn.Linear):
    """A linear layer with int8 weights and 16- or 32-bit activations; drops in for `nn.Linear`.

    `y = (x . int8_weights^T) * scales + bias`, summed in float32 and rounded once to the dtype of x.
    A fresh layer is usable and deterministic: codes 0, scales 1, bias 0.

    Buffers:
        int8_weights: int8 `[out_features, in_features]`.
        scales: float32 `[out_features]`; stays float32 through `.half()`, `.to(dtype)` and the like.
        bias: `[out_features]` in `dtype`, or None.

    It is a subclass of `nn.Linear`, so that adapters and tensor-parallel styles accept it; its
    `weight` is a read-only property, the dequantized weight in the original dtype.

    Args:
        in_features: size of the last dimension of the input (K).
        out_features: size of the last dimension of the output (N).
        bias: whether the layer adds a bias.
        device: device of the buffers.
        dtype: dtype of the bias, and of `weight` until `quantize` is called; default: torch's.

    Example:
        >>> layer = W8A16LinearLayer(16, 32)
        >>> layer.quantize(torch.randn(32, 16))
        W8A16LinearLayer(in_features=16, out_features=32, bias=True, weight_dtype=torch.float32)
        >>> layer(torch.randn(1, 6, 16)).shape
        torch.Size([1, 6, 32])
    """

    float_type: ClassVar[type[nn.Module]] = nn.Linear
    bias_is_buffer: ClassVar[bool] = True
    int8_weights: Tensor
    scales: Tensor
    in_features: int
    out_features: int
    bias: Tensor | None  # type: ignore[assignment]  # a buffer here, a parameter in nn.Linear

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would make the float weight
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self.in_features = in_features
        self.out_features = out_features
        self.weight_dtype = dtype
        self.layouts = {"weight": ROWS}
        # Tensors made in inference mode could never be saved for a backward pass.
        with torch.inference_mode(False):
            codes = torch.zeros((out_features, in_features), dtype=torch.int8, device=device)
            scales = torch.ones(out_features, dtype=torch.float32, device=device)
            offset = torch.zeros(out_features, dtype=dtype, device=device) if bias else None
        self.register_buffer(CODES, codes)
        self.register_buffer(SCALES, scales)
        self.register_buffer("bias", offset)

    def reset_parameters(self) -> None:
        """Return to the state of a fresh layer: codes 0, scales 1, bias 0."""
        self.int8_weights.zero_()
        self.scales.fill_(1)
        if self.bias is not None:
            self.bias.zero_()

    def quantize(self, weights: Tensor) -> W8A16LinearLayer:
        """Fill `int8_weights` and `scales` from a float weight; returns the layer.

        Args:
            weights: float16, bfloat16, float32 or float64 `[out_features, in_features]`. The `weight`
                property takes its dtype.

        Raises:
            ShapeError: another shape.
            DtypeError: not a dense float tensor, or one of weight and layer is on the meta device.
            WeightValueError: NaN or Inf, with the count and the first position.
        """
        super().quantize(weights)
        return self

    def _shape_words(self) -> str:
        return "[out_features, in_features] = "

    def write_weight(self, name: str, value: Tensor) -> None:
        """Quantize `value` into the weight, which may change its shape."""
        super().write_weight(name, value)
        self.out_features, self.in_features = self.layouts[name].float_shape(tuple(self.int8_weights.shape))

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`, in the dtype of the input."""
        if not isinstance(input, Tensor):
            raise DtypeError(f"input: expected a tensor, got {type(input).__name__}")
        if input.is_nested:
            return for_each_component(input, self.forward)
        layout = self.layouts["weight"]
        if layout.group or layout.outliers:
            return refined_linear(self, input)
        return apply_linear(input, self.int8_weights, self.scales, self.bias)

    def extra_repr(self) -> str:
        """Return the arguments of the constructor, as `nn.Linear` does."""
        refinement = self.layouts["weight"].refinement
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, weight_dtype={self.weight_dtype}"
            + (f", {refinement}" if refinement else "")
        )
