"""What PyTorch asks of the refined ops beside computing: gradients, torch.func, autocast, compilation."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, vmap
from torch.library import opcheck

from support.numerics import DTYPES, name_of, seeded
from support.refined import Refined, assert_input_grad, dense_weights, refined_problem
from w8a16.kernels import apply_refined_linear, refined_linear, refined_linear_input_grad

KINDS = {"groups": ((3, 2), 0), "outliers": (6, 2), "both": ((2, 3), 2), "neither": (6, 0)}
N = 4


def small(kind, m=3, n=N):
    """A problem in float64 with codes that suit finite differences."""
    problem = refined_problem(m, n, *KINDS[kind], torch.float64)
    return problem._replace(
        int8_weights=(problem.int8_weights // 14).to(torch.int8), scales=problem.scales.double() * 30 + 0.5
    )._replace(outlier_values=None if problem.outlier_values is None else problem.outlier_values.double())


def trained(problem):
    """The tensors that have gradients, and a function of them for an op of all arguments."""
    places = [0, 2, 3] + ([5] if problem.outlier_values is not None else [])

    def fill(values):
        arguments = list(problem)
        for place, value in zip(places, values, strict=True):
            arguments[place] = value
        return Refined(*arguments)

    return tuple(problem[place].clone() for place in places), fill


def dense(problem):
    """The same map in plain operations, differentiable in all of them."""
    x, q, s, b, columns, values = problem
    weights = (q.double() * s.unsqueeze(-1)).flatten(1)
    if columns is not None:
        weights = weights.scatter_add(1, columns.long(), values)
    return x @ weights.T + b


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_argument(kind, check):
    values, fill = trained(small(kind))
    values = tuple(value.requires_grad_() for value in values)
    assert check(lambda *v: refined_linear(*fill(v)), values)
    _, q, s, _, columns, outliers = small(kind)
    gradient = torch.randn(3, N, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    s = s.clone().requires_grad_()
    if outliers is None:
        assert check(lambda g, s: refined_linear_input_grad(g, q, s, None, None), (gradient, s))
    else:
        outliers = outliers.clone().requires_grad_()
        assert check(lambda g, s, v: refined_linear_input_grad(g, q, s, columns, v), (gradient, s, outliers))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_gradients_of_a_real_problem(dtype):
    problem = refined_problem(17, 33, (3, 32), 2, dtype)
    x, q, s, b, columns, values = problem
    leaves = [t.clone().requires_grad_() for t in (x, s, b.float(), values)]
    gradient = torch.randn(17, 33, generator=seeded(1), dtype=torch.float64).to(dtype)
    apply_refined_linear(leaves[0], q, *leaves[1:3], columns, leaves[3]).backward(gradient)
    assert_input_grad(leaves[0].grad, gradient, problem)
    wide, dy = x.double(), gradient.double()
    products = torch.einsum("mgs,ngs->mng", wide.view(17, 3, 32), q.double())
    expected = (
        torch.einsum("mn,mng->ng", dy, products),
        dy.sum(0),
        torch.einsum("mn,mnr->nr", dy, wide[:, columns.long()]),
    )
    for leaf, exact in zip(leaves[1:], expected, strict=True):
        assert leaf.grad.dtype == torch.float32
        assert (leaf.grad.double() - exact).norm() < 2**-18 * exact.norm()
        assert exact.norm() > 0


def test_a_frozen_layer_keeps_and_computes_only_what_is_asked():
    problem = small("both")
    assert not apply_refined_linear(*problem).requires_grad
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        leaf = problem.input.clone().requires_grad_()
        y = apply_refined_linear(leaf, *problem[1:])
        assert leaf.data_ptr() not in saved
        kept = problem.outlier_values.clone().requires_grad_()
        apply_refined_linear(leaf, *problem[1:5], kept)
        assert leaf.data_ptr() in saved
    y.sum().backward()
    assert torch.allclose(leaf.grad, dense_weights(problem)[0].sum(0).expand(3, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_func(kind):
    values, fill = trained(small(kind))

    def ours(*v):
        return apply_refined_linear(*fill(v))

    def plain(*v):
        return dense(fill(v))

    places = tuple(range(len(values)))
    for jacobian in (jacrev, jacfwd):
        torch.testing.assert_close(jacobian(ours, places)(*values), jacobian(plain, places)(*values))
    torch.testing.assert_close(
        hessian(lambda *v: ours(*v).sin().sum(), places)(*values),
        hessian(lambda *v: plain(*v).sin().sum(), places)(*values),
    )
    rows = (0,) + (None,) * (len(values) - 1)
    torch.testing.assert_close(vmap(ours, rows)(*values), plain(*values))


def test_vmap_over_codes_and_columns():
    problems = [
        small("both")._replace(int8_weights=p.int8_weights, outlier_columns=p.outlier_columns)
        for p in (refined_problem(3, N, *KINDS["both"], torch.float64, seed=seed) for seed in range(3))
    ]
    in_dims = (None, 0, None, None, 0, None)
    stacked = [
        getattr(problems[0], name)
        if dim is None
        else torch.stack([getattr(problem, name) for problem in problems])
        for name, dim in zip(Refined._fields, in_dims, strict=True)
    ]
    expected = torch.stack([dense(problem) for problem in problems])
    torch.testing.assert_close(vmap(refined_linear, in_dims)(*stacked), expected)

    def loss(values, codes, columns, function):
        arguments = problems[0]._replace(int8_weights=codes, outlier_columns=columns, outlier_values=values)
        return function(arguments).sin().sum()

    def per_sample(function):
        return vmap(lambda v, q, c: grad(loss)(v, q, c, function), (None, 0, 0))(
            stacked[5], stacked[1], stacked[4]
        )

    torch.testing.assert_close(per_sample(lambda p: refined_linear(*p)), per_sample(dense))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=name_of)
def test_autocast_casts_the_input_alone(half):
    problem = refined_problem(17, 33, (3, 32), 2, torch.float32)
    cast = problem._replace(input=problem.input.to(half))
    x = problem.input.clone().requires_grad_()
    with torch.autocast("cpu", half):
        y = apply_refined_linear(x, *problem[1:])
        assert torch.equal(y, apply_refined_linear(*problem))
    assert torch.equal(y, apply_refined_linear(*cast))
    y.backward(torch.ones_like(y))
    expected = refined_linear_input_grad(torch.ones_like(y), *problem[1:3], *problem[4:])
    assert torch.equal(x.grad, expected.float())
    with torch.autocast("cpu", half):
        assert apply_refined_linear(problem.input.double(), *problem[1:]).dtype == torch.float64


@pytest.mark.parametrize(
    "kind", ["both", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "both")]
)
def test_opcheck(kind):
    problem = small(kind)._replace(input=torch.randn(2, 3, 6), bias=torch.randn(N))
    values, fill = trained(problem)
    opcheck(refined_linear, tuple(problem))
    opcheck(refined_linear, tuple(fill([value.requires_grad_() for value in values])))
    gradient = torch.randn(2, N, requires_grad=True)
    opcheck(refined_linear_input_grad, (gradient, *problem[1:3], *problem[4:]))


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_fake_results_look_like_real_ones(dtype):
    problem = refined_problem(5, 33, (3, 32), 2, dtype)
    for x in (problem.input, problem.input[0], problem.input.T.contiguous().T, problem.input[:0]):
        arguments = (x, *problem[1:])
        real, mode = refined_linear(*arguments), FakeTensorMode()
        for convert in (mode.from_tensor, lambda t: t.to("meta")):
            stand_in = refined_linear(*(None if t is None else convert(t) for t in arguments))
            assert (stand_in.shape, stand_in.dtype) == (real.shape, real.dtype)
            assert stand_in.stride() == real.stride()


@pytest.mark.parametrize("kind", ["both"])
def test_one_graph_with_dynamic_rows(kind):
    torch.compiler.reset()
    _, *rest = small(kind)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda x: apply_refined_linear(x * 2, *rest).relu(), fullgraph=True, dynamic=True, backend=counter
    )
    for m in (5, 7, 9):  # equal sizes would be taken for one
        x = torch.randn(m, 6, requires_grad=True)
        expected = apply_refined_linear(x * 2, *rest).relu()
        assert torch.equal(compiled(x), expected)
        actual_grad, expected_grad = (torch.autograd.grad(y.sum(), x)[0] for y in (compiled(x), expected))
        assert torch.equal(actual_grad, expected_grad)
        assert expected.norm() > 0
    assert counter.frame_count == 1
    torch.compiler.reset()
