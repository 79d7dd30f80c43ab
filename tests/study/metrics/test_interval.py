"""The bootstrap: against the normal theory, and what it must do with few examples."""

import math

import pytest
import torch

from w8a16.errors import UsageError
from w8a16.study.metrics import paired_interval


def test_many_examples_give_the_normal_interval():
    values = torch.randn(3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    mean, low, high = paired_interval(values)
    half = 1.96 * float(values.std()) / math.sqrt(3000)
    assert mean == pytest.approx(float(values.mean()))
    assert (low, high) == (
        pytest.approx(mean - half, abs=half / 10),
        pytest.approx(mean + half, abs=half / 10),
    )


def test_it_covers_the_truth_about_as_often_as_it_says():
    """400 draws of 60 examples; a binomial with p = 0.95 stays within 0.91 and 0.98 all but never."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(400, 60, generator=generator, dtype=torch.float64)
    inside = 0
    for draw in draws:
        _, low, high = paired_interval(draw, samples=500)
        inside += low <= 0 <= high
    assert 0.90 <= inside / 400 <= 0.98


def test_same_seed_same_interval():
    values = [0.1, 0.5, -0.3, 0.9]
    assert paired_interval(values) == paired_interval(torch.tensor(values, dtype=torch.float64))
    assert paired_interval(values, seed=1) != paired_interval(values, seed=2)


def test_blocks_of_draws_do_not_matter(monkeypatch):
    """The same number of draws, however many fit in a block."""
    values = torch.arange(10.0)
    monkeypatch.setattr("w8a16.study.metrics.interval._BLOCK_ELEMENTS", 35)
    mean, low, high = paired_interval(values)
    assert mean == 4.5
    assert 2.5 < low < 3.2
    assert 5.8 < high < 6.5


def test_one_example_is_all_there_is():
    assert paired_interval([0.25]) == (0.25, 0.25, 0.25)


def test_nothing_and_nan_are_refused():
    with pytest.raises(UsageError, match="expected one for each example, got none"):
        paired_interval([])
    with pytest.raises(UsageError) as caught:
        paired_interval([0.0, math.nan])
    assert str(caught.value) == "differences: 1 of 2 values are NaN or Inf, the first at [1]"
