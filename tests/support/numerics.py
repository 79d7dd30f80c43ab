"""Builders for the numeric tests: problems, exact references, shape lists and input layouts.

Letters: M activation rows, K input features, N output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from w8a16.core import output_tolerance

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
UNIT_ROUNDOFF = {
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
    torch.float32: 2.0**-24,
    torch.float64: 2.0**-53,
}

M_VALUES = (0, 1, 2, 3, 7, 8, 16, 17, 31, 33, 64, 257)
K_VALUES = (
    *(0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65),
    *(100, 127, 128, 129, 255, 257, 4096, 4097, 11008),
)
N_VALUES = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000, 4099)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def covering_shapes(limit: int = 2_000_000) -> list[tuple[int, int, int]]:
    """`(M, K, N)` with every value of each list: alone around a common base, then in mixed triples.

    `limit` bounds M * K * N of the mixed triples, so that an int64 reference stays fast.
    """
    m, k, n = 3, 65, 33
    shapes = [(value, k, n) for value in M_VALUES]
    shapes += [(m, value, n) for value in K_VALUES]
    shapes += [(m, k, value) for value in N_VALUES]
    for step in range(len(K_VALUES)):
        for shift in (1, 5):
            mixed = (
                M_VALUES[(step * shift) % len(M_VALUES)],
                K_VALUES[step],
                N_VALUES[(step + 7 * shift) % len(N_VALUES)],
            )
            if mixed[0] * mixed[1] * mixed[2] <= limit:
                shapes.append(mixed)
    return list(dict.fromkeys(shapes))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_codes(n: int, k: int, generator: torch.Generator) -> Tensor:
    """int8 codes in -127..127 without 0, so that no small output is zero by chance."""
    magnitude = torch.randint(1, 128, (n, k), generator=generator)
    sign = torch.randint(0, 2, (n, k), generator=generator) * 2 - 1
    return (magnitude * sign).to(torch.int8)


def random_weights(n: int, k: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Gaussian rows with standard deviations spread over 1e-6 .. 1e2."""
    generator = seeded(seed)
    spread = 10.0 ** (torch.rand(n, 1, generator=generator, dtype=torch.float64) * 8 - 6)
    return (torch.randn(n, k, generator=generator, dtype=torch.float64) * spread).to(dtype)


def positive_finite(dtype: torch.dtype) -> Tensor:
    """Every positive finite value of a 16-bit dtype, ascending."""
    patterns = torch.arange(1, 1 << 15).to(torch.int16).view(dtype)
    return patterns[torch.isfinite(patterns)]


class Problem(NamedTuple):
    """The arguments of `linear`, in its order."""

    input: Tensor
    int8_weights: Tensor
    scales: Tensor
    bias: Tensor | None


def random_problem(
    m: int, k: int, n: int, dtype: torch.dtype, *, seed: int = 0, bias: bool = True
) -> Problem:
    """Gaussian activations, dense codes, scales as in real layers; outputs fit float16."""
    generator = seeded(seed)
    x = torch.randn(m, k, generator=generator, dtype=torch.float64).to(dtype)
    scales = torch.rand(n, generator=generator) * 0.02 + 0.001
    vector = torch.randn(n, generator=generator, dtype=torch.float64).to(dtype) if bias else None
    return Problem(x, random_codes(n, k, generator), scales, vector)


def exact_output(problem: Problem) -> Tensor:
    """`x q^T * s + b` in float64."""
    x, q, s, b = problem
    y = (x.double() @ q.double().T) * s.double()
    return y if b is None else y + b.double()


def fraction_output(problem: Problem) -> Tensor:
    """`x q^T * s + b` in rationals, rounded once to float64: slow, for small problems."""
    x, q, s, b = (None if t is None else t.tolist() for t in problem)
    rows = [
        [
            float(
                sum((Fraction(a) * c for a, c in zip(row, codes, strict=True)), Fraction(0)) * Fraction(scale)
                + (0 if b is None else Fraction(b[channel]))
            )
            for channel, (codes, scale) in enumerate(zip(q, s, strict=True))
        ]
        for row in x
    ]
    return torch.tensor(rows, dtype=torch.float64)


def assert_within_tolerance(actual: Tensor, problem: Problem) -> None:
    """`actual` lies within `output_tolerance` of the exact value, and the comparison says something."""
    exact = exact_output(problem)
    tolerance = output_tolerance(*problem)
    assert actual.dtype == problem.input.dtype
    assert actual.shape == exact.shape
    if exact.numel() == 0:
        return
    error = (actual.double() - exact).abs()
    worst = (error / tolerance).nan_to_num(0).max().item()  # 0 / 0: no terms, and rightly no error
    assert (error <= tolerance).all(), f"error is {worst:.3g} times the tolerance"
    if problem.int8_weights.shape[1] > 0:
        assert_meaningful(exact, tolerance)


def assert_meaningful(reference: Tensor, tolerance: Tensor | None = None) -> None:
    """A reference of zeros, or a tolerance as large as the signal, would let anything pass."""
    assert reference.numel() > 0
    assert reference.norm() > 0
    assert (reference == 0).double().mean() < 0.3
    if tolerance is not None:
        assert tolerance.max() < reference.abs().max()


class IntegerProblem(NamedTuple):
    """A problem in small integers and powers of two, and its only right answer."""

    problem: Problem
    expected: Tensor


def integer_problem(
    m: int, k: int, n: int, dtype: torch.dtype, *, terms: int | None = None, seed: int = 0
) -> IntegerProblem:
    """Build a problem whose result does not depend on the order of the sum.

    Dense (`terms=None`): `sum |x q|` stays below 2^24, so a float32 sum is exact in every order, and
    the result is one rounding away from the int64 sum. Sparse: `terms` entries of +-1 a row keep
    |acc| within 127 * terms.
    """
    generator = seeded(seed)
    if terms is None:
        x = torch.randint(-8, 9, (m, k), generator=generator)
    else:
        order = torch.rand(m, k, generator=generator).argsort(dim=1)
        x = (order < terms).long() * (torch.randint(0, 2, (m, k), generator=generator) * 2 - 1)
    q = random_codes(n, k, generator)
    scales = 2.0 ** -torch.randint(3, 8, (n,), generator=generator).double()
    # A bias in multiples of the scale keeps the sum with it an integer number of steps.
    steps = torch.randint(-100, 101, (n,), generator=generator) if terms is None else torch.zeros(n).long()
    problem = Problem(x.to(dtype), q, scales.float(), (steps * scales).float())
    return IntegerProblem(problem, int64_output(problem))


def int64_output(problem: Problem) -> Tensor:
    """The result of a problem in integers and powers of two, by int64, in the input's dtype."""
    x, q, s, b = problem
    steps = x.long() @ q.long().T
    if b is not None:
        steps = steps + (b.double() / s.double()).long()
    assert steps.abs().max() <= 2**24 if steps.numel() else True
    return (steps.double() * s.double()).to(x.dtype)  # the product is exact: one rounding, if any


def at_odd_address(tensor: Tensor) -> Tensor:
    """A copy whose first byte lies at an odd address, as safetensors may hand it out."""
    count, size = tensor.numel(), tensor.element_size()
    buffer = torch.zeros(count * size + 2, dtype=torch.uint8)
    start = 1 if buffer.data_ptr() % 2 == 0 else 2
    moved = torch.frombuffer(buffer.numpy(), dtype=tensor.dtype, count=count, offset=start)
    moved = moved.view(tensor.shape)
    moved.copy_(tensor)
    assert moved.data_ptr() % 2 == 1
    return moved


def offset_by(elements: int) -> Callable[[Tensor], Tensor]:
    def layout(x: Tensor) -> Tensor:
        storage = x.new_full((x.numel() + elements,), float("nan"))
        view = storage[elements:].view(x.shape)
        return view.copy_(x)

    return layout


def strided_columns(x: Tensor) -> Tensor:
    # NaN between the columns: reading one by mistake poisons the sum.
    wide = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"))
    view = wide[..., ::2]
    return view.copy_(x)


def strided_rows(x: Tensor) -> Tensor:
    tall = x.new_full((3 * x.shape[0], *x.shape[1:]), float("nan"))
    return tall[::3].copy_(x)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.clone(),
    "strided columns": strided_columns,
    "strided rows": strided_rows,
    "transposed": lambda x: x.T.contiguous().T,
    "expanded rows": lambda x: x[:1].expand(x.shape[0], -1),
    "expanded columns": lambda x: x[:, :1].expand(-1, x.shape[1]),
    "part of a wider matrix": lambda x: torch.cat([x, x, x], 1)[:, x.shape[1] : 2 * x.shape[1]],
    "lazily negated": lambda x: torch._neg_view(-x),
    "odd address": at_odd_address,
    **{f"offset {elements}": offset_by(elements) for elements in range(1, 16)},
}
"""Ways to hold an `[M, K]` matrix in memory; the expanded ones repeat its first row or column."""
