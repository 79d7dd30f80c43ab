"""The kernels applied to tensors: the functions of the `cpu-native` backend.

Arguments are already checked. Whatever a kernel does not take (float64, an unusual layout) is brought
into shape first, or goes to the reference; the result is the same.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from w8a16.errors import ResourceError
from w8a16.kernels import reference
from w8a16.kernels.cpu import structures
from w8a16.kernels.cpu.library import native, problem, threads_note
from w8a16.kernels.cpu.structures import DTYPES, FloatVector
from w8a16.kernels.cpu.variants import chosen_variant


def why_not(device_type: str) -> str | None:
    """Why the native kernels cannot run on a device type, or None where they can."""
    if device_type != "cpu":
        return f"runs on cpu, not on {device_type}"
    reason = problem()
    if reason is None:
        chosen_variant()  # a wrong W8A16_CPU_ISA is an error, not a reason to run something else
    return reason


def note() -> str:
    """The instruction set and the threads that run, for people."""
    return f"{chosen_variant()}, {threads_note()}; float64 goes to the reference"


def linear(input: Tensor, int8_weights: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """`[..., K]` times `[N, K]` to `[..., N]` in the input's dtype."""
    if not all_known(input, scales, bias):
        return reference.linear(input, int8_weights, scales, bias)
    n, k = int8_weights.shape
    x, q, scales, bias = (
        rows_of(input),
        unit_columns(int8_weights),
        plain(scales),
        None if bias is None else plain(bias),
    )
    y = torch.empty((*input.shape[:-1], n), dtype=input.dtype, device="cpu")
    problem = structures.Linear(
        *(x.data_ptr(), x.stride(0), q.data_ptr(), q.stride(0), FloatVector.of(scales), FloatVector.of(bias)),
        *(y.data_ptr(), n, x.shape[0], k, n, DTYPES[x.dtype], False),
    )
    succeeded(native().w8a16_linear(ctypes.byref(problem)), input)
    return y


def linear_input_grad(grad_output: Tensor, int8_weights: Tensor, scales: Tensor) -> Tensor:
    """`(dy * s) . q`: `[..., N]` to `[..., K]` in the gradient's dtype."""
    if not all_known(grad_output, scales):
        return reference.linear_input_grad(grad_output, int8_weights, scales)
    n, k = int8_weights.shape
    dy, q, scales = rows_of(grad_output), unit_columns(int8_weights), plain(scales)
    dx = torch.empty((*grad_output.shape[:-1], k), dtype=grad_output.dtype, device="cpu")
    problem = structures.LinearInputGrad(
        *(dy.data_ptr(), dy.stride(0), q.data_ptr(), q.stride(0), FloatVector.of(scales)),
        *(dx.data_ptr(), k, dy.shape[0], k, n, DTYPES[dy.dtype]),
    )
    succeeded(native().w8a16_linear_input_grad(ctypes.byref(problem)), grad_output)
    return dx


def embedding(indices: Tensor, int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of `[N, K]`, dequantized: `[...]` indices to `[..., K]` in `dtype`. Indices are in range."""
    k = int8_weights.shape[1]
    known = dtype in DTYPES and scales.dtype in DTYPES
    # A copy of the table would cost more than the rows that are asked for.
    in_order = (int8_weights.stride(1) == 1 or k <= 1) and scales.is_contiguous() and not scales.is_neg()
    if not known or not in_order or int8_weights.is_neg():
        return reference.embedding(indices, int8_weights, scales, dtype)
    rows, q = indices.to(torch.int64).contiguous(), int8_weights
    y = torch.empty((*indices.shape, k), dtype=dtype, device="cpu")
    problem = structures.Gather(
        *(rows.data_ptr(), q.data_ptr(), q.stride(0), FloatVector.of(scales)),
        *(y.data_ptr(), rows.numel(), k, DTYPES[dtype]),
    )
    native().w8a16_gather(ctypes.byref(problem))
    return y


def dequantize(int8_weights: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """`q * s` in `dtype`, contiguous, for codes `[*scales.shape, ...]`."""
    if dtype not in DTYPES or scales.dtype not in DTYPES:
        return reference.dequantize(int8_weights, scales, dtype)
    q, scales = plain(int8_weights), plain(scales)
    m, k = scales.numel(), int8_weights.shape[scales.dim() :].numel()
    y = torch.empty(int8_weights.shape, dtype=dtype, device="cpu")
    problem = structures.Gather(
        *(None, q.data_ptr(), k, FloatVector.of(scales), y.data_ptr(), m, k, DTYPES[dtype])
    )
    native().w8a16_gather(ctypes.byref(problem))
    return y


def quantize(
    weights: Tensor,
    codes: Tensor,
    scales: Tensor,
    errors: Tensor | None = None,
    *,
    one_thread: bool = False,
) -> structures.QuantizeResult:
    """Fill `codes` (int8 `[N, K]`) and `scales` (float32 `[N]`) from a float weight `[N, K]`.

    `errors`, float32 `[N, 3]`, gets for each row the sums of squares of the weight and of its error, in
    steps, and the largest error in half-steps. With `one_thread` the calling thread does it all, and the
    sums of the result are added up row by row.

    Returns:
        How many rows hold NaN or Inf (those are not written), are too small for a scale, or all zero, and
        what `errors` comes to for all rows.
    """
    weights = unit_columns(weights)
    n, k = weights.shape
    problem = structures.Quantize(
        *(weights.data_ptr(), weights.stride(0), DTYPES[weights.dtype], codes.data_ptr()),
        *(scales.data_ptr(), None if errors is None else errors.data_ptr(), k, n),
    )
    result = structures.QuantizeResult()
    run = native().w8a16_quantize_slice if one_thread else native().w8a16_quantize
    run(ctypes.byref(problem), ctypes.byref(result))
    return result


def succeeded(done: int, values: Tensor) -> None:
    """Raise where a kernel answered that memory is short."""
    if not done:
        raise ResourceError(
            f"not enough memory for the few MiB a thread that the kernels work in ({list(values.shape)} "
            f"activations, {torch.get_num_threads()} threads)"
        )


def all_known(*tensors: Tensor | None) -> bool:
    """Whether the kernels have the dtype of every tensor."""
    return all(t is None or t.dtype in DTYPES for t in tensors)


def rows_of(values: Tensor) -> Tensor:
    """`[..., K]` as `[M, K]` with unit columns."""
    flat = values.reshape(-1, values.shape[-1]) if values.shape[-1] else values.new_empty((_count(values), 0))
    return unit_columns(flat)


def _count(values: Tensor) -> int:
    return values.shape[:-1].numel()


def unit_columns(matrix: Tensor) -> Tensor:
    """The matrix, or matrices, with the elements of a row behind one another: a copy if need be."""
    matrix = matrix.resolve_neg()
    return matrix if matrix.stride(-1) == 1 or matrix.shape[-1] <= 1 else matrix.contiguous()


def plain(tensor: Tensor) -> Tensor:
    """The tensor, contiguous and with its own values: a copy if need be."""
    return tensor.resolve_neg().contiguous()
