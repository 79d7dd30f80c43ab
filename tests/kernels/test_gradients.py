"""Gradients with respect to input, scales and bias, of first and second order, in every dtype."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from support.numerics import (
    DTYPES,
    UNIT_ROUNDOFF,
    assert_meaningful,
    name_of,
    random_codes,
    random_problem,
    seeded,
)
from w8a16.kernels import linear, linear_input_grad

SHAPES = [(5,), (3, 5), (2, 3, 5), (0, 5), (2, 0, 5)]


def double_problem(shape, n=4, seed=0):
    """float64 arguments of `linear`, with codes small enough for finite differences."""
    generator = seeded(seed)
    q = torch.randint(-9, 10, (n, shape[-1]), generator=generator).to(torch.int8)
    x, scales, bias = (torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, (n,), (n,)))
    return x, q, scales.abs() + 0.5, bias


ALONE = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


@pytest.mark.parametrize(
    "check, wanted",
    [
        *((gradcheck, wanted) for wanted in [*ALONE, (1, 1, 1)]),
        # The gradient of the bias is constant, so it has none of second order by itself.
        *((gradgradcheck, wanted) for wanted in [*ALONE[:2], (1, 1, 1)]),
    ],
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear(shape, check, wanted):
    x, q, scales, bias = double_problem(shape)
    inputs = tuple(t.requires_grad_(bool(w)) for t, w in zip((x, scales, bias), wanted, strict=True))
    assert check(lambda x, s, b: linear(x, q, s, b), inputs)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("wanted", [(1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_input_grad(shape, wanted, check):
    grad, q, scales, _ = double_problem(shape)
    q, scales = q.T.contiguous(), torch.linspace(0.5, 2, shape[-1], dtype=torch.float64)
    inputs = tuple(t.requires_grad_(bool(w)) for t, w in zip((grad, scales), wanted, strict=True))
    assert check(lambda g, s: linear_input_grad(g, q, s), inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (3, 65, 33), (7, 33, 129), (2, 129, 1000)])
def test_the_input_gradient_is_within_tolerance(m, k, n, dtype):
    x, q, scales, bias = random_problem(m, k, n, dtype)
    x.requires_grad_()
    y = linear(x, q, scales, bias)
    grad = torch.randn(m, n, generator=seeded(1), dtype=torch.float64).to(dtype)
    y.backward(grad)
    assert x.grad.dtype == dtype

    scaled = grad.double() * scales.double()
    exact, size = scaled @ q.double(), scaled.abs() @ q.double().abs()
    # The same derivation as for outputs: n products of two factors, then one rounding.
    accumulator = UNIT_ROUNDOFF[torch.float64 if dtype == torch.float64 else torch.float32]
    g = (n + 2) * accumulator / (1 - (n + 2) * accumulator)
    tolerance = g * size + UNIT_ROUNDOFF[dtype] * ((1 + g) * exact.abs() + g * size)
    assert_meaningful(exact, tolerance)
    assert ((x.grad.double() - exact).abs() <= tolerance).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_gradients_of_scales_and_bias_are_within_tolerance(dtype):
    x, q, scales, bias = random_problem(17, 65, 33, dtype)
    scales.requires_grad_()
    bias = bias.float().requires_grad_()
    grad = torch.randn(17, 33, generator=seeded(1), dtype=torch.float64).to(dtype)
    linear(x, q, scales, bias).backward(grad)
    assert scales.grad.dtype == bias.grad.dtype == torch.float32
    products = x.double() @ q.double().T
    # 65 + 17 additions in float32, whatever the dtype of the activations.
    rtol = 100 * UNIT_ROUNDOFF[torch.float32]
    for actual, terms in ((scales.grad, grad.double() * products), (bias.grad, grad.double())):
        exact = terms.sum(0)
        size = (
            (grad.double().abs() * (x.double().abs() @ q.double().abs().T)).sum(0)
            if actual is scales.grad
            else terms.abs().sum(0)
        )
        assert_meaningful(exact, rtol * size)
        assert ((actual.double() - exact).abs() <= rtol * size).all()


def test_a_frozen_layer_computes_only_what_is_asked():
    x, q, scales, bias = double_problem((3, 5))
    y = linear(x, q, scales, bias)
    assert not y.requires_grad
    x.requires_grad_()
    linear(x, q, scales, bias).sum().backward()
    assert x.grad is not None
    assert scales.grad is None
    assert bias.grad is None
    with torch.no_grad():
        assert not linear(x, q, scales, bias).requires_grad


def test_the_input_is_not_kept_alive_for_the_input_gradient():
    # What a frozen layer saves decides how much memory adapter training takes.
    x, q, scales, bias = double_problem((3, 5))
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        leaf = x.clone().requires_grad_()
        linear(leaf, q, scales, bias)
        assert leaf.data_ptr() not in saved
        linear(leaf, q, scales.requires_grad_(), bias)
        assert leaf.data_ptr() in saved


def test_gradients_without_output_channels():
    q = torch.empty(0, 5, dtype=torch.int8)
    x, scales, bias = (torch.ones(s, requires_grad=True) for s in ((3, 5), (0,), (0,)))
    linear(x, q, scales, bias).sum().backward()
    assert torch.equal(x.grad, torch.zeros(3, 5))
    assert scales.grad.shape == bias.grad.shape == (0,)


def test_gradients_without_input_features():
    q = torch.empty(4, 0, dtype=torch.int8)
    x, scales, bias = (torch.ones(s, requires_grad=True) for s in ((3, 0), (4,), (4,)))
    linear(x, q, scales, bias).sum().backward()
    assert x.grad.shape == (3, 0)
    assert scales.grad.tolist() == [0] * 4
    assert bias.grad.tolist() == [3] * 4


@pytest.mark.parametrize("place", [0, 2, 3], ids=["input", "scales", "bias"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode_keeps_the_tangent(place, requires_grad):
    arguments = list(double_problem((3, 5)))
    if requires_grad:
        arguments[place].requires_grad_()
    tangent = torch.randn(arguments[place].shape, generator=seeded(1), dtype=torch.float64)
    x, q, scales, _ = (t.detach() for t in arguments)
    expected = {
        0: (tangent @ q.double().T * scales) if place == 0 else None,
        2: (x @ q.double().T * tangent) if place == 2 else None,
        3: tangent.expand(3, 4) if place == 3 else None,
    }[place]
    with forward_ad.dual_level():
        arguments[place] = forward_ad.make_dual(arguments[place], tangent)
        actual = forward_ad.unpack_dual(linear(*arguments)).tangent
    torch.testing.assert_close(actual, expected)


def test_forward_mode_of_the_input_gradient():
    grad, q, scales = torch.randn(3, 4).double(), random_codes(4, 5, seeded(0)), torch.ones(4).double()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(grad, grad * 2)
        actual = forward_ad.unpack_dual(linear_input_grad(dual, q, scales)).tangent
    torch.testing.assert_close(actual, 2 * linear_input_grad(grad, q, scales))
