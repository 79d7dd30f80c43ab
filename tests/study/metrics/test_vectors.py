"""The metrics against numbers worked out by hand."""

import math

import pytest
import torch

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics import cosine, largest_difference, nearest_neighbours, sqnr_db

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine(dtype):
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 2.0], [2.0, 1.0]], dtype=dtype)
    b = torch.tensor([[4.0, 3.0], [0.0, 5.0], [-2.0, -4.0], [6.0, 3.0]], dtype=dtype)
    result = cosine(a, b)
    assert result.dtype == torch.float64
    assert result.tolist() == pytest.approx([24 / 25, 0, -1, 1], abs=1e-15)


def test_cosine_is_per_row_of_the_last_dimension():
    a = torch.randn(2, 3, 5)
    assert cosine(a, a).shape == (2, 3)
    assert cosine(a[0, 0], a[0, 0]).shape == ()


def test_cosine_does_not_depend_on_length():
    """float32 squares of such numbers overflow or vanish."""
    a = torch.tensor([[3.0, 4.0]])
    for scale in (1e30, 1e-30):
        assert float(cosine(a * scale, torch.tensor([[4.0, 3.0]]))) == pytest.approx(0.96, abs=1e-6)


@pytest.mark.parametrize(
    "reference, other, decibels",
    [
        ([10.0, 0.0], [10.0, 1.0], 20.0),
        ([3.0, 4.0], [3.0, 4.5], 20.0),
        ([1.0, 1.0], [0.0, 0.0], 0.0),
        ([1.0, 0.0], [-9.0, 0.0], -20.0),
        ([1.0, 2.0], [1.0, 2.0], math.inf),
        ([0.0, 0.0], [0.0, 0.0], math.inf),
        ([0.0, 0.0], [0.0, 1.0], -math.inf),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sqnr(reference, other, decibels, dtype):
    result = sqnr_db(torch.tensor(reference, dtype=dtype), torch.tensor(other, dtype=dtype))
    assert result == pytest.approx(decibels, abs=1e-12)


def test_sqnr_is_summed_in_float64():
    """In float32 the noise of one in ten million would drown; in float16 the sum would overflow."""
    reference = torch.full((1000,), 1000.0)
    other = reference.clone()
    other[0] += 1
    assert sqnr_db(reference, other) == pytest.approx(90)
    assert sqnr_db(reference.half(), other.half()) == pytest.approx(90)


def test_nearest_neighbours():
    """Unit vectors at 0, 10, 90 and 200 degrees; the lengths must not matter."""
    angles = torch.tensor([0.0, 10.0, 90.0, 200.0]).deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [0.1], [2.0]])
    result = nearest_neighbours(points)
    assert result.dtype == torch.int64
    assert result.tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 0, 1]]


def test_a_row_is_not_its_own_neighbour():
    """Also where another row is just as similar."""
    assert nearest_neighbours(torch.ones(3, 2)).tolist() == [[1, 2], [0, 2], [0, 1]]


def test_nearest_neighbours_of_one_row():
    assert nearest_neighbours(torch.ones(1, 2)).shape == (1, 0)


def test_largest_difference():
    assert largest_difference(torch.tensor([[1.0, -5.0]]), torch.tensor([[1.5, -3.0]])) == 2.0
    assert largest_difference(torch.ones(0), torch.ones(0)) == 0.0


@pytest.mark.parametrize("measure", [cosine, sqnr_db, largest_difference])
def test_what_cannot_be_compared_is_named(measure):
    with pytest.raises(ShapeError) as caught:
        measure(torch.ones(2, 3), torch.ones(3))
    assert str(caught.value) == "reference and other: expected equal shapes, got [2, 3] and [3]"
    with pytest.raises(UsageError) as caught:
        measure(torch.ones(2, 2), torch.tensor([[1.0, 2.0], [math.inf, math.nan]]))
    assert str(caught.value) == "other: 2 of 4 values are NaN or Inf, the first at [1, 0]"


def test_neighbours_need_a_matrix():
    with pytest.raises(ShapeError, match="a row for each item, got \\[3\\]"):
        nearest_neighbours(torch.ones(3))
