"""The public function: a linear map with int8 weights and 16- or 32-bit activations."""

from __future__ import annotations

from torch import Tensor

from w8a16.errors import DtypeError, ShapeError
from w8a16.kernels.inference import apply_linear


def w8_a16_forward(weight: Tensor, input: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply `y = (input . weight^T) * scales + bias` with an int8 weight.

    The sum, the scale and the bias are in float32 (float64 for float64 input); the result is rounded
    once, to the dtype of the input. Differentiable with respect to input, scales and bias.

    Args:
        weight: int8 `[N, K]`.
        input: float16, bfloat16, float32 or float64 `[..., K]`.
        scales: float `[N]` or `[1, N]`; float32 is the precision the weights deserve.
        bias: float `[N]` or `[1, N]`, or None.

    Returns:
        `[..., N]` in the dtype of `input` (under autocast: in the autocast dtype).

    Raises:
        ShapeError: a shape does not fit the weight (also a `ValueError`).
        DtypeError: a dtype or device that cannot be used (also a `TypeError`).

    Example:
        >>> weight = torch.randint(-128, 127, (32, 16), dtype=torch.int8)
        >>> w8_a16_forward(weight, torch.randn(1, 6, 16), torch.rand(32), torch.randn(1, 32)).shape
        torch.Size([1, 6, 32])
    """
    for name, tensor in (("weight", weight), ("input", input), ("scales", scales)):
        if not isinstance(tensor, Tensor):
            raise DtypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if bias is not None:
        if not isinstance(bias, Tensor):
            raise DtypeError(f"bias: expected a tensor or None, got {type(bias).__name__}")
        bias = _vector(bias, "bias")
    return apply_linear(input, weight, _vector(scales, "scales"), bias)


def _vector(tensor: Tensor, name: str) -> Tensor:
    """Accept `[1, N]` for `[N]`: both forms are in use for per-channel scales."""
    if tensor.dim() == 2 and tensor.shape[0] == 1:
        return tensor.squeeze(0)
    if tensor.dim() != 1:
        raise ShapeError(f"{name}: expected [N] or [1, N], got {list(tensor.shape)}")
    return tensor
