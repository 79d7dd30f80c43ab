"""Builders for the tests of refined weights: problems in groups and with outliers, and their bounds.

The bounds extend those of `w8a16.core.output_tolerance`. An output is a sum of K products, R outliers and
a bias; each term is rounded at most once as a product, once by its scale and once in each addition, so
`n = K + R + 2` roundings in all. A column of the gradient sums N products and at most N * R outliers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from support.numerics import UNIT_ROUNDOFF, assert_meaningful, seeded

SMALLEST_SUBNORMAL = {
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-133,
    torch.float32: 2.0**-149,
    torch.float64: 2.0**-1074,
}
M_VALUES = (0, 1, 2, 3, 7, 8, 16, 31, 33, 64)
GROUPS = ((4, 16), (3, 32), (5, 48), (2, 128), (9, 128), (2, 1040), (3, 7), (2, 24), (1, 64))
"""`(G, S)`: with a kernel, and, where S is not a multiple of 16, without."""


class Refined(NamedTuple):
    """The arguments of `apply_refined_linear`, in its order."""

    input: Tensor
    int8_weights: Tensor
    scales: Tensor
    bias: Tensor | None
    outlier_columns: Tensor | None
    outlier_values: Tensor | None


def refined_problem(
    m: int,
    n: int,
    groups: tuple[int, int] | int,
    outliers: int,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    bias: bool = True,
    exact: bool = False,
) -> Refined:
    """A problem with `groups` `(G, S)`, or K columns in one row; `exact` of small integers and halves."""
    generator = seeded(seed)
    grouped = not isinstance(groups, int)
    count, size = groups if not isinstance(groups, int) else (1, groups)
    k = count * size

    def numbers(*shape: int) -> Tensor:
        if exact:
            return torch.randint(1, 5, shape, generator=generator).double() / 2 * signs(*shape)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def signs(*shape: int) -> Tensor:
        return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1

    # Few activations are not zero in exact problems, so that half-precision sums need no rounding.
    most = {torch.float16: 32, torch.bfloat16: 6}.get(dtype, 2000)
    kept = torch.rand(m, k, generator=generator) * max(k, 1) < most / 2
    x = (signs(m, k) * (kept if k > most else 1) if exact else numbers(m, k)).to(dtype)
    limit = 7 if exact else 127
    codes = torch.randint(1, limit + 1, (n, count, size), generator=generator) * signs(n, count, size)
    scales = torch.randint(1, 3, (n, count), generator=generator) / 2 if exact else None
    if scales is None:
        scales = torch.rand(n, count, generator=generator) * 0.02 + 0.001
    q, s = codes.to(torch.int8), scales.float()
    vector = numbers(n).to(dtype) if bias else None
    columns = values = None
    if outliers:
        columns = torch.rand(n, k, generator=generator).topk(outliers).indices.sort(1).values.int()
        values = numbers(n, outliers).float()
    return Refined(x, q if grouped else q[:, 0], s if grouped else s[:, 0], vector, columns, values)


def dense_weights(problem: Refined) -> tuple[Tensor, Tensor]:
    """The weights in float64 `[N, K]`, and the sum of the magnitudes that make each."""
    _, q, s, _, columns, values = problem
    weights = (q.double() * s.double().unsqueeze(-1)).flatten(1)
    sizes = weights.abs()
    if columns is not None and values is not None:
        weights = weights.scatter_add(1, columns.long(), values.double())
        sizes = sizes.scatter_add(1, columns.long(), values.double().abs())
    return weights, sizes


def exact_output(problem: Refined) -> Tensor:
    """The output in float64 `[M, N]`."""
    y = problem.input.double() @ dense_weights(problem)[0].T
    return y if problem.bias is None else y + problem.bias.double()


def assert_output(actual: Tensor, problem: Refined) -> None:
    """`actual` is within the bound of an output, element by element."""
    weights, sizes = dense_weights(problem)
    size = problem.input.double().abs() @ sizes.T
    if problem.bias is not None:
        size = size + problem.bias.double().abs()
    outliers = 0 if problem.outlier_columns is None else problem.outlier_columns.shape[1]
    _assert_within(actual, exact_output(problem), size, weights.shape[1] + outliers + 2, problem.input.dtype)


def assert_input_grad(actual: Tensor, grad_output: Tensor, problem: Refined) -> None:
    """`actual` is within the bound of an input gradient, element by element."""
    weights, sizes = dense_weights(problem)
    n = weights.shape[0]
    outliers = 0 if problem.outlier_columns is None else problem.outlier_columns.shape[1]
    exact, size = grad_output.double() @ weights, grad_output.double().abs() @ sizes
    _assert_within(actual, exact, size, n * (1 + outliers) + 2, grad_output.dtype)


def _assert_within(actual: Tensor, exact: Tensor, size: Tensor, roundings: int, dtype: torch.dtype) -> None:
    accumulator = UNIT_ROUNDOFF[torch.float64 if dtype == torch.float64 else torch.float32]
    g, u = roundings * accumulator / (1 - roundings * accumulator), UNIT_ROUNDOFF[dtype]
    tolerance = g * size + u * (1 + g) * exact.abs() + u * g * size + SMALLEST_SUBNORMAL[dtype] / 2
    assert actual.dtype == dtype
    assert actual.shape == exact.shape
    if exact.numel() == 0:
        return
    error = (actual.double() - exact).abs()
    assert (error <= tolerance).all(), f"error is {(error / tolerance).max():.3g} times the tolerance"
    if exact.numel() > 20:
        assert_meaningful(exact, tolerance)
