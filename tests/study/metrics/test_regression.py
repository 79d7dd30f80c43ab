"""R2, against scikit-learn."""

import pytest
import torch
from sklearn.metrics import r2_score

from w8a16.errors import ShapeError, UsageError
from w8a16.study.metrics import r2

TRUTH = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GUESS = TRUTH + 0.3 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_r2():
    assert r2(TRUTH, GUESS) == pytest.approx(r2_score(TRUTH.numpy(), GUESS.numpy()))
    assert r2(TRUTH[:, 0], GUESS[:, 0]) == pytest.approx(r2_score(TRUTH[:, 0].numpy(), GUESS[:, 0].numpy()))
    assert r2(TRUTH, TRUTH) == 1
    assert r2(TRUTH, TRUTH.mean(0).expand(50, 3)) == pytest.approx(0)


def test_a_large_offset_does_not_drown_the_variation():
    assert r2(TRUTH + 1e6, GUESS + 1e6) == pytest.approx(r2(TRUTH, GUESS), rel=1e-6)


def test_columns_that_do_not_vary():
    flat = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    for guess in (flat, flat + torch.tensor([[0.5, 0.0]])):
        assert r2(flat, guess) == pytest.approx(r2_score(flat.numpy(), guess.numpy()))


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match="n at least 2, got"):
        r2(torch.ones(1), torch.ones(1))
    with pytest.raises(ShapeError, match="truth and prediction: expected equal shapes"):
        r2(TRUTH, GUESS[:, :2])
    with pytest.raises(UsageError, match="prediction: 50 of 150 values are NaN"):
        r2(TRUTH, torch.where(torch.arange(3) == 1, torch.nan, GUESS))
