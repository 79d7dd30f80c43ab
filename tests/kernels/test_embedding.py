"""Rows of an int8 table: exact to one rounding, on every backend; wrong arguments are explained."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

from support.numerics import DTYPES, K_VALUES, at_odd_address, name_of, random_codes, seeded
from w8a16.core import dequantize_weight
from w8a16.errors import DtypeError, IndexRangeError, ShapeError
from w8a16.kernels import embedding


def table(n=50, k=33):
    return random_codes(n, k, seeded(k)), torch.rand(n, generator=seeded(n)) * 0.1 + 0.01


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_are_the_dequantized_weight(dtype):
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
def test_any_shape_of_indices(shape, index_dtype):
    q, scales = table()
    indices = torch.full(shape, 49, dtype=index_dtype)
    assert torch.equal(embedding(indices, q, scales, torch.float32), (q[49] * scales[49]).expand(*shape, 33))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_layouts(dtype):
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
def test_many_rows_on_all_threads():
    q, scales = table(n=1000, k=515)
    indices = torch.randint(0, 1000, (3000,), generator=seeded(3))
    assert torch.equal(embedding(indices, q, scales, torch.float32), dequantize_weight(q, scales)[indices])


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("bad", "found"), [(-1, "-1"), (50, "50"), (2**40, str(2**40)), (-(2**62), str(-(2**62)))]
)
def test_an_index_out_of_range(bad, found):
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
def test_wrong_arguments(change, error, text):
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
