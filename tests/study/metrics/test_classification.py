"""McNemar's test, against scipy's exact binomial test."""

import pytest
import torch
from scipy.stats import binomtest

from w8a16.errors import ShapeError
from w8a16.study.metrics import mcnemar


@pytest.mark.parametrize(
    "only_ours, only_theirs", [(0, 1), (3, 0), (5, 5), (12, 4), (200, 150), (3000, 3200)]
)
def test_the_p_value_is_that_of_the_binomial(only_ours, only_theirs):
    ours = torch.tensor([1] * only_ours + [0] * only_theirs + [1] * 50 + [0] * 9)
    theirs = torch.tensor([0] * only_ours + [1] * only_theirs + [1] * 50 + [0] * 9)
    expected = binomtest(only_ours, only_ours + only_theirs).pvalue
    assert mcnemar(ours, theirs) == (only_ours, only_theirs, pytest.approx(expected, rel=1e-6))


def test_models_that_agree_do_not_differ():
    assert mcnemar(torch.tensor([True, False]), torch.tensor([True, False])) == (0, 0, 1.0)
    assert mcnemar(torch.tensor([]), torch.tensor([])) == (0, 0, 1.0)


def test_examples_must_be_the_same():
    with pytest.raises(ShapeError, match=r"expected equal shapes, got \[2\] and \[3\]"):
        mcnemar(torch.ones(2), torch.ones(3))
