"""Several weights, each for its own rows: the bits of `linear` row by row, on every backend."""

import pytest
import torch

from support.numerics import (
    DTYPES,
    LAYOUTS,
    Problem,
    assert_within_tolerance,
    at_odd_address,
    integer_problem,
    name_of,
    random_problem,
)
from w8a16.core import FLOAT_DTYPES
from w8a16.kernels import grouped_linear, linear, select

op = torch.ops.w8a16.grouped_linear.default

# Rows of each expert; the first and the last number are rows that belong to none.
GROUPS = {
    "even": (0, [3, 3, 3], 0),
    "some empty": (0, [0, 2, 0, 0, 5, 1, 0], 0),
    "all empty": (0, [0, 0, 0], 0),
    "one has all": (0, [0, 9, 0], 0),
    "one expert": (0, [7], 0),
    "rows of none": (2, [3, 0, 1], 4),
    "only rows of none": (0, [0, 0], 5),
    "no rows": (0, [0, 0], 0),
    "no experts": (0, [], 6),
    "neither": (0, [], 0),
    "narrow and wide": (1, [1, 300, 2, 40, 0, 17], 1),
    "many": (0, [1, 0, 2] * 40, 0),
}


def offsets_of(groups):
    before, counts, _ = groups
    return torch.tensor([before, *counts], dtype=torch.int64).cumsum(0)


def grouped(groups, k, n, dtype, build=random_problem, bias=True, **more):
    """The arguments of `grouped_linear`, and the problem of each expert."""
    before, counts, after = groups
    parts = [build(count, k, n, dtype, seed=17 * e + k + n, **more) for e, count in enumerate(counts)]
    problems = [part.problem if build is integer_problem else part for part in parts]
    rows = [torch.full((before, k), 3.0, dtype=dtype), *(p.input for p in problems)]
    x = torch.cat([*rows, torch.full((after, k), float("nan"), dtype=dtype)])
    q = torch.stack([p.int8_weights for p in problems]) if counts else torch.empty(0, n, k, dtype=torch.int8)
    scales = torch.stack([p.scales for p in problems]) if counts else torch.empty(0, n)
    vectors = [p.bias for p in problems]
    biases = (torch.stack(vectors) if counts else torch.empty(0, n)) if bias else None
    if not bias:
        problems = [p._replace(bias=None) for p in problems]
    return (x, q, scales, biases, offsets_of(groups)), problems


def uses_the_kernel(arguments):
    return all(t is None or t.dtype != torch.float64 for t in arguments[:4])


def assert_right(y, arguments, problems):
    x, q, _, _, offsets = arguments
    assert (y.shape, y.dtype) == ((x.shape[0], q.shape[1]), x.dtype)
    assert y.is_contiguous()
    bounds = offsets.tolist()
    for problem, begin, end in zip(problems, bounds[:-1], bounds[1:], strict=True):
        assert_within_tolerance(y[begin:end], problem)
        # torch's own products, of the reference and of float64, may depend on where in memory a row lies.
        if select("cpu").name != "reference" and uses_the_kernel(arguments):
            assert torch.equal(y[begin:end], linear(*problem))
    assert not y[: bounds[0]].any()
    assert not y[bounds[-1] :].any()


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_the_bits_of_linear(groups, dtype):
    for k, n in ((65, 33), (257, 200)):
        for bias in (True, False):
            arguments, problems = grouped(groups, k, n, dtype, bias=bias)
            for function in (grouped_linear, op):
                assert_right(function(*arguments), arguments, problems)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_shapes(dtype):
    for k in (1, 2, 7, 8, 9, 31, 64, 127, 1025, 4097):
        arguments, problems = grouped((1, [2, 0, 3], 2), k, 17, dtype)
        assert_right(grouped_linear(*arguments), arguments, problems)
    for n in (1, 2, 7, 8, 23, 24, 25, 48, 193, 1000):
        arguments, problems = grouped((1, [2, 0, 3], 2), 33, n, dtype)
        assert_right(grouped_linear(*arguments), arguments, problems)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_exact_integers(groups, dtype):
    terms = {torch.float16: 8, torch.bfloat16: 2}.get(dtype)
    parts = [integer_problem(count, 65, 70, dtype, terms=terms, seed=e) for e, count in enumerate(groups[1])]
    arguments, _ = grouped(groups, 65, 70, dtype, build=integer_problem, terms=terms)
    x, _, _, _, offsets = arguments
    if parts:
        rows = [x[: groups[0]], *(p.problem.input for p in parts), x[len(x) - groups[2] :]]
        stacks = [torch.stack([p.problem[place] for p in parts]) for place in (1, 2, 3)]
        y = grouped_linear(torch.cat(rows), *stacks, offsets)
        expected = torch.cat([p.expected for p in parts])
        assert torch.equal(y[groups[0] : len(x) - groups[2]], expected)
        assert expected.numel() == 0 or expected.double().norm() > 0
    else:
        assert not grouped_linear(*arguments).any()


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_no_features(dtype):
    offsets = torch.tensor([1, 3, 3, 4])
    scales, bias = torch.ones(3, 5), torch.arange(15.0).view(3, 5)
    y = grouped_linear(
        torch.empty(6, 0, dtype=dtype), torch.empty(3, 5, 0, dtype=torch.int8), scales, bias, offsets
    )
    assert torch.equal(y, torch.stack([bias[0] * 0, bias[0], bias[0], bias[2], *[bias[0] * 0] * 2]).to(dtype))
    y = grouped_linear(
        torch.ones(6, 7, dtype=dtype),
        torch.empty(3, 0, 7, dtype=torch.int8),
        *(torch.empty(3, 0), None, offsets),
    )
    assert y.shape == (6, 0)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("expanded")])
def test_layouts_of_the_input(layout, dtype):
    arguments, problems = grouped(GROUPS["some empty"], 65, 33, dtype)
    x = LAYOUTS[layout](arguments[0])
    assert_right(grouped_linear(x, *arguments[1:]), arguments, problems)
    assert_right(op(x, *arguments[1:]), arguments, problems)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_other_layouts(dtype):
    arguments, problems = grouped(GROUPS["rows of none"], 65, 33, dtype)
    x, q, scales, bias, offsets = arguments

    def check(*values):
        assert_right(grouped_linear(*values), arguments, problems)
        assert_right(op(*values), arguments, problems)

    for codes in (
        q.transpose(1, 2).contiguous().transpose(1, 2),
        q.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        q.transpose(0, 1).contiguous().transpose(0, 1),
        torch.cat([q, q, q], 2)[..., 65:130],
        torch.cat([q, q], 1)[:, :33],
        torch.stack([q, q], -1)[..., 1],
        at_odd_address(q),
    ):
        assert torch.equal(codes, q)
        check(x, codes, scales, bias, offsets)
    check(x, q, scales.T.contiguous().T, torch.stack([bias, bias], -1)[..., 0], offsets)
    check(x, q, at_odd_address(scales), at_odd_address(bias), torch.stack([offsets, offsets], 1)[:, 0])
    check(torch._neg_view(-x), q, torch._neg_view(-scales), torch._neg_view(-bias), offsets)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_float_dtypes_of_scales_and_bias(dtype):
    (x, q, scales, bias, offsets), problems = grouped(GROUPS["some empty"], 65, 33, dtype)
    for of_scales in FLOAT_DTYPES:
        for of_bias in FLOAT_DTYPES:
            cast = [p._replace(scales=p.scales.to(of_scales), bias=p.bias.to(of_bias)) for p in problems]
            arguments = (x, q, scales.to(of_scales), bias.to(of_bias), offsets)
            assert_right(grouped_linear(*arguments), arguments, cast)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_same_bits_on_any_number_of_threads(dtype):
    for groups in ((3, [1, 0, 90, 2, 5, 300], 1), (0, [1, 1, 0, 1], 0), (0, [2000], 0)):
        arguments, problems = grouped(groups, 515, 257, dtype)
        before, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                results.append(grouped_linear(*arguments))
        finally:
            torch.set_num_threads(before)
        for y in results:
            for p, b, e in zip(problems, arguments[4][:-1], arguments[4][1:], strict=True):
                assert_within_tolerance(y[b:e], p)
        if select("cpu").name != "reference" and uses_the_kernel(arguments):
            assert all(torch.equal(y, results[0]) for y in results)


@pytest.mark.every_backend
def test_infinity_and_nan_stay_in_their_rows():
    arguments, _ = grouped((0, [2, 2], 0), 33, 20, torch.float32)
    clean = grouped_linear(*arguments)
    arguments[0][1, 5], arguments[0][3, 0] = float("nan"), float("inf")
    y = grouped_linear(*arguments)
    assert torch.equal(y[[0, 2]], clean[[0, 2]])
    assert y[1].isnan().all()
    assert y[3].isinf().all()


def test_a_large_step_between_weights():
    # Only two of the rows are ever touched: an offset of more than 2^31 codes needs address space alone.
    step = 2**31 + 5
    storage = torch.empty(2 * step, dtype=torch.int8)
    q = storage.as_strided((3, 4, 8), (step - 64, 8, 1))
    q[0], q[2] = 1, 2
    offsets = torch.tensor([0, 1, 1, 2])
    y = grouped_linear(torch.ones(2, 8), q, torch.ones(3, 4), None, offsets)
    assert torch.equal(y, torch.tensor([[8.0] * 4, [16.0] * 4]))


def test_problems_are_as_assumed():
    # What the comparisons above rest on: the experts differ, so taking another's weight would show.
    _, problems = grouped(GROUPS["even"], 65, 33, torch.float32)
    first, second = (Problem(problems[0].input, *p[1:]) for p in problems[:2])
    with pytest.raises(AssertionError, match="times the tolerance"):
        assert_within_tolerance(linear(*second), first)
