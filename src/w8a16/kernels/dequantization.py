"""The op `w8a16::dequantize`: codes of any shape back to floats, and the short way to its kernel.

What layers without a kernel of their own (convolutions, recurrent nets) compute with. Codes have no
gradient; where one is asked for the scales, and under torch.func, plain torch operations run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from w8a16.kernels import reference
from w8a16.kernels.arguments import check_dequantize
from w8a16.kernels.dispatch import below_autograd, is_differentiated, is_transformed
from w8a16.kernels.native_ops import try_dequantize
from w8a16.kernels.registry import select
from w8a16.kernels.schemas import LIBRARY

_is_compiling = torch.compiler.is_compiling
_op: Callable[[Tensor, Tensor, torch.dtype], Tensor] = torch.ops.w8a16.dequantize.default


def dequantize(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `q * s`, computed in float32 (float64 for float64) and rounded once to `dtype`.

    Args:
        int8_weights: int8 codes of any shape, e.g. `[N, K]`, `[N, C, 3, 3]` or `[E, N, K]`.
        scales: one float for each of the leading dimensions of the codes: `[N]`, or `[E, N]`.
        dtype: float16, bfloat16, float32 or float64.

    Returns:
        A new contiguous tensor in the shape of the codes.

    Raises:
        ShapeError: the scales do not have the leading dimensions of the codes.
        DtypeError: a dtype or device that cannot be used.

    Example:
        >>> dequantize(torch.tensor([[64, -127]], dtype=torch.int8), torch.tensor([0.5]), torch.float16)
        tensor([[ 32.0000, -63.5000]], dtype=torch.float16)
    """
    if not _is_compiling() and not is_differentiated(scales):
        result = try_dequantize(int8_weights, scales, dtype)
        if result is not None:
            return result
    return _op(int8_weights, scales, dtype)


def _plain(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_dequantize(int8_weights, scales, dtype)
    return reference.dequantize(int8_weights, scales, dtype)


def _compute(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_dequantize(int8_weights, scales, dtype)
    return select(int8_weights.device.type).dequantize(int8_weights, scales, dtype)


def _fake(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    check_dequantize(int8_weights, scales, dtype)
    return int8_weights.new_empty(int8_weights.shape, dtype=dtype)


def _autograd(keyset: Any, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    if is_transformed() or is_differentiated(scales):
        return _plain(int8_weights, scales, dtype)
    return below_autograd(_op, keyset, int8_weights, scales, dtype)


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], int8_weights: Tensor, scales: Tensor, dtype: torch.dtype
) -> tuple[Tensor, int]:
    # A batch is one more leading dimension.
    codes, factors = (
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip((int8_weights, scales), in_dims, strict=False)
    )
    return _op(codes, factors, dtype), 0


LIBRARY.impl("dequantize", _compute, "CompositeExplicitAutograd")
LIBRARY.impl("dequantize", _autograd, "Autograd", with_keyset=True)
torch.library.register_fake("w8a16::dequantize", _fake, lib=LIBRARY)
torch.library.register_vmap("w8a16::dequantize", _vmap, lib=LIBRARY)
