"""The grouped ops under autograd, torch.func, autocast, compilation: as `linear`, expert by expert."""

from itertools import pairwise

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jacfwd, jacrev, jvp, vmap
from torch.library import opcheck

from support.numerics import DTYPES, UNIT_ROUNDOFF, assert_meaningful, name_of, random_codes, seeded
from w8a16.errors import UsageError
from w8a16.kernels import grouped_linear, grouped_linear_input_grad, linear, linear_input_grad

op = torch.ops.w8a16.grouped_linear.default
adjoint = torch.ops.w8a16.grouped_linear_input_grad.default
OFFSETS = {
    "some empty": [0, 2, 2, 5],
    "rows of none": [1, 3, 4, 4],
    "all empty": [2, 2, 2, 2],
    "no experts": [3],
}
T, N, K = 5, 4, 6


def arguments(bounds=(0, 2, 2, 5), dtype=torch.float64, t=T, n=N, k=K):
    generator, e = seeded(len(bounds)), len(bounds) - 1
    x, scales, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((t, k), (e, n), (e, n))
    )
    q = torch.randint(-9, 10, (e, n, k), generator=generator).to(torch.int8)
    return x.to(dtype), q, (scales.abs() + 0.5).to(dtype), bias.to(dtype), torch.tensor(bounds)


def dense(x, q, scales, bias, offsets):
    """The same map in plain operations."""
    rows = [x[: offsets[0]] @ x.new_zeros(q.shape[2], q.shape[1])]
    for e in range(len(q)):
        y = (x[offsets[e] : offsets[e + 1]] @ q[e].to(x.dtype).T) * scales[e]
        rows.append(y if bias is None else y + bias[e])
    return torch.cat([*rows, x[offsets[-1] :] @ x.new_zeros(q.shape[2], q.shape[1])])


ALONE = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


@pytest.mark.parametrize(
    "check, wanted",
    [
        *((gradcheck, wanted) for wanted in [*ALONE, (1, 1, 1)]),
        # The gradient of the bias is constant, so it has none of second order by itself.
        *((gradgradcheck, wanted) for wanted in [*ALONE[:2], (1, 1, 1)]),
    ],
)
@pytest.mark.parametrize("bounds", OFFSETS.values(), ids=OFFSETS)
def test_of_any_order(bounds, check, wanted):
    x, q, scales, bias, offsets = arguments(bounds)
    inputs = tuple(t.requires_grad_(bool(w)) for t, w in zip((x, scales, bias), wanted, strict=True))
    assert check(lambda x, s, b: grouped_linear(x, q, s, b, offsets), inputs)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("wanted", [(1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("bounds", OFFSETS.values(), ids=OFFSETS)
def test_the_adjoint_of_any_order(bounds, wanted, check):
    _, q, scales, _, offsets = arguments(bounds)
    dy = torch.randn(T, N, generator=seeded(9), dtype=torch.float64)
    inputs = tuple(t.requires_grad_(bool(w)) for t, w in zip((dy, scales), wanted, strict=True))
    assert check(lambda g, s: grouped_linear_input_grad(g, q, s, offsets), inputs)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_within_tolerance(dtype):
    bounds, t, n, k = [2, 9, 9, 50, 51, 60], 64, 129, 65
    generator = seeded(4)
    q = torch.stack([random_codes(n, k, generator) for _ in bounds[1:]])
    scales = (torch.rand(5, n, generator=generator) * 0.02 + 0.001).requires_grad_()
    bias = torch.randn(5, n, generator=generator).requires_grad_()
    x = torch.randn(t, k, generator=generator).to(dtype).requires_grad_()
    dy = torch.randn(t, n, generator=generator, dtype=torch.float64).to(dtype)
    grouped_linear(x, q, scales, bias, torch.tensor(bounds)).backward(dy)
    assert (x.grad.dtype, scales.grad.dtype, bias.grad.dtype) == (dtype, torch.float32, torch.float32)
    accumulator = UNIT_ROUNDOFF[torch.float64 if dtype == torch.float64 else torch.float32]
    g = (n + 2) * accumulator / (1 - (n + 2) * accumulator)
    for e, (begin, end) in enumerate(pairwise(bounds)):
        rows = slice(begin, end)
        wide, codes = dy[rows].double(), q[e].double()
        if begin < end:
            scaled = wide * scales[e].double()
            exact, size = scaled @ codes, scaled.abs() @ codes.abs()
            tolerance = g * size + UNIT_ROUNDOFF[dtype] * ((1 + g) * exact.abs() + g * size)
            assert_meaningful(exact, tolerance)
            assert ((x.grad[rows].double() - exact).abs() <= tolerance).all()
        products = x[rows].double() @ codes.T
        size = (wide.abs() * (x[rows].double().abs() @ codes.abs().T)).sum(0)
        rtol = (k + t) * UNIT_ROUNDOFF[torch.float32]
        assert ((scales.grad[e].double() - (wide * products).sum(0)).abs() <= rtol * size).all()
        assert ((bias.grad[e].double() - wide.sum(0)).abs() <= rtol * wide.abs().sum(0)).all()
    assert not x.grad[:2].any()
    assert not x.grad[60:].any()
    assert scales.grad.norm() > 0


@pytest.mark.every_variant
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=name_of)
def test_the_adjoint_has_the_bits_of_linears(dtype):
    bounds = [1, 4, 4, 90, 91]
    generator = seeded(5)
    q = torch.stack([random_codes(257, 515, generator) for _ in bounds[1:]])
    scales = torch.rand(4, 257, generator=generator) * 0.02 + 0.001
    dy = torch.randn(95, 257, generator=generator).to(dtype)
    for codes in (q, torch.cat([q, q], 2)[..., :515], q.transpose(1, 2).contiguous().transpose(1, 2)):
        dx = grouped_linear_input_grad(dy, codes, scales, torch.tensor(bounds))
        for e, (begin, end) in enumerate(pairwise(bounds)):
            assert torch.equal(dx[begin:end], linear_input_grad(dy[begin:end], q[e], scales[e]))
        assert not dx[0].any()
        assert not dx[91:].any()


def test_a_frozen_layer_computes_and_keeps_only_what_is_asked():
    x, q, scales, bias, offsets = arguments()
    assert not grouped_linear(x, q, scales, bias, offsets).requires_grad
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        x.requires_grad_()
        grouped_linear(x, q, scales, bias, offsets).sum().backward()
        assert x.data_ptr() not in saved
        grouped_linear(x, q, scales.requires_grad_(), bias, offsets)
        assert x.data_ptr() in saved
    assert x.grad.norm() > 0
    assert scales.grad is None
    with torch.no_grad():
        assert not grouped_linear(x, q, scales, bias, offsets).requires_grad


def test_nothing_to_sum_over():
    offsets = torch.tensor([0, 0, 0])
    x, scales, bias = (torch.ones(s, requires_grad=True) for s in ((0, K), (2, N), (2, N)))
    grouped_linear(x, torch.ones(2, N, K, dtype=torch.int8), scales, bias, offsets).sum().backward()
    assert x.grad.shape == (0, K)
    assert not scales.grad.any()
    assert not bias.grad.any()


@pytest.mark.parametrize("function", [grouped_linear, op])
def test_transforms(function):
    x, q, scales, bias, offsets = arguments([1, 3, 3, 4])

    def loss(x, s, b):
        return function(x, q, s, b, offsets).sin().sum()

    def dense_loss(x, s, b):
        return dense(x, q, s, b, offsets).sin().sum()

    places, values = (0, 1, 2), (x, scales, bias)
    torch.testing.assert_close(grad(loss, places)(*values), grad(dense_loss, places)(*values))
    torch.testing.assert_close(
        jacfwd(jacrev(loss, places), places)(*values), jacfwd(jacrev(dense_loss, places), places)(*values)
    )
    torch.testing.assert_close(jvp(loss, values, values), jvp(dense_loss, values, values))
    # All arguments through the transform, the offsets too.
    whole = grad(lambda *a: function(*a).sin().sum())(x, q, scales, bias, offsets)
    torch.testing.assert_close(whole, grad(dense_loss)(*values))
    batch = torch.randn(3, T, K, generator=seeded(1), dtype=torch.float64)
    many = torch.stack([scales, 2 * scales, 3 * scales])
    expected = torch.stack([dense(b, q, s, bias, offsets) for b, s in zip(batch, many, strict=True)])
    torch.testing.assert_close(vmap(lambda b, s: function(b, q, s, bias, offsets))(batch, many), expected)
    torch.testing.assert_close(
        vmap(grad(loss), (0, 0, None))(batch, many, bias),
        vmap(grad(dense_loss), (0, 0, None))(batch, many, bias),
    )
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x * 2)
        tangent = forward_ad.unpack_dual(function(dual, q, scales, bias, offsets)).tangent
    torch.testing.assert_close(tangent, 2 * dense(x, q, scales, None, offsets))


@pytest.mark.parametrize("function", [grouped_linear, op])
def test_a_vmap_over_offsets(function):
    x, q, scales, bias, _ = arguments()
    offsets = torch.tensor([[0, 2, 2, 5], [1, 1, 4, 5]])
    actual = vmap(lambda o: function(x, q, scales, bias, o))(offsets)
    torch.testing.assert_close(actual, torch.stack([dense(x, q, scales, bias, o) for o in offsets]))
    assert vmap(lambda o: function(x, q, scales, bias, o))(offsets[:0]).shape == (0, T, N)
    with pytest.raises(UsageError, match=r"^offsets: expected the same offsets for all samples of a vmap"):
        vmap(lambda o: grad(lambda v: function(v, q, scales, bias, o).sum())(x))(offsets)


def test_vmap_of_the_adjoint():
    _, q, scales, _, offsets = arguments()
    dy = torch.randn(3, T, N, generator=seeded(2), dtype=torch.float64)
    expected = torch.stack([grouped_linear_input_grad(g, q, scales, offsets) for g in dy])
    torch.testing.assert_close(vmap(lambda g: adjoint(g, q, scales, offsets))(dy), expected)
    double = grad(lambda g: adjoint(g, q, scales, offsets).sin().sum())(dy[0])
    leaf = dy[0].clone().requires_grad_()
    adjoint(leaf, q, scales, offsets).sin().sum().backward()
    torch.testing.assert_close(double, leaf.grad)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=name_of)
def test_autocast(half):
    x, q, scales, bias, offsets = arguments(dtype=torch.float32)
    expected = grouped_linear(x.to(half), q, scales, bias, offsets)
    for function in (grouped_linear, op):
        with torch.autocast("cpu", half):
            y = function(x, q, scales, bias, offsets)
            assert function(x.double(), q, scales, bias, offsets).dtype == torch.float64
        assert y.dtype == half
        assert torch.equal(y, expected)
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", half):
            loss = function(leaf, q, scales, bias, offsets).sum()
            loss.backward()
        assert leaf.grad.dtype == torch.float32
        assert leaf.grad.norm() > 0


@pytest.mark.parametrize("requires_grad", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=name_of)
def test_opcheck(dtype, requires_grad):
    x, q, scales, bias, offsets = arguments(dtype=dtype)
    x, scales, bias = (t.requires_grad_(requires_grad) for t in (x, scales, bias))
    opcheck(op, (x, q, scales, bias, offsets))
    opcheck(op, (x, q, scales, None, offsets))
    dy = torch.randn(T, N, dtype=dtype, requires_grad=requires_grad)
    opcheck(adjoint, (dy, q, scales, offsets))


def test_fake_results_look_like_real_ones():
    values = arguments(dtype=torch.bfloat16)
    real = grouped_linear(*values)
    mode = FakeTensorMode()
    for fake in (
        grouped_linear(*(mode.from_tensor(t) for t in values)),
        grouped_linear(*(t.to("meta") for t in values)),
    ):
        assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


def test_one_graph_with_dynamic_offsets():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def function(x, q, scales, bias, offsets):
        return grouped_linear(x * 2, q, scales, bias, offsets).relu()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for bounds, t in (([0, 2, 2, 5], 5), ([1, 1, 4, 4], 7), ([0, 3, 6, 9], 9)):
        x, *rest = arguments(bounds, torch.float32, t)
        x.requires_grad_()
        expected, actual = function(x, *rest), compiled(x, *rest)
        assert torch.equal(actual, expected)
        grads = [torch.autograd.grad(y.sum(), x)[0] for y in (actual, expected)]
        assert torch.equal(*grads)
        assert grads[0].norm() > 0
    assert counter.frame_count == 1


def test_export_keeps_the_op():
    class Net(torch.nn.Module):
        def forward(self, x, q, scales, bias, offsets):
            return grouped_linear(x, q, scales, bias, offsets).relu()

    values = arguments(dtype=torch.float32)
    program = torch.export.export(Net(), values)
    assert op in [node.target for node in program.graph.nodes if node.op == "call_function"]
    others = (*values[:4], torch.tensor([1, 1, 3, 4]))
    assert torch.equal(program.module()(*others), Net()(*others))


def test_inference_mode():
    values = arguments(dtype=torch.float32)
    with torch.inference_mode():
        assert grouped_linear(*values).is_inference()
    x, q, scales, bias, _ = values
    assert torch.equal(grouped_linear(*values)[:2], linear(x[:2], q[0], scales[0], bias[0]))
