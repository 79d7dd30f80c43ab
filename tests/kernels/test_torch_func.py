"""`torch.func`: vmap over any argument, jacrev, jacfwd, jvp and their nestings."""

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from support.numerics import random_codes, seeded
from w8a16.kernels import linear, linear_input_grad

B, M, K, N = 5, 3, 7, 4
SINGLE = {
    "input": torch.randn(M, K, generator=seeded(0), dtype=torch.float64),
    "int8_weights": random_codes(N, K, seeded(1)),
    "scales": torch.rand(N, generator=seeded(2), dtype=torch.float64) + 0.5,
    "bias": torch.randn(N, generator=seeded(3), dtype=torch.float64),
}
BATCHED = {
    "input": torch.randn(B, M, K, generator=seeded(4), dtype=torch.float64),
    "int8_weights": random_codes(B * N, K, seeded(5)).view(B, N, K),
    "scales": torch.rand(B, N, generator=seeded(6), dtype=torch.float64) + 0.5,
    "bias": torch.randn(B, N, generator=seeded(7), dtype=torch.float64),
}
NAMES = list(SINGLE)
SUBSETS = [[name for bit, name in enumerate(NAMES) if mask >> bit & 1] for mask in range(1, 16)]
# Which arguments are batched, as 0 / None for in_dims.
IN_DIMS = [tuple(0 if name in subset else None for name in NAMES) for subset in SUBSETS]


def arguments(in_dims):
    return [
        (SINGLE if dim is None else BATCHED)[name].clone() for name, dim in zip(NAMES, in_dims, strict=True)
    ]


def one_by_one(function, in_dims, values):
    results = [
        function(*(v if d is None else v[i] for v, d in zip(values, in_dims, strict=True))) for i in range(B)
    ]
    return torch.stack(results)


def dense(x, q, s, b):
    """The same map in plain operations."""
    return (x @ q.double().T) * s + b


def loss(x, q, s, b):
    return linear(x, q, s, b).sin().sum()


def dense_loss(x, q, s, b):
    return dense(x, q, s, b).sin().sum()


@pytest.mark.parametrize("in_dims", IN_DIMS, ids=str)
def test_vmap(in_dims):
    values = arguments(in_dims)
    torch.testing.assert_close(vmap(linear, in_dims)(*values), one_by_one(dense, in_dims, values))


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
def test_vmap_over_any_dimension_of_the_input(dim):
    values = arguments((0, None, None, None))
    x = values[0].movedim(0, dim)
    actual = vmap(linear, (dim, None, None, None), out_dims=1)(x, *values[1:])
    torch.testing.assert_close(actual, dense(*values).movedim(0, 1))


def test_nested_vmap():
    x = torch.randn(2, B, M, K, dtype=torch.float64)
    values = arguments((None, None, 0, None))[1:]
    inner = vmap(linear, (0, None, 0, None))
    actual = vmap(inner, (0, None, None, None))(x, *values)
    expected = torch.stack([one_by_one(dense, (0, None, 0, None), [row, *values]) for row in x])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_vmap_over_nothing(place):
    in_dims = tuple(0 if p == place else None for p in range(4))
    values = [v[:0] if d == 0 else v for v, d in zip(arguments(in_dims), in_dims, strict=True)]
    assert vmap(linear, in_dims)(*values).shape == (0, M, N)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@pytest.mark.parametrize("place", [0, 2, 3], ids=["input", "scales", "bias"])
def test_jacobians(place, jacobian):
    values = list(SINGLE.values())
    actual = jacobian(linear, argnums=place)(*values)
    torch.testing.assert_close(actual, jacobian(dense, argnums=place)(*values))
    assert actual.norm() > 0


def test_jacobian_with_respect_to_the_input_is_the_scaled_weight():
    x, q, s, b = SINGLE.values()
    actual = jacrev(lambda row: linear(row, q, s, b))(x[0])
    torch.testing.assert_close(actual, q.double() * s[:, None])


@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
def test_second_derivatives(inner, outer):
    values, places = list(SINGLE.values()), (0, 2, 3)
    actual = outer(inner(loss, places), places)(*values)
    expected = outer(inner(dense_loss, places), places)(*values)
    torch.testing.assert_close(actual, expected)


def test_hessian():
    values = list(SINGLE.values())
    torch.testing.assert_close(hessian(loss)(*values), hessian(dense_loss)(*values))


def test_jvp_and_vjp():
    x, q, s, b = SINGLE.values()
    tangents = (torch.randn_like(x), torch.randn_like(s), torch.randn_like(b))
    actual = jvp(lambda *a: linear(a[0], q, *a[1:]), (x, s, b), tangents)
    expected = jvp(lambda *a: dense(a[0], q, *a[1:]), (x, s, b), tangents)
    torch.testing.assert_close(actual, expected)
    cotangent = torch.randn(M, N, dtype=torch.float64)
    _, pull = vjp(lambda *a: linear(a[0], q, *a[1:]), x, s, b)
    _, dense_pull = vjp(lambda *a: dense(a[0], q, *a[1:]), x, s, b)
    torch.testing.assert_close(pull(cotangent), dense_pull(cotangent))


@pytest.mark.parametrize("in_dims", IN_DIMS, ids=str)
def test_per_sample_gradients(in_dims):
    values, places = arguments(in_dims), (0, 2, 3)
    actual = vmap(grad(loss, places), in_dims)(*values)
    expected = vmap(grad(dense_loss, places), in_dims)(*values)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("in_dims", IN_DIMS, ids=str)
def test_gradients_of_a_vmap(in_dims):
    values, places = arguments(in_dims), (0, 2, 3)
    actual = grad(lambda *a: vmap(loss, in_dims)(*a).sum(), places)(*values)
    expected = grad(lambda *a: vmap(dense_loss, in_dims)(*a).sum(), places)(*values)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("in_dims", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)])
def test_the_input_gradient_op(in_dims):
    source = [torch.randn(B, M, N, dtype=torch.float64), BATCHED["int8_weights"], BATCHED["scales"]]
    values = [t if d == 0 else t[0] for t, d in zip(source, in_dims, strict=True)]

    def plain(g, q, s):
        return (g * s) @ q.double()

    torch.testing.assert_close(vmap(linear_input_grad, in_dims)(*values), one_by_one(plain, in_dims, values))
    actual = vmap(grad(lambda *a: linear_input_grad(*a).sin().sum(), (0, 2)), in_dims)(*values)
    expected = vmap(grad(lambda *a: plain(*a).sin().sum(), (0, 2)), in_dims)(*values)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("chunks", [1, 2])
def test_vmap_of_half_precision_has_the_bits_of_a_loop(chunks):
    q, scales = random_codes(N, K, seeded(0)), SINGLE["scales"].float()
    x = torch.randint(-8, 9, (B, M, K), generator=seeded(1)).bfloat16()
    actual = vmap(lambda row: linear(row, q, scales, None), chunk_size=chunks)(x)
    assert torch.equal(actual, torch.stack([linear(row, q, scales, None) for row in x]))
