"""Budgets: what they are made of, and how the command line writes them."""

import pytest
from torch import nn

from w8a16.errors import UsageError
from w8a16.study.repair import MEASURES, Budget


@pytest.mark.parametrize(
    "text, metric, limit",
    [
        ("kl=0.001", "kl", 0.001),
        (" kl <= 1e-3 ", "kl", 0.001),
        ("cosine>=0.999", "cosine", 0.999),
        ("top1=.99", "top1", 0.99),
        ("perplexity_difference<=0.5", "perplexity_difference", 0.5),
    ],
)
def test_parse(text, metric, limit):
    assert Budget.parse(text) == Budget(metric, limit)


@pytest.mark.parametrize("text", ["", "kl", "kl=", "=3", "kl=abc", "kl==3", "0.01", "kl=nan", "kl=0.1 nats"])
def test_what_is_no_budget(text):
    with pytest.raises(UsageError, match=r"a metric and its limit, as in kl=0.001, got '"):
        Budget.parse(text)


def test_the_wrong_way_round():
    with pytest.raises(UsageError, match="cosine is to be at least its limit"):
        Budget.parse("cosine<=0.999")
    with pytest.raises(UsageError, match="kl is to be at most its limit"):
        Budget.parse("kl>=0.1")


def test_limits_are_finite_numbers():
    for limit in (float("inf"), float("nan")):
        with pytest.raises(UsageError, match="expected a finite limit"):
            Budget("kl", limit)
    for limit in ("0.1", None, True):
        with pytest.raises(UsageError, match="expected a number as the limit"):
            Budget("kl", limit)
    with pytest.raises(UsageError, match="the name of a metric or a function"):
        Budget(3, 0.1)


def test_names():
    def bits_lost(model: nn.Module) -> float:
        return 0.0

    assert Budget(bits_lost, 0.1).name == "bits_lost"
    assert Budget("kl", 0.1).name in MEASURES
