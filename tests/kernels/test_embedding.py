"""Rows of an int8 table: exact to one rounding, on every backend; wrong arguments are explained."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck
from torch.func import grad, jvp, vmap
from torch.library import opcheck

from support.numerics import DTYPES, K_VALUES, at_odd_address, name_of, random_codes, seeded
from w8a16.core import dequantize_weight
from w8a16.errors import DtypeError, IndexRangeError, ShapeError
from w8a16.kernels import apply_embedding, embedding
from w8a16.kernels.native_ops import try_embedding

# The complete op, and the short way to it: the same results, the same errors.
both_ways = pytest.mark.parametrize("embedding", [embedding, apply_embedding], ids=["op", "short"])


def table(n=50, k=33):
    return random_codes(n, k, seeded(k)), torch.rand(n, generator=seeded(n)) * 0.1 + 0.01


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@both_ways
def test_rows_are_the_dequantized_weight(dtype, embedding):
    for k in K_VALUES:
        q, scales = table(k=k)
        indices = torch.randint(0, 50, (4, 7), generator=seeded(1))
        rows = embedding(indices, q, scales, dtype)
        assert (rows.shape, rows.dtype) == ((4, 7, k), dtype)
        assert torch.equal(rows, dequantize_weight(q, scales, dtype)[indices])
        assert k == 0 or rows.norm() > 0


@pytest.mark.every_backend
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32])
@both_ways
def test_any_shape_of_indices(shape, index_dtype, embedding):
    q, scales = table()
    indices = torch.full(shape, 49, dtype=index_dtype)
    assert torch.equal(embedding(indices, q, scales, torch.float32), (q[49] * scales[49]).expand(*shape, 33))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@both_ways
def test_layouts(dtype, embedding):
    q, scales = table()
    indices = torch.randint(0, 50, (6, 10), generator=seeded(2))
    expected = embedding(indices, q, scales, dtype)
    assert torch.equal(embedding(indices.T, q, scales, dtype), expected.transpose(0, 1))
    assert torch.equal(embedding(indices, at_odd_address(q), at_odd_address(scales), dtype), expected)
    assert torch.equal(embedding(indices, q.T.contiguous().T, scales, dtype), expected)
    assert torch.equal(embedding(indices, torch.cat([q, q], 1)[:, :33], scales, dtype), expected)
    for other in (torch.float16, torch.bfloat16, torch.float64):
        rounded = scales.to(other)
        assert torch.equal(
            embedding(indices, q, rounded, dtype), dequantize_weight(q, rounded, dtype)[indices]
        )


@pytest.mark.every_backend
@both_ways
def test_many_rows_on_all_threads(embedding):
    q, scales = table(n=1000, k=515)
    indices = torch.randint(0, 1000, (3000,), generator=seeded(3))
    assert torch.equal(embedding(indices, q, scales, torch.float32), dequantize_weight(q, scales)[indices])


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("bad", "found"), [(-1, "-1"), (50, "50"), (2**40, str(2**40)), (-(2**62), str(-(2**62)))]
)
@both_ways
def test_an_index_out_of_range(bad, found, embedding):
    indices = torch.tensor([[0, 49], [bad, 3]])
    with pytest.raises(IndexRangeError, match=rf"^indices: expected 0 to 49, got {found}$"):
        embedding(indices, *table(), torch.float32)
    with pytest.raises(IndexError):
        embedding(indices, *table(), torch.float32)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda i, q, s: (i.float(), q, s, torch.float32), DtypeError, "indices: expected int64 or int32"),
        (lambda i, q, s: (i, q.float(), s, torch.float32), DtypeError, "weight: expected int8 codes"),
        (
            lambda i, q, s: (i, q[0], s, torch.float32),
            ShapeError,
            "weight: expected .N, K. with two dimensions",
        ),
        (
            lambda i, q, s: (i, q, s[1:], torch.float32),
            ShapeError,
            "scales: expected .50. for a table .50, 33.",
        ),
        (lambda i, q, s: (i, q, s, torch.int8), DtypeError, "expected float dtypes, got torch.int8"),
        (
            lambda i, q, s: (i, q, s.long(), torch.float32),
            DtypeError,
            "expected float dtypes, got .*torch.int64",
        ),
        (
            lambda i, q, s: (i.to("meta"), q, s, torch.float32),
            DtypeError,
            "expected all tensors on one device",
        ),
    ],
)
@both_ways
def test_wrong_arguments(change, error, text, embedding):
    with pytest.raises(error, match=f"^{text}"):
        embedding(*change(torch.tensor([1, 2]), *table()))


def test_compilation_and_fake_tensors():
    q, scales = table()
    indices = torch.tensor([[1, 2], [3, 4]])
    opcheck(torch.ops.w8a16.embedding.default, (indices, q, scales, torch.bfloat16))
    compiled = torch.compile(
        lambda i: embedding(i, q, scales, torch.float16) * 2, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(indices), embedding(indices, q, scales, torch.float16) * 2)
    with FakeTensorMode() as mode:
        fake = embedding(*(mode.from_tensor(t) for t in (indices, q, scales)), torch.bfloat16)
    assert (fake.shape, fake.dtype) == ((2, 2, 33), torch.bfloat16)


@pytest.mark.every_variant
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=name_of)
def test_the_native_op_answers(dtype):
    q, scales = table()
    indices = torch.tensor([[3, 3], [0, 49]])
    whole = dequantize_weight(q, scales, dtype)
    for values in (indices, indices.int(), indices[:, :0], indices[0, 0], indices[1].int()):
        assert torch.equal(try_embedding(values, q, scales, dtype), whole[values.long()])
    parts = torch.cat([q, q], 1)[:, 33:]
    assert torch.equal(
        try_embedding(indices, parts, scales.half(), dtype), embedding(indices, q, scales.half(), dtype)
    )


@pytest.mark.parametrize(
    "change",
    {
        "float64": lambda i, q, s, d: (i, q, s, torch.float64),
        "float64 scales": lambda i, q, s, d: (i, q, s.double(), d),
        "other indices": lambda i, q, s, d: (i.short(), q, s, d),
        "strided indices": lambda i, q, s, d: (i.T, q, s, d),
        "beyond the table": lambda i, q, s, d: (i + 1, q, s, d),
        "before the table": lambda i, q, s, d: (i - 1, q, s, d),
        "int32 beyond the table": lambda i, q, s, d: (i.int() + 1, q, s, d),
        "strided scales": lambda i, q, s, d: (i, q, torch.stack([s, s], 1)[:, 0], d),
        "transposed table": lambda i, q, s, d: (i, q.T.contiguous().T, s, d),
        "float table": lambda i, q, s, d: (i, q.float(), s, d),
        "sixteen dimensions": lambda i, q, s, d: (i[(None,) * 14], q, s, d),
        "meta": lambda i, q, s, d: (i.to("meta"), q.to("meta"), s.to("meta"), d),
    }.items(),
    ids=lambda item: item[0],
)
def test_the_native_op_declines(change):
    q, scales = table()
    assert try_embedding(*change[1](torch.tensor([[3, 3], [0, 49]]), q, scales, torch.float32)) is None


@pytest.mark.every_backend
@pytest.mark.parametrize("layout", ["transposed table", "strided scales"])
def test_the_table_is_never_copied(layout):
    q, scales = torch.ones(1_000_000, 16, dtype=torch.int8), torch.ones(1_000_000)
    if layout == "transposed table":
        q = q.T.contiguous().T
    else:
        scales = torch.stack([scales, scales], 1)[:, 0]
    for _ in range(2):
        with torch.profiler.profile(profile_memory=True) as profiler:
            rows = apply_embedding(torch.tensor([5, 999_999]), q, scales, torch.float32)
    assert torch.equal(rows, torch.ones(2, 16))
    assert max(abs(event.cpu_memory_usage) for event in profiler.events()) < 10_000


@both_ways
def test_gradients_of_scales_are_not_lost(embedding):
    q, scales = table()
    indices = torch.tensor([3, 3, 49])
    leaf = scales.double().requires_grad_()
    assert gradcheck(lambda s: embedding(indices, q, s, torch.float64), leaf)
    with torch.no_grad():
        assert not embedding(indices, q, leaf, torch.float32).requires_grad


@both_ways
def test_transforms(embedding):
    q, scales = table()
    indices = torch.tensor([[1, 2, 2], [3, 49, 0]])
    whole = dequantize_weight(q, scales)
    expected = whole[indices]

    def rows(i, s=scales, codes=q):
        return embedding(i, codes, s, torch.float32)

    assert torch.equal(vmap(rows)(indices), expected)
    assert torch.equal(vmap(vmap(rows))(indices), expected)
    assert torch.equal(vmap(rows, 1, 1)(indices.int()), expected)
    both = torch.stack([scales, 2 * scales])
    assert torch.equal(vmap(rows)(indices, both), torch.stack([rows(indices[0]), 2 * rows(indices[1])]))
    assert torch.equal(
        vmap(lambda c: rows(indices, codes=c))(torch.stack([q, -q])), torch.stack([expected, -expected])
    )
    found = grad(lambda s: rows(indices, s).sum())(scales)
    assert torch.equal(
        found, torch.zeros(50).index_add(0, indices.flatten(), q.sum(1).float()[indices.flatten()])
    )
    assert torch.equal(jvp(lambda s: rows(indices, s), (scales,), (scales,))[1], expected)
    for bad in (-1, 50):
        for call in (vmap(rows), lambda i: grad(lambda s: rows(i, s).sum())(scales)):
            with pytest.raises(IndexRangeError, match=rf"^indices: expected 0 to 49, got {bad}$"):
                call(torch.tensor([[1], [bad]]))


@both_ways
def test_inference_mode_and_autocast(embedding):
    q, scales = table()
    with torch.inference_mode():
        assert embedding(torch.tensor([1]), q, scales, torch.float32).is_inference()
    with torch.autocast("cpu", torch.bfloat16):
        assert embedding(torch.tensor([1]), q, scales, torch.float32).dtype == torch.float32


def test_the_short_way_in_one_graph():
    counter = CompileCounterWithBackend("aot_eager")
    q, scales = table()

    def function(indices):
        return apply_embedding(indices, q, scales, torch.float16) * 2

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for indices in (torch.arange(6).view(2, 3), torch.arange(20).view(4, 5)):
        assert torch.equal(compiled(indices), function(indices))
    assert counter.frame_count == 1
