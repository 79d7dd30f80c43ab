"""Weights in groups and with outliers: the law, on every backend, in every shape and layout."""

import pytest
import torch

from support.numerics import DTYPES, LAYOUTS, at_odd_address, name_of, seeded
from support.refined import (
    GROUPS,
    M_VALUES,
    assert_input_grad,
    assert_output,
    exact_output,
    refined_problem,
)
from w8a16.kernels import (
    apply_refined_linear,
    dequantize,
    linear,
    refined_linear,
    refined_linear_input_grad,
    select,
)

KINDS = {
    "groups": [(size, 0) for size in GROUPS],
    "outliers": [(64, 1), (65, 4), (300, 4), (1500, 3), (5, 5), (1, 1)],
    "both": [((3, 32), 2), ((2, 128), 4), ((3, 7), 1)],
    "neither": [(65, 0)],
}


def check(problem):
    for function in (apply_refined_linear, refined_linear):
        y = function(*problem)
        assert y.is_contiguous()
        assert_output(y, problem)
    x, q, s, _, *outliers = problem
    grad = torch.randn(len(x), len(q), generator=seeded(1), dtype=torch.float64).to(x.dtype)
    assert_input_grad(refined_linear_input_grad(grad, q, s, *outliers), grad, problem)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS)
def test_within_tolerance(kind, dtype):
    cases = 0
    for seed, (groups, outliers) in enumerate(KINDS[kind]):
        for m in M_VALUES[seed % 3 :: 3]:
            for n in ((33, 1), (64, 7), (17, 100))[(seed + m) % 3]:
                check(refined_problem(m, n, groups, outliers, dtype, seed=m + n, bias=(m + n) % 3 > 0))
                cases += 1
    assert cases >= 3


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_more_outputs_than_a_block(dtype):
    check(refined_problem(40, 1100, (3, 32), 0, dtype))
    check(refined_problem(3, 1100, 90, 2, dtype))
    check(refined_problem(200, 250, 70, 2, dtype))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("kind", KINDS)
def test_exact_integers(kind, dtype):
    seen = 0
    for seed, (groups, outliers) in enumerate(KINDS[kind]):
        for m in (1, 2, 7, 33):
            problem = refined_problem(m, 65, groups, outliers, dtype, seed=seed, exact=True)
            expected = exact_output(problem)
            assert torch.equal(expected, expected.to(dtype).double())  # nothing is rounded
            assert torch.equal(apply_refined_linear(*problem).double(), expected)
            seen += int((expected != 0).sum())
    assert seen > 200


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_one_group_or_no_outliers_is_linear(dtype):
    x, q, s, b, _, _ = refined_problem(7, 33, 65, 0, dtype)
    columns, values = torch.zeros(33, 0, dtype=torch.int32), torch.zeros(33, 0)
    for arguments in ((q, s, b), (q, s, b, columns, values), (q[:, None], s[:, None], b)):
        y = apply_refined_linear(x, *arguments)
        assert_output(y, refined_problem(7, 33, 65, 0, dtype))
        if select("cpu").name != "reference" and dtype != torch.float64:
            assert torch.equal(y, linear(x, q, s, b))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0, 3)], ids=str)
def test_batch_dimensions(batch, dtype):
    problem = refined_problem(torch.Size(batch).numel(), 33, (3, 32), 2, dtype)
    y = apply_refined_linear(problem.input.reshape(*batch, 96), *problem[1:])
    assert y.shape == (*batch, 33)
    assert_output(y.reshape(-1, 33), problem)
    dx = refined_linear_input_grad(y, *problem[1:3], *problem[4:])
    assert dx.shape == (*batch, 96)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_sizes_of_zero(dtype):
    columns, values = torch.zeros(3, 0, dtype=torch.int32), torch.zeros(3, 0)
    bias = torch.tensor([1.0, 2.0, 3.0])
    for shape in ((3, 0), (3, 0, 16), (3, 2, 0)):
        q, s = torch.zeros(shape, dtype=torch.int8), torch.ones(shape[:-1])
        y = apply_refined_linear(torch.zeros(2, 0, dtype=dtype), q, s, bias, columns, values)
        assert torch.equal(y, bias.to(dtype).expand(2, 3))
        assert refined_linear_input_grad(y, q, s, columns, values).shape == (2, 0)
    q, s = torch.zeros(0, 2, 16, dtype=torch.int8), torch.ones(0, 2)
    y = apply_refined_linear(torch.ones(2, 32, dtype=dtype), q, s, None, columns[:0], values[:0])
    assert y.shape == (2, 0)
    assert torch.equal(refined_linear_input_grad(y, q, s, None, None), torch.zeros(2, 32, dtype=dtype))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("expanded")])
def test_layouts_of_the_input(layout, dtype):
    problem = refined_problem(7, 33, (3, 32), 2, dtype)
    laid_out = LAYOUTS[layout](problem.input)
    assert_output(apply_refined_linear(laid_out, *problem[1:]), problem._replace(input=laid_out))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_other_layouts(dtype):
    problem = refined_problem(5, 33, (3, 32), 2, dtype)
    x, q, s, b, columns, values = problem
    for codes in (
        q.transpose(0, 2).contiguous().transpose(0, 2),
        torch.cat([q, q], 1)[:, 3:],
        torch.stack([q, q], 1)[:, 1],
        at_odd_address(q),
    ):
        assert torch.equal(codes, q)
        assert_output(apply_refined_linear(x, codes, s, b, columns, values), problem)
    moved = (s.T.contiguous().T, b, columns.T.contiguous().T, torch.stack([values, values], -1)[..., 0])
    assert_output(apply_refined_linear(x, q, *moved), problem)
    odd = [at_odd_address(t) for t in problem]
    assert_output(apply_refined_linear(*odd), problem)
    assert_input_grad(refined_linear_input_grad(odd[0][:, :33], *odd[1:3], *odd[4:]), x[:, :33], problem)


@pytest.mark.every_backend
@pytest.mark.parametrize("other", DTYPES, ids=name_of)
def test_float_dtypes_of_scales_bias_and_outliers(other):
    x, q, s, b, columns, values = refined_problem(5, 33, (3, 32), 2, torch.bfloat16)
    for s_dtype, b_dtype, v_dtype in ((other, b.dtype, values.dtype), (s.dtype, other, other)):
        problem = (x, q, s.to(s_dtype), b.to(b_dtype), columns, values.to(v_dtype))
        check(refined_problem(5, 33, (3, 32), 2, torch.bfloat16)._make(problem))


@pytest.mark.every_backend
def test_repeated_and_unordered_columns():
    problem = refined_problem(40, 33, 65, 3, torch.float32)
    columns = problem.outlier_columns.flip(1).clone()
    columns[:, 1] = columns[:, 0]
    check(problem._replace(outlier_columns=columns))


@pytest.mark.every_variant
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=name_of)
def test_the_same_bits_on_any_number_of_threads(dtype):
    for m, groups, outliers in ((1, (20, 48), 0), (3, 700, 4), (40, (5, 128), 2), (200, 300, 3)):
        problem = refined_problem(m, 257, groups, outliers, dtype)
        grad, results, before = torch.randn(m, 257).to(dtype), [], torch.get_num_threads()
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                dx = refined_linear_input_grad(grad, *problem[1:3], *problem[4:])
                results.append((apply_refined_linear(*problem), dx))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(y, results[0][0]) and torch.equal(d, results[0][1]) for y, d in results)


@pytest.mark.every_variant
def test_a_row_has_the_same_bits_in_every_batch_of_its_algorithm():
    for groups, outliers in (((5, 48), 0), (200, 3)):
        problem = refined_problem(30, 65, groups, outliers, torch.bfloat16)
        y = apply_refined_linear(*problem)
        for rows in (slice(0, 1), slice(3, 5), slice(7, 20)):
            assert torch.equal(apply_refined_linear(problem.input[rows], *problem[1:]), y[rows])


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_precision_of_float_matmuls_does_not_matter(precision, monkeypatch):
    monkeypatch.setenv("W8A16_BACKEND", "reference")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        check(refined_problem(33, 65, (3, 32), 2, torch.float32))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_groups_are_dequantized_by_the_op_there_is(dtype):
    _, q, s, *_ = refined_problem(1, 33, (3, 32), 0, dtype)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    expected = (q.to(compute) * s.to(compute).unsqueeze(-1)).to(dtype)
    assert torch.equal(dequantize(q, s, dtype), expected)


def test_the_tolerance_sees_a_wrong_scale_and_a_lost_outlier():
    problem = refined_problem(8, 33, (3, 32), 2, torch.float32)
    for wrong in (
        problem._replace(scales=problem.scales.roll(1, 1)),
        problem._replace(scales=problem.scales.bfloat16()),
        problem._replace(outlier_columns=None, outlier_values=None),
        problem._replace(outlier_columns=(problem.outlier_columns + 1) % 96),
    ):
        with pytest.raises(AssertionError, match="times the tolerance"):
            assert_output(apply_refined_linear(*wrong), problem)
