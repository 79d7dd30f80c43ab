"""Outliers: the largest of each row are kept to the bit, and the rest obeys the law with a finer scale."""

import pytest
import torch

from w8a16.core import Outliers, add_outliers, quantize_weight, take_outliers
from w8a16.errors import ShapeError, WeightValueError


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("count", [1, 3, 31])
def test_the_largest_of_each_row_are_taken_and_put_back_to_the_bit(dtype, count):
    torch.manual_seed(0)
    weights = torch.randn(17, 32).to(dtype)
    rest, (columns, values) = take_outliers(weights, count)
    assert (columns.dtype, values.dtype) == (torch.int32, torch.float32)
    assert (columns[:, 1:] > columns[:, :-1]).all()
    smallest_taken = weights.gather(1, columns.long()).abs().amin(1)
    assert (rest.abs().amax(1) <= smallest_taken).all()
    assert (rest.gather(1, columns.long()) == 0).all()
    restored = add_outliers(rest.clone(), Outliers(columns, values))
    assert torch.equal(restored, weights.float().to(dtype) if dtype == torch.float64 else weights) or (
        dtype == torch.float64 and (restored - weights).abs().max() <= weights.abs().max() * 2.0**-24
    )


def test_of_equal_magnitudes_the_first_columns_are_taken():
    weights = torch.tensor(
        [[1.0, -2.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, -3.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]]
    )
    _, outliers = take_outliers(weights, 2)
    assert outliers.columns.tolist() == [[1, 2], [0, 1], [0, 1]]
    assert outliers.values.tolist() == [[-2.0, 2.0], [3.0, 3.0], [0.0, 0.0]]


def test_one_outlier_no_longer_costs_its_row_the_precision():
    torch.manual_seed(0)
    weights = torch.randn(64, 512)
    weights[:, 7] = 80.0
    coarse = quantize_weight(weights).scales
    rest, outliers = take_outliers(weights, 1)
    assert (outliers.columns == 7).all()
    assert (quantize_weight(rest).scales < coarse / 15).all()


@pytest.mark.parametrize("count", [0, -1, 4, 5])
def test_a_number_that_leaves_nothing_is_refused(count):
    with pytest.raises(ShapeError, match=f"outliers: expected 1 to 3 for rows of 4 elements, got {count}"):
        take_outliers(torch.ones(2, 4), count)


def test_a_float64_outlier_beyond_float32_is_refused():
    weights = torch.tensor([[1.0, 1e39]], dtype=torch.float64)
    with pytest.raises(WeightValueError, match=r"within float32 \(3.4e38\), got 1e\+39"):
        take_outliers(weights, 1)


def test_no_rows_and_the_meta_device():
    for device, rows in (("cpu", 0), ("meta", 3)):
        rest, outliers = take_outliers(torch.empty(rows, 8, device=device), 2)
        assert rest.shape == (rows, 8)
        assert outliers.columns.shape == outliers.values.shape == (rows, 2)
