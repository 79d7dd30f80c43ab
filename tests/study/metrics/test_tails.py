"""Heaviness of tails, against scipy and against what distributions are known for."""

import math

import pytest
import torch
from scipy import stats

from w8a16.study.metrics import crest_factor, kurtosis

ROWS = torch.randn(5, 4000, generator=torch.Generator().manual_seed(0))


def test_kurtosis_is_that_of_scipy_about_zero():
    symmetric = torch.cat([ROWS, -ROWS], dim=1)  # the mean is zero, so both definitions agree
    expected = stats.kurtosis(symmetric.double().numpy(), axis=1, fisher=False)
    assert kurtosis(symmetric).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    "values, expected",
    [(ROWS, 3.0), (torch.linspace(-1, 1, 100_001), 1.8), (torch.tensor([2.0, -2.0]), 1.0)],
)
def test_kurtosis_of_known_distributions(values, expected):
    assert kurtosis(values).flatten().tolist() == pytest.approx(
        [expected] * kurtosis(values).numel(), abs=0.3
    )


def test_crest_factor():
    assert crest_factor(torch.linspace(-1, 1, 100_001)).item() == pytest.approx(math.sqrt(3), abs=1e-4)
    expected = ROWS.abs().amax(1) / ROWS.square().mean(1).sqrt()
    assert crest_factor(ROWS).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_size_does_not_matter(scale):
    """Fourth powers of such float32 numbers overflow or vanish."""
    for measure in (kurtosis, crest_factor):
        assert measure(ROWS * scale).tolist() == pytest.approx(measure(ROWS).tolist(), rel=1e-5)


def test_zeros_have_no_tails():
    assert kurtosis(torch.zeros(3)).isnan()
    assert crest_factor(torch.zeros(3)).isnan()
