"""Codes of any shape back to floats: the bits of `core`, on every backend; wrong arguments are explained."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad, gradcheck
from torch.func import grad, jvp, vmap
from torch.library import opcheck

from support.numerics import DTYPES, K_VALUES, N_VALUES, at_odd_address, name_of, random_codes, seeded
from w8a16.core import dequantize_weight
from w8a16.errors import DtypeError, ShapeError
from w8a16.kernels import dequantize

op = torch.ops.w8a16.dequantize.default


def codes_and_scales(*shape, leading=1):
    columns = torch.Size(shape[1:]).numel()
    q = random_codes(shape[0], columns, seeded(columns)).view(shape)
    return q, torch.rand(shape[:leading], generator=seeded(shape[0])) * 0.1 + 0.01


def expected(q, scales, dtype):
    """`core`'s own, row by row of a matrix."""
    rows = dequantize_weight(q.reshape(scales.numel(), -1), scales.reshape(-1), dtype)
    return rows.view(q.shape)


def check(actual, q, scales, dtype):
    assert (actual.shape, actual.dtype) == (q.shape, dtype)
    assert actual.is_contiguous()
    assert torch.equal(actual, expected(q, scales, dtype))
    assert actual.norm() > 0


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_the_bits_of_core(dtype):
    for n, k in [(33, k) for k in K_VALUES if k] + [(n, 65) for n in N_VALUES if n]:
        q, scales = codes_and_scales(n, k)
        for function in (dequantize, op):
            check(function(q, scales, dtype), q, scales, dtype)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    "shape, leading",
    [
        ((6, 5, 3, 3), 1),
        ((64, 1, 3, 3), 1),
        ((7, 4, 5), 1),
        ((3, 2, 3, 4, 5), 1),
        ((9,), 1),
        ((4, 6, 33), 2),
        ((4, 6, 5, 3, 3), 2),
        ((2, 3, 4), 3),
        ((5, 7), 0),
    ],
    ids=str,
)
def test_any_shape(shape, leading, dtype):
    q, scales = codes_and_scales(*shape, leading=leading)
    check(dequantize(q, scales, dtype), q, scales, dtype)
    check(op(q, scales, dtype), q, scales, dtype)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    "shape, leading", [((0, 5), 1), ((5, 0), 1), ((0,), 1), ((0, 4, 5), 2), ((3, 0, 5), 2), ((4, 2, 0), 2)]
)
def test_nothing(shape, leading, dtype):
    q, scales = torch.empty(shape, dtype=torch.int8), torch.empty(shape[:leading])
    result = dequantize(q, scales, dtype)
    assert (result.shape, result.dtype) == (shape, dtype)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_layouts(dtype):
    q, scales = codes_and_scales(8, 6, 5, 3)
    layouts = {
        "channels last": q.contiguous(memory_format=torch.channels_last),
        "transposed": q.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "strided": torch.stack([q, q], -1)[..., 0],
        "part of a wider tensor": torch.cat([q, q, q], 1)[:, 6:12],
        "every other row": torch.stack([q, -q], 1)[:, 0],
        "odd address": at_odd_address(q),
    }
    for name, layout in layouts.items():
        assert torch.equal(layout, q), name
        check(dequantize(layout, scales, dtype), q, scales, dtype)
    check(dequantize(q, at_odd_address(scales), dtype), q, scales, dtype)
    check(dequantize(q, torch.stack([scales, scales], 1)[:, 0], dtype), q, scales, dtype)
    check(dequantize(q, scales[:1].expand(8), dtype), q, scales[:1].expand(8), dtype)
    check(dequantize(q, torch._neg_view(-scales), dtype), q, scales, dtype)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_code_and_extreme_scales(dtype):
    q = torch.arange(-128, 128).to(torch.int8).expand(9, 256)
    scales = torch.tensor([2.0**-125, 1e-30, 1e-8, 6e-8, 0.1, 1.0, 700.0, 1e30, float("inf")])
    actual = dequantize(q, scales, dtype)
    assert torch.equal(actual.nan_to_num(7), expected(q, scales, dtype).nan_to_num(7))
    for other in (torch.float16, torch.bfloat16, torch.float64):
        mild = scales[4:6].to(other).repeat(5)[:9]
        check(dequantize(q, mild, dtype), q, mild, dtype)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads(threads, dtype):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for shape in ((517, 515), (3, 300_001), (100_003, 9)):
            q, scales = codes_and_scales(*shape)
            check(dequantize(q, scales, dtype), q, scales, dtype)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("function", [dequantize, op])
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda q, s, d: (q.float(), s, d), DtypeError, "weight: expected int8 codes, got torch.float32"),
        (lambda q, s, d: (q, s, torch.int8), DtypeError, "dtype: expected a float dtype, got torch.int8"),
        (lambda q, s, d: (q, s.long(), d), DtypeError, "scales: expected a float dtype, got torch.int64"),
        (
            lambda q, s, d: (q, s[1:], d),
            ShapeError,
            r"scales: expected the leading dimensions of the codes \[6, 5, 3\], got \[5\]$",
        ),
        (
            lambda q, s, d: (q, s.expand(2, 6), d),
            ShapeError,
            r"scales: expected the leading dimensions of the codes \[6, 5, 3\], got \[2, 6\]$",
        ),
        (
            lambda q, s, d: (q[:, 0, 0], s[:, None, None], d),
            ShapeError,
            r"scales: expected the leading dimensions of the codes \[6\], got \[6, 1, 1\]$",
        ),
        (
            lambda q, s, d: (q, s.to("meta"), d),
            DtypeError,
            "expected all tensors on one device, got weight on cpu, scales on meta$",
        ),
    ],
)
def test_wrong_arguments(change, error, text, function):
    with pytest.raises(error, match=f"^{text}"):
        function(*change(*codes_and_scales(6, 5, 3), torch.float32))


def test_fake_tensors_and_the_meta_device():
    q, scales = codes_and_scales(6, 5, 3, 3)
    for codes in (q, q.contiguous(memory_format=torch.channels_last)):
        opcheck(op, (codes, scales, torch.bfloat16))
        real = dequantize(codes, scales, torch.bfloat16)
        mode = FakeTensorMode()
        for fake in (
            dequantize(mode.from_tensor(codes), mode.from_tensor(scales), torch.bfloat16),
            dequantize(codes.to("meta"), scales.to("meta"), torch.bfloat16),
        ):
            assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())


def test_compilation():
    counter = CompileCounterWithBackend("aot_eager")

    def function(q, s):
        return dequantize(q, s, torch.float16).relu()

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((6, 5, 3), (7, 9, 4)):
        q, scales = codes_and_scales(*shape)
        assert torch.equal(compiled(q, scales), function(q, scales))
    assert counter.frame_count == 1


def test_gradients_of_scales_are_not_lost():
    q, scales = codes_and_scales(3, 4, 2)
    for function in (dequantize, op):
        assert gradcheck(lambda s, f=function: f(q, s, torch.float64), scales.double().requires_grad_())
        leaf = scales.clone().requires_grad_()
        function(q, leaf, torch.float32).sum().backward()
        assert torch.equal(leaf.grad, q.sum((1, 2)).float())
        with torch.no_grad():
            assert not function(q, leaf, torch.float32).requires_grad
        assert not function(q, scales, torch.float32).requires_grad
        with forward_ad.dual_level():
            result = function(q, forward_ad.make_dual(scales, scales * 2), torch.float32)
            assert torch.equal(forward_ad.unpack_dual(result).tangent, 2 * function(q, scales, torch.float32))


@pytest.mark.parametrize("function", [dequantize, op])
def test_transforms(function):
    q, scales = codes_and_scales(5, 6, 7, leading=2)
    whole = expected(q, scales, torch.float32)

    def one(codes, factors):
        return function(codes, factors, torch.float32)

    assert torch.equal(vmap(one)(q, scales), whole)
    assert torch.equal(vmap(one, (1, 0), 1)(q.transpose(0, 1), scales), whole.transpose(0, 1))
    assert torch.equal(vmap(lambda s: one(q[0], s))(scales), torch.stack([one(q[0], s) for s in scales]))
    assert torch.equal(vmap(lambda codes: one(codes, scales[0]))(q), q * scales[0][:, None])
    assert torch.equal(vmap(vmap(one))(q[:, :, None], scales[:, :, None]), whole[:, :, None])
    assert torch.equal(grad(lambda s: one(q, s).sum())(scales), q.sum(2).float())
    assert torch.equal(jvp(lambda s: one(q, s), (scales,), (scales,))[1], whole)


def test_inference_mode():
    q, scales = codes_and_scales(3, 4)
    with torch.inference_mode():
        assert dequantize(q, scales, torch.float32).is_inference()
    assert not dequantize(q, scales, torch.float32).is_inference()


def test_under_autocast_the_dtype_is_the_one_asked_for():
    q, scales = codes_and_scales(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert dequantize(q, scales, torch.float32).dtype == torch.float32
